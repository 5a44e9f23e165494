"""The noun that travels: one JSON object a line, first keys `kind` and `v`.

docs/records.md is the reference of every kind and field. Encoding refuses NaN and infinities, which orjson would turn
silently into null, which here means "not measured".
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import orjson

from llmpar import files

# The versions of each kind that this release reads; the last is the one it writes.
VERSIONS: dict[str, tuple[int, ...]] = {
    "request": (1,),
    "ended": (1,),
    "gpu": (1,),
    "engine": (1,),
    "host": (1,),
    "cell": (1,),
    "server": (1,),
    "clock": (1,),
    "summary": (1, 2),  # 2: latencies of the steady window, percentiles without an interval keep their value
    "verdict": (1,),
    "plan": (1,),
    "claim": (1,),
    "pick": (1,),
    "answer": (1,),
    "prediction": (1,),
    "card": (1,),
    "manifest": (1,),
    "file": (1,),
    "prompt": (1,),
    "prompt_set": (1,),
}


class BadRecord(ValueError):
    """A line that is not a record of a known version; says which line and why."""


class BadShape(BadRecord):
    """A record of a known version in which a field is not of its type (see llmpar/shapes.py)."""


@dataclass
class Read:
    """What a reader met besides records: counts of skipped lines, by name of the stream.

    `left_out`: of each record of a wrong shape its place and what is wrong with it.
    """

    records: int = 0
    torn: int = 0
    torn_names: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def encode(record: dict[str, Any]) -> bytes:
    """One line, UTF-8, ending in a newline. Raises ValueError for a missing kind or version, NaN or infinity."""
    keys = iter(record)
    if next(keys, None) != "kind" or next(keys, None) != "v":
        raise ValueError("a record's first keys are kind and v")
    line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    # orjson writes NaN as null; only records that came out with a null can have held one.
    if b"null" in line:
        _refuse_nan(record, "")
    return line


def _refuse_nan(value: Any, path: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"'{path}' is {value}, not a number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_nan(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        # Lists are long and nearly always of numbers alone, whose sum is not finite where one of them is not.
        with contextlib.suppress(TypeError, OverflowError):
            if math.isfinite(sum(value)):
                return
        for index, item in enumerate(value):
            _refuse_nan(item, f"{path}[{index}]")


def decode(line: bytes) -> dict[str, Any]:
    """The record on one line. Unknown fields and unknown kinds pass; a known kind of an unknown version does not.

    Raises BadRecord, whose text does not name the line: the caller knows where it stands. BadShape where a field is not
    of its type.
    """
    from llmpar import shapes  # not for those who only write

    try:
        record = orjson.loads(line.removeprefix(codecs.BOM_UTF8) if line.startswith(codecs.BOM_UTF8) else line)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise BadRecord("not a record: a record is a JSON object")
    kind, version = record.get("kind"), record.get("v")
    if not isinstance(kind, str) or not isinstance(version, int) or isinstance(version, bool):
        raise BadRecord("not a record: it has no kind and v")
    known = VERSIONS.get(kind)
    if known is not None and version not in known:
        raise BadRecord(f"{kind} record of version {version}; this release reads {', '.join(map(str, known))}")
    if wrong := shapes.fault(record):
        raise BadShape(wrong)
    return record


def read(stream: BinaryIO | Iterable[bytes], name: str, seen: Read | None = None) -> Iterator[dict[str, Any]]:
    """Records of one stream, in order, as they come. Blank lines are skipped.

    A line that a writer could not finish is torn: dropped and counted in `seen`, wherever it is (see `salvage`).
    Another line that is no record raises BadRecord naming the stream and the line. A record of a wrong shape costs
    itself alone where `seen` can say so, and raises BadShape where it is not given.
    """
    strict = seen is None
    seen = seen if seen is not None else Read()
    for number, line in enumerate(lines(stream, name), 1):
        if line.isspace():
            continue
        try:
            record = decode(line)
        except BadShape as error:
            if strict:
                raise BadShape(f"cannot read '{name}' line {number}: {error}") from None
            seen.left_out.append(f"'{name}' line {number}: {error}")
            continue
        except BadRecord as error:
            torn, whole = salvage(line)
            if not torn:
                raise BadRecord(f"cannot read '{name}' line {number}: {error}") from None
            seen.torn += 1
            if name not in seen.torn_names:
                seen.torn_names.append(name)
            if whole is None:
                continue
            record = whole
        seen.records += 1
        yield record


def lines(stream: BinaryIO | Iterable[bytes], name: str) -> Iterator[bytes]:
    """The lines of a stream. Raises BadRecord where one does not end."""
    if not hasattr(stream, "readline"):
        yield from stream
        return
    while line := next_line(cast(BinaryIO, stream), name):
        yield line


def next_line(stream: BinaryIO, name: str) -> bytes:
    """The rest of a stream's line; empty at its end. Raises BadRecord where the line does not end."""
    line = stream.readline(files.LINE_LIMIT)
    if len(line) == files.LINE_LIMIT:
        raise BadRecord(f"cannot read '{name}': a line of it is longer than {files.LINE_LIMIT >> 20} MiB")
    return line


_START = b'{"kind":"'


def salvage(line: bytes) -> tuple[bool, dict[str, Any] | None]:
    """Of a line that is no record: whether it is torn, and the whole record that follows the torn part, if one does.

    Torn is a last line without its newline, and one that begins as a record does and does not go on as JSON: the disk
    was full and had room again, or the writer was killed and another wrote on. Zero bytes before it are what a crash of
    the machine leaves.
    """
    rest = line.strip(b"\0")
    last = not line.endswith(b"\n")
    if not rest.strip():
        return True, None
    if rest is not line and len(rest) < len(line):
        try:
            return True, decode(rest)
        except BadRecord:
            pass
    if rest.startswith(_START):
        try:
            orjson.loads(rest)
        except orjson.JSONDecodeError:
            # Inside a string the quotes would be escaped, and what stands inside an object does not end where it does.
            at = rest.rfind(_START)
            while at > 0:
                try:
                    return True, decode(rest[at:])
                except BadRecord:
                    at = rest.rfind(_START, 0, at)
            return True, None
    return last, None


def append(path: str | os.PathLike[str], line: bytes) -> None:
    """Append one encoded line with a single write, whole even beside other writers.

    If the file ends in a torn line, the new line starts on a line of its own. Raises OSError (disk full, permission).
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        # The look at the last byte and the write belong together: another writer may be half way through its own.
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(fd, line)
        if written != len(line):
            os.write(fd, line[written:])  # raises ENOSPC where the first write was cut short
    finally:
        os.close(fd)
