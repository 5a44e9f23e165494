"""Sweep tables to cells, with the standard library alone.

A sweep is a TSV file with a header; each column is a setting of the server or of the load, and a value may list
alternatives separated by commas (`8,16`), which expand to a product; a value in double quotes is taken as it stands.
Lines that begin with `#` are comments. llmpar/sweep_folder.py writes the cells into a folder of results; `llmpar-cells`
is the same thing as a command.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from dataclasses import dataclass
from typing import Any

# name -> type. Server settings are llmpar-serve's options with _ for -.
SERVER: dict[str, type] = {
    "engine": str,
    "model": str,
    "version": str,
    "runtime": str,
    "dtype": str,
    "quantize": str,
    "max_input_tokens": int,
    "max_total_tokens": int,
    "max_sequences": int,
    "kv_bytes": str,
    "gpu_memory_utilization": float,
    "shards": int,
    "replicas": int,
    "gpus": str,
    "speculate": int,
    "speculate_method": str,
    "acceptance_length": float,
    "power_limit_w": float,
    "prefix_cache": bool,
    "seed": int,
    "engine_args": str,
    "host": str,
}
# The field's other names of the same settings, as columns; records keep ours.
ALIASES = {
    "engine_version": "version",
    "tp": "shards",
    "tensor_parallel_size": "shards",
    "max_num_seqs": "max_sequences",
    "max_model_len": "max_total_tokens",
    "kv_cache_memory_bytes": "kv_bytes",
    "concurrency": "clients",
    "max_concurrency": "clients",
    "num_prompts": "count",
    "request_rate": "rate",
    "burstiness": "shape",
}
LOAD: dict[str, type] = {
    "clients": int,
    "launcher": str,
    "api": str,
    "stream": bool,
    "prompts": str,
    "prompt_tokens": int,
    "prefix_ratio": float,
    "count": int,
    "duration_s": float,
    "skip": int,
    "take": int,
    "max_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "sampling_seed": int,
    "ignore_eos": bool,
    "warmup": int,
    "timeout_s": float,
    "until": str,
    "until_missed": str,
    "rate": float,
    "process": str,
    "shape": float,
}
DEFAULTS: dict[str, Any] = {
    "engine": "llamacpp",
    "clients": 1,
    "launcher": "parallel",
    "prompts": "prompts",
    "max_tokens": 64,
    "temperature": 0.0,
    "warmup": 2,
    "stream": True,
    "timeout_s": 600.0,
}
# Columns of tables for llmpar-simulate.
SIMULATED: dict[str, type] = {"card": str, "memory": str}
LAUNCHERS = ("parallel", "queue", "cold", "threads", "asyncio", "open")
# What GNU parallel's shell or a script's arithmetic would read is one of these words or a number.
WORDS = {
    "launcher": LAUNCHERS,
    "api": ("openai-completions", "openai-chat", "tgi", "llamacpp", "mii", "ollama"),
    "process": ("constant", "poisson", "gamma", "trace"),
}
LONGEST_NAME = 200  # of a cell, whose folder and marks have it; file systems allow 255
# A product beyond this is a mistake, not a sweep.
MOST = 10_000


class BadSweep(ValueError):
    """A sweep that cannot be planned; the text names file, line and column where there are some."""


@dataclass(frozen=True)
class Running:
    """A server that already runs: where it listens, and what its owner says answers there. `api` is a dialect's
    name."""

    base_url: str
    engine: str
    model: str
    api: str = ""

    @classmethod
    def named(cls, base_url: str, engine: str, model: str, api: str = "") -> Running | None:
        """None without a base URL. Raises BadSweep where URL, engine and model are not all there."""
        if not base_url:
            given = [f"{name}={value}" for name, value in (("ENGINE", engine), ("MODEL", model), ("API", api)) if value]
            if given:
                raise BadSweep(
                    f"{' '.join(given)} without BASE_URL: these name what answers at BASE_URL; "
                    "a server that the sweep launches is named by the table's columns engine and model"
                )
            return None
        missing = [name for name, value in (("ENGINE", engine), ("MODEL", model)) if not value]
        if missing:
            raise BadSweep(
                f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set: results are kept by what "
                "answers at "
                f"{base_url}; give for example ENGINE=vllm MODEL=my-7b (`curl "
                f"{base_url.rstrip('/').removesuffix('/v1')}/v1/models` lists its models)"
            )
        return cls(base_url.rstrip("/"), engine, model, api)


def parse(text: str, name: str, more: dict[str, type] | None = None) -> list[dict[str, Any]]:
    """Rows of settings, alternatives expanded, in the file's order. `more`: columns of this reader alone. Raises
    BadSweep."""
    header: list[str] | None = None
    known = SERVER | LOAD | (more or {})
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if header is None:
            header = [ALIASES.get(column, column) for column in fields]
            for column in header:
                if column not in known:
                    if column in SIMULATED:
                        raise BadSweep(
                            f"'{name}' line {number}: column '{column}' is for llmpar-simulate, nothing measures it"
                        )
                    raise BadSweep(
                        f"'{name}' line {number}: unknown column '{column}'; known are {', '.join(sorted(known))}"
                    )
            if len(set(header)) != len(header):
                twice = next(column for column in header if header.count(column) > 1)
                same = [field for field, column in zip(fields, header, strict=True) if column == twice]
                raise BadSweep(f"'{name}' line {number}: the column '{twice}' appears twice ({', '.join(same)})")
            continue
        if len(fields) > len(header):
            raise BadSweep(
                f"'{name}' line {number}: {len(fields)} values under {len(header)} columns; columns are separated "
                "by tabs"
            )
        choices = []
        for column, value in itertools.zip_longest(header, fields, fillvalue=""):
            parts = [value[1:-1]] if len(value) > 1 and value[0] == value[-1] == '"' else value.split(",")
            choices.append([_value(column, part.strip(), name, number, known) for part in parts])
        if len(rows) + _product(choices) > MOST:
            raise BadSweep(f"'{name}' line {number}: more than {MOST} cells; give fewer alternatives")
        for values in itertools.product(*choices):
            rows.append({column: value for column, value in zip(header, values, strict=True) if value is not None})
    if header is None or not rows:
        raise BadSweep(f"'{name}' holds no cells: it needs a header line and at least one row")
    return rows


def _product(choices: list[list[Any]]) -> int:
    count = 1
    for values in choices:
        count *= len(values)
    return count


def _value(column: str, text: str, name: str, number: int, known: dict[str, type]) -> Any:
    if text in ("", "-"):
        return None
    wanted = known[column]
    try:
        if wanted is bool:
            return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.lower()]
        value = wanted(text)
    except (ValueError, KeyError):
        words = {int: "a whole number", float: "a number", bool: "yes or no"}[wanted]
        raise BadSweep(f"'{name}' line {number}: {column} is '{text}', not {words}") from None
    wrong = fault(column, value) if column in SERVER or column in LOAD else None
    if wrong:
        raise BadSweep(f"'{name}' line {number}: {column} is '{text}'{wrong}")
    return value


def fault(column: str, value: Any) -> str | None:
    """What is wrong with a setting's value, to follow `COLUMN is 'VALUE'`; None for a good one."""
    wanted: Any = (SERVER | LOAD)[column]
    words = {int: "a whole number", float: "a number", bool: "yes or no", str: "text"}
    if not (isinstance(value, wanted) or wanted is float and isinstance(value, int)) or (
        isinstance(value, bool) and wanted is not bool
    ):
        return f", not {words[wanted]}"
    if wanted in (int, float) and not -(2**63) <= value < 2**63:
        return ", not a finite number of 64 bits"
    if isinstance(value, str) and not value.isprintable():
        return ", which holds control characters"
    if column in WORDS and value not in WORDS[column]:
        return f", not one of {', '.join(WORDS[column])}"
    if column == "prefix_ratio" and not 0 <= value < 1:
        return "; it must be a share from 0 to below 1"
    if column in ("shape", "rate", "timeout_s", "duration_s") and not value > 0:
        return "; it must be above 0" + (" (1 is Poisson, less is burstier)" if column == "shape" else "")
    if column == "gpu_memory_utilization" and not 0 < value <= 1:
        return "; it is a share of the card's memory: above 0, at most 1"
    if column in ("clients", "count", "take", "max_tokens", "prompt_tokens", "replicas", "shards") and value < 1:
        return "; it must be at least 1"
    if column == "warmup" and value < 0:
        return "; it must not be negative"
    return None


