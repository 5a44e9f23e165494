"""Another forced acceptance length in a running vLLM, without a start for each length: a worker extension.

    VLLM_SERVER_DEV_MODE=1 PYTHONPATH=bench vllm serve MODEL --worker-extension-cls forced_lengths.ForcedLengths \
      --speculative-config '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 4,
        "prompt_lookup_min": 2, "rejection_sample_method": "synthetic", "synthetic_acceptance_length": 1.5}'
    curl -d '{"method": "force_acceptance_length", "args": ["1.8"]}' http://127.0.0.1:8000/collective_rpc

For vLLM 0.23 with its V1 model runner, which n-gram speculation uses. Read in its sources; not part of its interface.
"""

from __future__ import annotations

from typing import Any


class ForcedLengths:
    """Methods that vLLM adds to each of its workers."""

    def force_acceptance_length(self: Any, length: str) -> list[float]:
        """Accept `length` tokens a step on average from now on; returns the rates by position. Raises ValueError."""
        from vllm.config.speculative import SpeculativeConfig
        from vllm.v1.spec_decode.utils import unconditional_to_conditional_rates

        rates = self.model_runner.rejection_sampler.synthetic_conditional_rates
        if rates is None:
            raise ValueError("this server forces no acceptance length: start it with one")
        asked = SpeculativeConfig._resolve_synthetic_acceptance_rates(rates.numel(), None, float(length))
        conditional = unconditional_to_conditional_rates(asked)
        rates.copy_(rates.new_tensor(conditional))
        return conditional
