import io
import multiprocessing
import os

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpar import records

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text().filter(lambda key: key not in ("kind", "v")), json_values, max_size=6))
def test_decode_of_encode_is_identity(fields):
    record = {"kind": "request", "v": 1, **fields}
    line = records.encode(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert records.decode(line) == record


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")], {"deep": [float("nan")]}])
def test_nan_is_refused_not_turned_into_null(value):
    with pytest.raises(ValueError, match="not a number"):
        records.encode({"kind": "request", "v": 1, "ttft_s": value})


def test_kind_and_version_come_first():
    with pytest.raises(ValueError, match="first keys"):
        records.encode({"v": 1, "kind": "request"})


def test_unknown_kind_and_field_pass_unknown_version_does_not():
    assert records.decode(b'{"kind":"weather","v":9,"rain":true}')["rain"] is True
    with pytest.raises(records.BadRecord, match="version 2"):
        records.decode(b'{"kind":"request","v":2}')


@pytest.mark.parametrize("line", [b"[]", b"3", b"{}", b'{"kind":"request"}', b"nonsense", b"\xff\xfe"])
def test_no_record(line):
    with pytest.raises(records.BadRecord):
        records.decode(line)


def test_torn_last_line_is_counted_and_a_bad_line_named():
    good = records.encode({"kind": "request", "v": 1})
    seen = records.Read()
    assert len(list(records.read(io.BytesIO(good + b"\n" + good[:9]), "x.jsonl", seen))) == 1
    assert (seen.records, seen.torn, seen.torn_names) == (1, 1, ["x.jsonl"])
    with pytest.raises(records.BadRecord, match="'x.jsonl' line 2"):
        list(records.read(io.BytesIO(good + b"{oops\n" + good), "x.jsonl"))


def test_append_after_a_torn_line_starts_a_new_one(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"kind":"requ')
    line = records.encode({"kind": "request", "v": 1})
    records.append(path, line)
    records.append(path, line)
    assert path.read_bytes() == b'{"kind":"requ\n' + line + line


def _write(path, size, times):
    for number in range(times):
        records.append(
            path, records.encode({"kind": "request", "v": 1, "pid": os.getpid(), "n": number, "text": "x" * size})
        )


def test_parallel_writers_never_tear_a_line(tmp_path):
    path = tmp_path / "r.jsonl"
    writers = [multiprocessing.Process(target=_write, args=(path, 65536, 40)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 160
    assert len({(record["pid"], record["n"]) for record in map(orjson.loads, lines)}) == 160


def test_disk_full_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        records.append("/dev/full", b"{}\n")
