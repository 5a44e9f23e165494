"""What an engine's log says of its start: when it begins to load weights, and how long each phase took."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

# Stamps of log lines -> seconds, good for differences within one log: 2025-12-23 14:18:01, 2024-12-11T10:04:00.802105Z,
# and llama.cpp's minutes.seconds.milliseconds.microseconds since its start.
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?)")
_SINCE = re.compile(r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PHASES = ("weights", "compile", "graphs")


@dataclass(frozen=True)
class Startup:
    """Regular expressions over lines of an engine's log.

    `begins`: the first line of loading weights. `told`: phase to lines whose group 1 is its seconds, the first pattern
    that is there counts. `between`: phase to the lines that begin and end it, of logs that stamp their lines.
    """

    begins: str
    told: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    between: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def phases(self, log: str) -> dict[str, float]:
        """Seconds of each phase that the log tells of. Of several ranks the slowest counts."""
        log = _COLOUR.sub("", log)
        found = {}
        for phase in PHASES:
            for pattern in self.told.get(phase, ()):
                seconds = [float(match) for match in re.findall(pattern, log)]
                if seconds:
                    found[phase] = max(seconds)
                    break
            else:
                if phase in self.between and (lasted := _between(log, *self.between[phase])) is not None:
                    found[phase] = lasted
        return found


def _between(log: str, begin: str, end: str) -> float | None:
    """Seconds from the first line of `begin` to the last of `end`; None where one of them, or its stamp, is missing."""
    lines = log.splitlines()
    first = next((_stamp(line) for line in lines if re.search(begin, line)), None)
    last = next((_stamp(line) for line in reversed(lines) if re.search(end, line)), None)
    return None if first is None or last is None or last < first else round(last - first, 6)


def _stamp(line: str) -> float | None:
    if (match := _DATE.search(line)) is not None:
        return datetime.fromisoformat(match[1].replace("T", " ")).timestamp()
    if (match := _SINCE.match(line)) is not None:
        minutes, seconds, milliseconds, microseconds = map(int, match.groups())
        return minutes * 60 + seconds + milliseconds / 1e3 + microseconds / 1e6
    return None


# vLLM 0.8 to 0.23 and what forked from it.
VLLM = Startup(
    begins=r"Starting to load model|Loading model from scratch",
    told={
        "weights": (r"Model loading took .* and ([\d.]+) seconds", r"Loading weights took ([\d.]+) seconds"),
        "compile": (r"torch\.compile (?:takes|took) ([\d.]+) s in total",),
        "graphs": (r"Graph capturing finished in ([\d.]+) secs",),
    },
)
# SGLang since 0.4; the words of graph capture changed in 2026.
SGLANG = Startup(
    begins=r"Load weight begin",
    told={
        "weights": (r"Load weight end\. elapsed=([\d.]+) s",),
        "graphs": (r"(?i:capture (?:\w+ )*cuda graph end\.) (?:Time elapsed: |elapsed=)([\d.]+) s",),
    },
    between={"weights": ("Load weight begin", "Load weight end")},
)
# A shard's time holds the start of its Python too; the warm-up captures the graphs.
TGI = Startup(
    begins=r"Starting shard",
    told={"weights": (r"Shard ready in ([\d.]+)s",)},
    between={"graphs": ("Warming up model", r"Setting max batch total tokens|Connected")},
)
LLAMACPP = Startup(
    begins=r"load_model: loading model|main: loading model", between={"weights": ("loading model", "model loaded")}
)
