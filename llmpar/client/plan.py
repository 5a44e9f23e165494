"""The options of one llmpar-request command line, checked against one another."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from llmpar import apikey, clock, procfs
from llmpar.client import body
from llmpar.client.request import Settings
from llmpar.dialects import Sampling

LONGEST_S = 1e6  # of --timeout: eleven days
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)\Z")


class Wrong(ValueError):
    """Options that do not go together; `hint` says what to type instead."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


class Unread(ValueError):
    """A command line that cannot be parsed; the text, lines with their ends, is for the user."""


class Missing(RuntimeError):
    """A package that this plan needs is not installed; `hint` is the command that installs it."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class Plan:
    """A parsed command line: what to ask, how, and where records go (None: standard output).

    `lost`: a pool's worker died on this command line after so many records.
    """

    settings: Settings
    prompts: tuple[str, ...] = ()
    from_stdin: bool = False
    queue: str | None = None
    threads: int | None = None
    coroutines: int | None = None
    output: str | None = None
    at_ns: int | None = None
    attempt: int = 1
    slot: int | None = None
    seq: int | None = None
    launched_ns: int | None = None
    launcher: str = "cold"
    lost: int | None = None
    duration_s: float | None = None


def from_options(
    prompts: tuple[str, ...], options: dict[str, Any], environ: dict[str, str], launched_ns: int | None = None
) -> Plan:
    """Check options against one another. Raises Wrong."""
    base_url = options["base_url"]
    if not base_url:
        raise Wrong("no server is named", "give --base-url http://HOST:PORT or set LLMPAR_BASE_URL")
    sources = bool(prompts) + bool(options["from_stdin"]) + bool(options["queue"])
    # `parallel -N0 … --queue FILE ::: {1..128}` passes nothing on, but without -N0 the numbers arrive as arguments.
    if options["queue"] and prompts and not options["from_stdin"]:
        raise Wrong("--queue takes no prompt files", "with parallel, give -N0 so that its arguments are not passed on")
    if options["queue"]:
        _one_host(options["queue"], environ)
    if sources == 0:
        raise Wrong("no prompt file is named", "name files, or give --stdin or --queue FILE")
    if sources > 1:
        raise Wrong("prompt files, --stdin and --queue exclude one another")
    if options["threads"] and options["coroutines"]:
        raise Wrong("--threads and --asyncio exclude one another")
    many = bool(options["threads"] or options["coroutines"])
    for name in ("temperature", "top_p", "timeout_s"):
        if not math.isfinite(options[name] or 0):
            raise Wrong(f"--{name.removesuffix('_s').replace('_', '-')} must be a finite number")
    if options["timeout_s"] > LONGEST_S:
        raise Wrong(f"--timeout is at most {LONGEST_S:g} s")
    for name in ("base_url", "model", "engine", "stop"):
        for text in [options[name]] if isinstance(options[name], str) else options[name] or ():
            if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise Wrong(f"--{name.replace('_', '-')} is not UTF-8")
    check_at(options["at"], len(prompts) == 1 and not many)
    sampling = Sampling(
        max_tokens=options["max_tokens"],
        temperature=options["temperature"],
        top_k=options["top_k"],
        top_p=options["top_p"],
        seed=options["seed"],
        ignore_eos=options["ignore_eos"],
        stop=list(options["stop"]),
        cache_prompt=options["cache_prompt"],
    )
    clients = options["concurrency"] or options["threads"] or options["coroutines"]
    try:
        settings = Settings(
            base_url=base_url,
            api=options["api"],
            model=options["model"],
            engine=options["engine"],
            stream=options["stream"],
            sampling=sampling,
            timeout_s=options["timeout_s"],
            max_bytes=options["max_bytes"],
            text=not options["no_text"],
            kernel=not options["user_stamps"],
            keep_alive=options["keep_alive"],
            headers=tuple(_header(text) for text in options["headers"]),
            api_key=_key(options["api_key_file"]),
            concurrency=clients,
            ca=trusted(options["ca"]),
            insecure=options["insecure"],
            body=None if options["body"] is None else body.read(options["body"]),
        )
        if settings.target.unix and options["coroutines"]:
            raise Wrong("--asyncio does not reach a Unix socket", "use --threads")
    except ValueError as error:
        raise error if isinstance(error, Wrong) else Wrong(str(error)) from None
    launched = launched_ns or whole(environ.get("LLMPAR_LAUNCHED_NS")) or procfs.process_start()
    made = Plan(
        settings,
        prompts,
        options["from_stdin"],
        options["queue"],
        options["threads"],
        options["coroutines"],
        options["output"],
        due_ns(options["at"]),
        whole(environ.get("LLMPAR_ATTEMPT")) or 1,
        whole(environ.get("PARALLEL_JOBSLOT")),
        whole(environ.get("PARALLEL_SEQ")),
        launched,
    )
    made.duration_s = options["duration_s"]
    made.lost = whole(environ.get("LLMPAR_LOST"))
    made.launcher = (
        "threads"
        if made.threads
        else "asyncio"
        if made.coroutines
        else "queue"
        if made.queue
        else "cold"
        if len(prompts) == 1
        else "turns"
    )
    return made


def over_hosts(queue: str) -> Wrong:
    """How far a list has got is known on one host only: over several each would ask every prompt."""
    return Wrong(
        f"--queue '{queue}' from another host's GNU parallel: every host would ask every prompt of it",
        "start one GNU parallel on each host, with a part of the list: parallel -S 1/HOST,1/HOST … "
        "'parallel -j64 -N0 llmpar-request --queue LIST ::: {1..64}' (docs/hosts.md)",
    )


def _one_host(queue: str, environ: dict[str, str]) -> None:
    """Raises Wrong where processes of one fan-out are spread over hosts, by a GNU parallel or by srun."""
    parallel = whole(environ.get("PARALLEL_PID"))
    if parallel is not None and not procfs.is_parallel(parallel):
        raise over_hosts(queue)
    if parallel is None and (whole(environ.get("SLURM_STEP_NUM_NODES")) or 1) > 1:
        raise Wrong(
            f"--queue '{queue}' from a step of several nodes: every node would ask every prompt of it",
            "one task a node, each with a part of the list: split -n r/$((SLURM_PROCID + 1))/$SLURM_NTASKS LIST "
            "(docs/hosts.md)",
        )


def check_at(at: str | None, one: bool) -> None:
    """Raises Wrong for a due time of anything but one prompt."""
    if at is not None and not one:
        raise Wrong(
            "--at is for one prompt file",
            "make a schedule: llmpar-arrivals … | parallel --colsep '\\t' … llmpar-request --at {1} {2}",
        )


def whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def trusted(path: str | None) -> str | None:
    """A file of certificates to trust. Raises Wrong where it holds none."""
    if not path:
        return None
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise Wrong(f"cannot read certificates from '{path}': {getattr(error, 'strerror', None) or error}") from None
    return path


def _header(text: str) -> tuple[str, str]:
    match = _HEADER.match(text)
    if match is None or not text.isascii():
        raise Wrong(f"'{text}' is not a header", "write it as --header 'Name: value'")
    if match[1].lower() == "authorization":
        raise Wrong("a key in --header would be seen in the list of processes", "give --api-key-file FILE")
    if match[1].lower() in ("host", "content-length", "transfer-encoding", "connection"):
        raise Wrong(f"the header '{match[1]}' is llmpar-request's own")
    return match[1], match[2]


def _key(path: str | None) -> str | None:
    try:
        return apikey.read(path) if path else None
    except ValueError as error:
        raise Wrong(str(error)) from None


def due_ns(text: str | None) -> int | None:
    """Epoch nanoseconds of --at. Raises Wrong."""
    try:
        return None if text is None else clock.parse(text)
    except ValueError as error:
        raise Wrong(str(error), "give epoch seconds, or +SECONDS from now") from None
