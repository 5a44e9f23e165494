"""GPU samples in columns, for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Cell = tuple[str, int, Callable[[dict[str, Any]], str]]


def _number(name: str, factor: float = 1.0, form: str = ".0f") -> Callable[[dict[str, Any]], str]:
    def cell(sample: dict[str, Any]) -> str:
        value = sample.get(name)
        return "-" if value is None else format(value * factor, form)

    return cell


COLUMNS: tuple[Cell, ...] = (
    ("gpu", 5, lambda sample: f"{sample['gpu']}" + (f".{sample['mig']['instance']}" if sample.get("mig") else "")),
    ("util%", 5, _number("gpu_util_ratio", 100)),
    ("SM%", 5, _number("sm_util_ratio", 100)),
    ("occ%", 5, _number("sm_occupancy_ratio", 100)),
    ("tens%", 5, _number("tensor_ratio", 100)),
    ("dram%", 5, _number("dram_ratio", 100)),
    ("mem GiB", 8, _number("memory_used_bytes", 2**-30, ".2f")),
    ("eng GiB", 8, _number("engine_memory_bytes", 2**-30, ".2f")),
    ("W", 5, _number("power_w")),
    ("SM MHz", 7, _number("sm_clock_mhz")),
    ("C", 4, _number("temperature_c")),
    ("limits", 0, lambda sample: ",".join(sample.get("clock_limits") or ()) or "-"),
)
HEADER = " ".join(name.rjust(width) if width else name for name, width, _ in COLUMNS) + "\n"
_printed = {"rows": 0}
_known: dict[str, dict[str, Any]] = {}  # the latest of each figure: not all are read at each tick


def rows(samples: list[dict[str, Any]]) -> bytes:
    """One line a sample, with the header again after every 40 or so."""
    lines = []
    for sample in samples:
        if _printed["rows"] % 40 == 0:
            lines.append(HEADER)
        _printed["rows"] += 1
        if sample["error"]:
            lines.append(f"{COLUMNS[0][2](sample).rjust(5)} {sample['error']['message']}\n")
        else:
            known = _known.setdefault(sample["uuid"], {})
            known.update({name: value for name, value in sample.items() if value is not None})
            lines.append(
                " ".join(cell(known).rjust(width) if width else cell(known) for _, width, cell in COLUMNS) + "\n"
            )
    return "".join(lines).encode()
