"""The shapes of dense decoder models: what a step multiplies and what a token keeps in the KV cache."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES_PER_VALUE = 2  # fp16 or bf16, the only types with kernel tables


class Refused(ValueError):
    """What is not predicted; the message is the reason."""


class UnknownModel(Refused):
    """A model whose sizes are neither in the package nor in a config.json that was named."""


@dataclass(frozen=True)
class Model:
    """Sizes as in Hugging Face's config.json."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    vocabulary: int
    tied: bool = False  # input and output embedding are one matrix

    @property
    def dense_parameters(self) -> int:
        """Of the layers' matrices: every token of a step is multiplied with them."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Of the output matrix: one row of logits for each sampled token."""
        return self.hidden * self.vocabulary

    @property
    def weight_bytes(self) -> int:
        return BYTES_PER_VALUE * (self.dense_parameters + self.head_parameters * (1 if self.tied else 2))

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head * BYTES_PER_VALUE

    @property
    def attention_flops_per_pair(self) -> int:
        """Of one query with one key and its value, over all layers and heads."""
        return 4 * self.layers * self.heads * self.head

    @property
    def elementwise_bytes_per_token(self) -> int:
        """Read and written by norms, residuals, rotary embedding and activation of one token, as fused kernels do
        it."""
        return self.layers * BYTES_PER_VALUE * (8 * self.hidden + 3 * self.intermediate)


# From each model's config.json.
KNOWN = {
    model.name: model
    for model in (
        Model("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000),
        Model("vicuna-7b-v1.5", 32, 4096, 32, 32, 128, 11008, 32000),
        Model("llama-2-13b", 40, 5120, 40, 40, 128, 13824, 32000),
        Model("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        Model("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        Model("mistral-7b-v0.3", 32, 4096, 32, 8, 128, 14336, 32768),
        Model("qwen2.5-7b", 28, 3584, 28, 4, 128, 18944, 152064),
        Model("qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936),
    )
}


LARGEST_SIZE = 10**7  # of one dimension; the largest vocabularies have 10**6 entries


def load(name: str) -> Model:
    """A known model by name (`lmsys/vicuna-7b-v1.5` too), or the directory or config.json of another."""
    path, is_file = Path(name), False
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        if path.is_dir():
            path = path / "config.json"
        is_file = path.is_file()
    if is_file:
        return _from_config(path)
    short = name.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    for candidate in (
        short,
        short.removesuffix("-instruct"),
        short.removesuffix("-hf"),
        short.removesuffix("-instruct-v0.3") + "-v0.3",
    ):
        if candidate in KNOWN:
            return KNOWN[candidate]
    for suffix in ("-awq", "-gptq", "-fp8", "-int4", "-int8", "-eetq", ".gguf"):
        if suffix in short:
            raise Refused(f"'{name}' is quantised: kernel times are known for fp16 and bf16 only")
    raise UnknownModel(
        f"the sizes of '{name}' are not known: give the directory with its config.json, or one of "
        f"{', '.join(sorted(KNOWN))}"
    )


def _from_config(path: Path) -> Model:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"cannot read '{path}': {error}") from None
    if not isinstance(config, dict):
        raise Refused(f"'{path}' is not the config.json of a decoder model")
    if config.get("quantization_config"):
        raise Refused(f"'{path}' describes quantised weights: kernel times are known for fp16 and bf16 only")
    if any(config.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        raise Refused(f"'{path}' describes a mixture of experts: only dense models are predicted")
    try:
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        model = Model(
            name=path.parent.name or str(path),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise Refused(f"'{path}' is not the config.json of a decoder model: {error}") from None
    sizes = [model.layers, model.hidden, model.heads, model.kv_heads, model.head, model.intermediate, model.vocabulary]
    if not all(0 < size <= LARGEST_SIZE for size in sizes):
        raise Refused(f"'{path}' is not the config.json of a decoder model: its sizes are from 1 to {LARGEST_SIZE}")
    return model
