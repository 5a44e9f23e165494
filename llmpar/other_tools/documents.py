"""A result file's bytes to documents: JSON, JSON lines, an SQLite database."""

from __future__ import annotations

import json  # not orjson: these tools write Infinity (a request rate, say), which strict JSON has not
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from llmpar.other_tools import aiperf, evalscope, inference_perf
from llmpar.other_tools.record import BadImport


def parsed(data: bytes, beside: Callable[[str], bytes | None]) -> list[Any]:
    """Documents of a file, one for each run or report in it. Raises BadImport.

    A file that is a list of requests is one document: `tool`, `requests`, and `beside`, what the tool keeps in another.
    """
    if data.startswith(b"SQLite format 3\0"):
        return [{"tool": "evalscope", "requests": _rows(data), "beside": _json(beside(evalscope.ARGUMENTS))}]
    try:
        whole = [json.loads(data)]
    except (ValueError, RecursionError):
        try:
            whole = [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise BadImport(f"not JSON ({error})") from None
    # `vllm bench sweep` writes its runs as one list.
    flat = [each for one in whole for each in (one if isinstance(one, list) else [one])]
    if flat and isinstance(flat[0], dict):
        if aiperf.is_request(flat[0]):
            return [{"tool": "aiperf", "requests": flat, "beside": _json(beside(aiperf.EXPORT))}]
        if inference_perf.is_request(flat[0]):
            return [{"tool": "inference-perf", "requests": flat}]
    return flat


def _json(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None


def _rows(data: bytes) -> list[dict[str, Any]]:
    """Rows of evalscope's table, as columns by name. Its pickled answers are not read: unpickling runs code."""
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(data)
            database.row_factory = sqlite3.Row
            database.text_factory = lambda text: text.decode("utf-8", "replace")
            known = {row["name"] for row in database.execute("PRAGMA table_info(result)")}
            if not {"start_time", "success", "latency"} <= known:
                raise BadImport("the database is not evalscope's: it has no table 'result' with start_time and latency")
            names = ", ".join(sorted(known - {"response_messages"}))
            return [dict(row) for row in database.execute(f"SELECT {names} FROM result ORDER BY start_time")]
    except sqlite3.Error as error:
        raise BadImport(f"not a readable SQLite database ({error})") from None
