"""Words and numbers from outside: what is printed, what is counted, what is read of a file that its writer did not
finish."""

from __future__ import annotations

import io
import json

import pytest

from llmpar import outside, records
from llmpar.summary import read
from llmpar.summary.summariser import Summariser

GOOD = {
    "kind": "request",
    "v": 1,
    "status": "ok",
    "sent_at": 100.0,
    "launched_at": 99.9,
    "ttft_s": 0.1,
    "e2e_s": 0.3,
    "event_s": [0.1, 0.2],
    "event_tokens": [1, 1],
    "output_tokens": 2,
    "prompt_tokens": 3,
    "stream": True,
    "clock": "kernel",
    "prompt_sha256": "ab" * 32,
    "sampling": {"max_tokens": 2},
}


def line(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode() + b"\n"


def full(**changes: object) -> bytes:
    """With every field, so that the fast way takes it."""
    from llmpar.summary.chunks import EMPTY

    return json.dumps({"kind": "request", "v": 1} | EMPTY | GOOD | changes).encode() + b"\n"


def summary(*lines: bytes) -> Summariser:
    summariser = Summariser()
    read.feed(summariser, io.BytesIO(b"".join(lines)), "f")
    return summariser


def test_nothing_printed_drives_a_terminal():
    text = "a\x1b[2Jb\r\nc\x7f\x9b31m\u202edcba\u2028e\ud800"
    shown = outside.printable(text)
    assert shown == r"a\x1b[2Jb\r\nc\x7f\x9b31m\u202edcba\u2028e\ud800" and shown.isprintable()
    assert outside.printable("größer, 模型, 😀") == "größer, 模型, 😀"


@pytest.mark.parametrize("value", [-1, 2**63, 10**12 + 1, 1.5, "5", True, None, [], float("inf")])
def test_what_is_no_count(value):
    assert outside.count(value) is None


@pytest.mark.parametrize(
    "field,value",
    [
        ("output_tokens", -5),
        ("output_tokens", 2**62),
        ("output_tokens", 2**63),
        ("output_tokens", 2**64 - 1),
        ("output_tokens", 1.5),
        ("prompt_tokens", -1),
        ("cached_tokens", 10**15),
        ("sent_at", 1e13),
        ("sent_at", -1.0),
        ("launched_at", 1e300),
        ("e2e_s", 1e13),
        ("ttft_s", -1e13),
        ("cpu_wait_s", 1e200),
        ("event_s", [0.1, 1e15]),
        ("event_tokens", [1, -1]),
        ("event_tokens", [2**62, 2**62]),
        ("event_tokens", [1, 1.5]),
    ],
)
@pytest.mark.parametrize("form", [line, full])
def test_numbers_out_of_range_are_null_and_counted_on_both_ways(field, value, form):
    made = summary(form(), form(**{field: value}), form())
    assert made.columns.counts["ok"] == 3 and made.columns.out_of_range == 1
    output = made.columns.array("output")
    assert output[output >= 0].sum() == (4 if field == "output_tokens" else 6)


@pytest.mark.parametrize("field", ["output_tokens", "sent_at", "e2e_s", "event_s", "event_tokens"])
@pytest.mark.parametrize("value", ["5", True, {}, "x"])
@pytest.mark.parametrize("form", [line, full])
def test_other_types_are_refused_on_both_ways(field, value, form):
    wrong = [value, value] if field.startswith("event") else value
    with pytest.raises(records.BadRecord, match="line 2"):
        summary(form(), form(**{field: wrong}))


TORN = line()[:90]


@pytest.mark.parametrize(
    "data,whole,torn",
    [
        (line() + TORN, 1, 1),
        (line() + TORN + b"\n" + line(), 2, 1),
        (line() + TORN + line(), 2, 1),  # another writer wrote on
        (TORN + TORN + line() + line(), 2, 1),
        (b"\0" * 100 + line() + line(), 2, 1),
        (line() + b"\0" * 50, 1, 1),
        (line() + b'{"kind":"requ', 1, 1),
        (line(text='a {"kind":"request","v":1} b')[:-30] + b"\n" + line(), 1, 1),
    ],
)
def test_torn_lines_cost_themselves_alone(data, whole, torn):
    seen = records.Read()
    data = data.replace(b'"kind": ', b'"kind":')
    assert len(list(records.read(io.BytesIO(data), "f", seen))) == whole and seen.torn == torn
    made = summary(data)
    assert (made.columns.counts["ok"], made.torn) == (whole, torn)


@pytest.mark.parametrize("text", [b"hello\n", b"[1,2]\n", b'{"kind":"request","v":99}\n', b'{"a":1}\n', b"{]\n"])
def test_what_is_no_record_is_still_refused(text):
    with pytest.raises(records.BadRecord, match="line 2"):
        list(records.read(io.BytesIO(line() + text), "f"))
    with pytest.raises(records.BadRecord, match="line 2"):
        summary(line(), text)


def test_words_of_tables_and_records_reach_no_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    from unit.made import summary

    from llmpar.cli.messages import assignments
    from llmpar.render import predictions, report_csv
    from llmpar.results import rows
    from llmpar.verdicts import claim_table

    (claim,) = claim_table.parse(
        "id\tsweep\tsentence\tmetric\ta\tb\texpect\tstated\tnote\n"
        "c\ts\tA\x1b[2J is faster\twall_s\tclients=8\tclients=16\tA<B\t-\t-\n",
        "t",
    )
    refused = {"card": "\x1b[2J", "settings": {}, "price_per_h": None, "figures": {}, "reason": "'\x1b[2J' is unknown"}
    made = summary(20) | {"host": {"name": "box\x1b[31m"}}
    shown = (
        claim.sentence
        + predictions.render([refused], [], [], False)
        + report_csv.rows(rows.group([made]))
        + assignments({"run_title": "a\x1b[2J"})
    )
    assert "\x1b" not in shown and "\\x1b[2J" in shown


def test_reasons_without_words_are_refused() -> None:
    from unit.made import summary

    from llmpar import shapes

    broken = summary(20) | {"warnings": [{"code": "convoy"}]}
    assert "whose 'warnings[0]' has no code or no message" in str(shapes.fault({"kind": "summary", "v": 2} | broken))
