"""Counting tokens with a tokenizer file or with a server's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_UNIT = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n")


class Unavailable(RuntimeError):
    """No tokenizer: the package is not installed, the server does not answer. The text says which, `hint` what to
    do."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


def from_file(path: str) -> Callable[[str], int]:
    """A counter of tokens by a tokenizer.json. Raises Unavailable without the package `tokenizers`, ValueError for a
    bad file."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unavailable(
            "--tokenizer needs the package 'tokenizers'", "pip install tokenizers, or count with --base-url"
        ) from None
    try:
        loaded = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"cannot read '{path}': {error}") from None
    return lambda text: len(loaded.encode(text).ids)


def from_server(
    url: str, key: str | None = None, verify: bool | str = True, timeout_s: float = 60
) -> Callable[[str], int]:
    """A counter that asks a server's /tokenize at that URL, with the tokens that it puts at the start. Calls raise
    Unavailable."""
    import requests

    from llmpar import http_session

    session = http_session.Session(key, verify)

    def count(text: str) -> int:
        # llama.cpp reads content, vLLM prompt, TGI inputs; each leaves the others' fields alone.
        body = {"content": text, "prompt": text, "inputs": text, "add_special": True}
        try:
            answer = session.post(url, json=body, timeout=timeout_s)
            answer.raise_for_status()
            value: Any = answer.json()
        except requests.RequestException as error:
            raise Unavailable(f"cannot count tokens at '{url}': {http_session.why(error) or error}") from None
        except ValueError as error:
            raise Unavailable(f"cannot count tokens at '{url}': {error}") from None
        number = value.get("count", value.get("tokens")) if isinstance(value, dict) else value
        if isinstance(number, list):
            number = len(number)
        if not isinstance(number, int):
            raise Unavailable(f"cannot count tokens at '{url}': no count in the answer")
        return number

    return count


def estimate(text: str) -> int:
    """Tokens by rule: one for each seven letters begun of a word, one for each digit, mark and line end.

    On the 32 prompts of prompts/ the sum is 4% below Mistral 7B's tokenizer, 4% above Tekken's and Gemma 3's; single
    English prompts differ by up to 16%, other languages by up to 30%. Text of `synthetic` comes out exactly, without
    a begin-of-text token.
    """
    return sum([1 + (len(unit) - 1) // 7 for unit in _UNIT.findall(text)])
