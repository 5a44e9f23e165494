"""Lines on stderr, and values for a shell's eval."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from llmpar.outside import printable


def say(name: str, message: str, hint: str | None = None) -> None:
    """A message on stderr as `name: message`, with what to try on a line of its own."""
    # A line of progress may be there; it is drawn again below.
    clear = "\r\x1b[2K" if os.environ.get("LLMPAR_PROGRESS") and sys.stderr.isatty() else ""
    text = f"{clear}{name}: {_lines(message)}\n"
    if hint:
        text += f"  {_lines(hint)}\n"
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _lines(message: str) -> str:
    """Our own messages may have several lines; nothing in them may drive a terminal."""
    return "\n".join([printable(line) for line in message.split("\n")])


def assignments(variables: Mapping[str, Any]) -> str:
    """Lines for a shell's eval, values quoted: yes and no for booleans, an empty string for what is unknown. A name
    that is none in a shell is left out: it came with somebody's record.
    """
    words = {True: "yes", False: "no", None: ""}
    lines = []
    for name, value in variables.items():
        if not (name.isascii() and name.isidentifier()):
            continue
        text = words[value] if isinstance(value, bool | None) else str(value)
        # Nothing that a terminal would act on: these lines may be printed, and their values are put into messages.
        lines.append(f"{name}={shlex.quote(printable(text))}\n")
    return "".join(lines)