def cell_fault(cell: dict[str, Any]) -> str | None:
    """What is wrong with a cell record before scripts use its words; None for a good one."""
    for key in ("id", "session", "sweep"):
        if (
            not isinstance(cell.get(key), str)
            or not re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", cell[key])
            or cell[key].strip(".") == ""
        ):
            return f"{key} is {str(cell.get(key))[:60]!r}, not a name of at most 255 letters, digits and -"
    for part, known in (("server", SERVER), ("load", LOAD)):
        settings = cell.get(part)
        if not isinstance(settings, dict):
            return f"{part} is not an object"
        for column, value in settings.items():
            wrong = fault(column, value) if column in known and value is not None else None
            if wrong:
                return f"{part}.{column} is {value!r}{wrong}"
    return None


def slug(value: Any) -> str:
    """A value as part of a name: [a-z0-9-] only (`=` in a Make target would read as a variable)."""
    text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "none"


def _name(settings: dict[str, Any], varying: list[str], widths: dict[str, int]) -> str:
    parts = []
    for key in varying:
        value = settings.get(key)
        if value is None and "engine" in varying:
            continue  # engines have settings of their own, which the others' names need not mention
        if key == "clients":
            parts.append(f"c{value:0{widths[key]}d}")
        elif (
            key in ("engine", "launcher", "quantize", "model", "dtype", "speculate_method", "host")
            and value is not None
        ):
            parts.append(slug(value.rsplit("/", 1)[-1]))
        else:
            parts.append(f"{slug(key)}-{'default' if value is None else slug(value)}")
    name = "-".join(parts) or "only"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _told_apart(name: str, digest: str, known: dict[str, str]) -> str:
    """The name, with a part of the digest where it is that of other settings already: names leave out signs."""
    return name if known.setdefault(name, digest) == digest else f"{name}-{digest[:8]}"


