"""Memory for the KV cache: one canonical number of bytes, turned into what each engine understands. Pure arithmetic.

"Fraction" has three meanings: of the whole card (TGI, vLLM before 0.20, Aphrodite, SGLang), of what is free once the
weights are loaded (TensorRT-LLM, LMDeploy), and bytes that stay free (DeepSpeed-MII, llama.cpp's margin). All three
need the card's size and the weights' size, and REST_BYTES for what is neither weights nor cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpar.engines.base import Device, Settings, Unsupported

GIB = 1 << 30
REST_BYTES = 3 * GIB // 2  # CUDA context, activations, graphs of a 7B model: 1.0 to 2.0 GiB in practice
DTYPE_BYTES = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "auto": 2.0}
# Bytes of a weight in the linear layers, where the engine or the checkpoint quantises; embeddings stay as they are.
QUANTIZED_BYTES = {
    "eetq": 1.0,
    "int8": 1.0,
    "fp8": 1.0,
    "bitsandbytes": 1.0,
    "bnb-8bit": 1.0,
    "w8a8_int8": 1.0,
    "awq": 0.53,
    "gptq": 0.53,
    "marlin": 0.53,
    "bitsandbytes-nf4": 0.53,
    "bitsandbytes-fp4": 0.53,
    "bnb-4bit": 0.53,
}


def kv_bytes_per_token(config: Mapping[str, Any], shards: int = 1, element_bytes: float = 2.0) -> int:
    """Bytes that one token holds in the KV cache of one device: keys and values of every layer.

    `config` is a model's config.json. Raises KeyError where it lacks what is needed.
    """
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    here = -(-heads // shards)  # heads are split over devices, and copied where there are too few
    return int(2 * config["num_hidden_layers"] * here * size * element_bytes)


def parameters(config: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of a Llama-shaped model: (in linear layers, in embeddings). Raises KeyError or ValueError for others.

    Attention q, k, v, o; gate, up and down of the feed-forward; embeddings and head (one matrix where tied); norms.
    """
    kind = config.get("model_type", "llama")
    if kind not in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"):
        raise ValueError(f"model type '{kind}' is not one whose weights can be counted from its config.json")
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries = config["num_attention_heads"] * size
    keys = (config.get("num_key_value_heads") or config["num_attention_heads"]) * size
    layer = hidden * (2 * queries + 2 * keys) + 3 * hidden * config["intermediate_size"] + 2 * hidden
    matrices = 1 if config.get("tie_word_embeddings") else 2
    return layers * layer + hidden, matrices * config["vocab_size"] * hidden


def weight_bytes(config: Mapping[str, Any], dtype: str | None, quantize: str | None, shards: int = 1) -> int:
    """Bytes of the weights on one device. Raises KeyError or ValueError where they cannot be counted."""
    linear, embedded = parameters(config)
    plain = DTYPE_BYTES.get(dtype or str(config.get("torch_dtype") or config.get("dtype") or "float16"), 2.0)
    each = plain if quantize is None else QUANTIZED_BYTES.get(quantize)
    if each is None:
        raise ValueError(f"the size of weights quantised by '{quantize}' is not known")
    return int((linear * each + embedded * plain) / shards)


def fraction_of_card(settings: Settings, device: Device) -> float | None:
    """Weights, cache and the rest as a part of the whole card, rounded to 4 places; None where neither the cache's
    bytes nor that part were given. Raises Unsupported for both of them, and for a cache that does not fit."""
    if settings.gpu_memory_utilization is not None:
        return given_fraction(settings)
    if settings.kv_bytes is None:
        return None
    kv, card, weights = _known(settings, device)
    return _fitting((weights + kv + REST_BYTES) / card, kv, card, weights)


def given_fraction(settings: Settings) -> float | None:
    """The part of the card that was given. Raises Unsupported where the cache's bytes were given as well."""
    part = settings.gpu_memory_utilization
    if part is None:
        return None
    if not 0 < part <= 1:
        raise Unsupported(f"gpu_memory_utilization is {part:g}: give a share of the card's memory, such as 0.9")
    if settings.kv_bytes is not None:
        raise Unsupported("gpu_memory_utilization and kv_bytes both decide the size of the KV cache: give one of them")
    return part


def fraction_of_free(settings: Settings, device: Device) -> float:
    """The cache as a part of what is free after the weights and the rest, rounded to 4 places."""
    kv, card, weights = _known(settings, device)
    free = card - weights - REST_BYTES
    return _fitting(kv / free if free > 0 else 2.0, kv, card, weights)


def bytes_kept_free(settings: Settings, device: Device) -> int:
    """What stays free once weights, cache and the rest are placed."""
    kv, card, weights = _known(settings, device)
    _fitting((weights + kv + REST_BYTES) / card, kv, card, weights)
    return card - weights - REST_BYTES - kv


def shortage(settings: Settings, device: Device, sequences: int = 1) -> str | None:
    """Why the settings cannot fit the device, or None where they may, or where a size is not known.

    It counts the least that any engine needs: the weights, the cache that was asked for, or else that of `sequences`
    sequences of full length, and the rest. `device.gpu_memory_bytes` may be a host's memory, for an engine that
    runs there.
    """
    card, weights = device.gpu_memory_bytes, device.weight_bytes
    if card is None or weights is None:
        return None
    kv = settings.kv_bytes or 0
    if settings.kv_bytes is None and settings.max_total_tokens and device.kv_bytes_per_token:
        kv = sequences * settings.max_total_tokens * device.kv_bytes_per_token
    if weights + kv + REST_BYTES <= card:
        return None
    return (
        f"does not fit: {weights / GIB:.1f} GiB of weights, {kv / GIB:.1f} GiB of KV cache and "
        f"{REST_BYTES / GIB:.1f} GiB for the rest are more than {card / GIB:.1f} GiB"
    )


def _known(settings: Settings, device: Device) -> tuple[int, int, int]:
    assert settings.kv_bytes is not None
    if device.gpu_memory_bytes is None:
        raise Unsupported(
            "--kv-bytes becomes a part of the card's memory on this engine, and no GPU was found: name its "
            "memory with --gpu-memory-bytes, or give the engine's own flag through --engine-args"
        )
    if device.weight_bytes is None:
        raise Unsupported(
            "--kv-bytes needs the size of the model's weights on this engine, and neither its config.json nor "
            "its weights are on this machine: download the model first, name their size with --weight-bytes, "
            "or give the engine's own flag through --engine-args"
        )
    return settings.kv_bytes, device.gpu_memory_bytes, device.weight_bytes


def _fitting(fraction: float, kv: int, card: int, weights: int) -> float:
    if not 0 < fraction <= 0.99:
        raise Unsupported(
            f"{kv / GIB:.1f} GiB of KV cache next to {weights / GIB:.1f} GiB of weights and "
            f"{REST_BYTES / GIB:.1f} GiB for the rest do not fit into {card / GIB:.1f} GiB: lower --kv-bytes"
        )
    return round(fraction, 4)