def _on(running: Running, rows: list[dict[str, Any]], sweep: str) -> list[dict[str, Any]]:
    """Rows as a server that already runs can have them: its own engine and model, no setting that only a launch sets.

    Raises BadSweep where the rows differ in such a setting: one server cannot be two of them.
    """
    varied = [key for key in SERVER if len({json.dumps(row.get(key)) for row in rows}) > 1]
    if varied:
        raise BadSweep(
            f"sweep '{sweep}' varies {', '.join(varied)}, which cannot be varied on a server that already runs "
            f"({running.base_url}); take a table that varies the load only (SWEEP=clients), once for each server, "
            "or leave BASE_URL out and let the sweep launch its servers"
        )
    own = {"engine": running.engine, "model": running.model}
    api = {"api": running.api or "openai-completions"}
    return [own | api | {key: value for key, value in row.items() if key in LOAD} for row in rows]


def with_launcher(rows: list[dict[str, Any]], launcher: str) -> list[dict[str, Any]]:
    """The rows with their clients started in another way. Open loads stay as they are. Raises BadSweep."""
    wrong = fault("launcher", launcher)
    if wrong or launcher == "open":
        raise BadSweep(f"LAUNCHER is '{launcher}'{wrong or '; give a rate in the table for open loads'}")
    return [row if row.get("launcher") == "open" else row | {"launcher": launcher} for row in rows]


def launch_settings(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The server settings that all rows share, besides engine and model: what a running server is not asked to obey."""
    return {key: rows[0][key] for key in SERVER if key in rows[0] and key not in ("engine", "model")}


def cells(
    rows: list[dict[str, Any]],
    sweep: str,
    repeats: int = 1,
    seed: int = 0,
    running: Running | None = None,
    more: dict[str, type] | None = None,
) -> list[dict[str, Any]]:
    """Cell records in the order in which they are to run.

    Cells whose server settings agree share a session. Each repeat runs every session once, in an order shuffled by
    `seed` (the first repeat of a single-repeat sweep keeps the file's order), so that drift does not fall on one
    setting. The first repeat has the names of a sweep without repeats, so what was measured before counts. With
    `running` the server's URL, engine, model and API are part of each cell. `more`: further columns, taken as server
    settings. Raises BadSweep where two rows are the same cell.
    """
    if running:
        rows = _on(running, rows, sweep)
    full = [DEFAULTS | row for row in rows]
    of_server = SERVER | (more or {})
    varying = [key for key in (of_server | LOAD) if len({json.dumps(row.get(key)) for row in full}) > 1]
    varying.sort(key=lambda key: (key in LOAD, key == "clients"))
    widths = {"clients": max(3, *(len(str(row["clients"])) for row in full))}
    digests: dict[str, str] = {}
    servers: dict[str, str] = {}
    seen: set[str] = set()
    sessions: dict[str, list[dict[str, Any]]] = {}
    for row in full:
        server = {key: row[key] for key in of_server if key in row}
        if running:
            server["base_url"] = running.base_url
        load = {key: row[key] for key in LOAD if key in row}
        digest = hashlib.sha256(json.dumps([server, load]).encode()).hexdigest()
        name = _told_apart(_name(row, varying, widths), digest, digests)
        if name in seen:
            raise BadSweep(f"sweep '{sweep}' has the cell '{name}' twice")
        seen.add(name)
        session = _name(server, [key for key in varying if key in of_server], widths) if server else "only"
        if session == "only":
            session = slug(server["engine"])
        session = _told_apart(session, hashlib.sha256(json.dumps(server).encode()).hexdigest(), servers)
        sessions.setdefault(session, []).append(
            {
                "kind": "cell",
                "v": 1,
                "id": name,
                "sweep": sweep,
                "session": session,
                "repeat": 1,
                "varies": {key: row.get(key) for key in varying},
                "server": server,
                "load": load,
                "settings_sha256": digest,
            }
        )
    order = random.Random(seed)
    result = []
    for repeat in range(1, repeats + 1):
        names = list(sessions)
        if repeats > 1:
            order.shuffle(names)
        for session in names:
            for cell in sessions[session]:
                if repeat > 1:
                    cell = cell | {"id": f"{cell['id']}-r{repeat}", "session": f"{session}-r{repeat}", "repeat": repeat}
                result.append(cell)
    return result
