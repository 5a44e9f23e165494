"""Prompt sets: lengths by rule, determinism, formats, manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpar import records
from llmpar.prompts import files, formats, prompt, synthetic
from llmpar.prompts.files import MANIFEST, differences
from llmpar.prompts.prompt import BadPrompts, record
from llmpar.prompts.tokens import estimate
from llmpar.prompts.vocabulary import WORDS

SET = Path(__file__).resolve().parent.parent.parent / "prompts"


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(1, 400), st.integers(0, 2**40), st.integers(0, 60))
def test_synthetic_text_has_the_asked_length_by_rule(index: int, tokens: int, seed: int, shared: int) -> None:
    prompt = synthetic.synthetic(index, tokens, seed, shared)
    assert estimate(prompt.text) == tokens == prompt.tokens
    assert prompt.text == synthetic.synthetic(index, tokens, seed, shared).text


def test_a_longer_prompt_of_the_same_number_begins_with_the_shorter() -> None:
    assert synthetic.synthetic(3, 300, 1).text.startswith(synthetic.synthetic(3, 100, 1).text)
    assert (
        synthetic.synthetic(3, 100, 1).text
        != synthetic.synthetic(4, 100, 1).text
        != synthetic.synthetic(4, 100, 2).text
    )


def test_shared_tokens_are_the_same_in_all_and_the_rest_differs() -> None:
    made = [synthetic.synthetic(index, 80, 5, 30).text for index in range(8)]
    head = synthetic.synthetic(0, 30, 5, 30).text
    assert all(text.startswith(head) for text in made)
    assert len({text[len(head) :] for text in made}) == 8


def test_the_vocabulary_keeps_to_the_rule() -> None:
    assert len(WORDS) == len(set(WORDS)) > 500
    assert all(word.isascii() and word.islower() and word.isalpha() and len(word) <= 7 for word in WORDS)


@pytest.mark.parametrize(
    "text,tokens",
    [
        ("", 0),
        ("the", 1),
        ("seventy", 1),
        ("eighteen", 2),
        ("a, b.", 4),
        ("42", 2),
        ("\n\n", 2),
        ("café", 1),
        ("東京", 1),
        ("x_y", 3),
        ("  ", 0),
    ],
)
def test_the_rule(text: str, tokens: int) -> None:
    assert estimate(text) == tokens


def test_a_tokenizer_is_met_exactly_or_the_failure_said() -> None:
    def with_begin_and_pairs(text: str) -> int:
        return 1 + len(text.split()) + text.count("the")

    for tokens in (5, 37, 200):
        prompt = synthetic.synthetic(1, tokens, 9, count=with_begin_and_pairs)
        assert with_begin_and_pairs(prompt.text) == tokens and prompt.token_source == "tokenizer"
    with pytest.raises(BadPrompts, match="exactly 7 tokens"):
        synthetic.synthetic(1, 7, 9, count=lambda text: 2 * len(text.split()))


def test_lengths_are_seeded_and_normal() -> None:
    assert synthetic.lengths(3, 99.6, 0, 1) == [100] * 3
    many = synthetic.lengths(2000, 300, 50, 1)
    assert many[:10] == synthetic.lengths(10, 300, 50, 1) != synthetic.lengths(10, 300, 50, 2)
    assert abs(sum(many) / 2000 - 300) < 5  # 4.5 standard errors
    assert min(synthetic.lengths(500, 6, 50, 1)) == 4


def test_sharegpt_takes_first_questions_and_the_length_of_answers() -> None:
    data = [
        {
            "id": "a",
            "conversations": [
                {"from": "system", "value": "be kind"},
                {"from": "human", "value": "What is it?"},
                {"from": "gpt", "value": "It is so."},
                {"from": "human", "value": "Why?"},
            ],
        },
        {"id": 7, "conversations": [{"from": "gpt", "value": "hello"}]},
        {"conversations": [{"from": "human", "value": "  "}]},
        {"conversations": None},
        3,
        {"conversation": [{"from": "user", "value": "Alone"}]},
    ]
    found = list(formats.sharegpt(json.dumps(data).encode(), "f"))
    assert [(p.text, p.source_id, p.output_tokens) for p in found] == [("What is it?", "a", 4), ("Alone", None, None)]
    for bad in (b"{}", b"[", b"\xff"):
        with pytest.raises(BadPrompts, match="'f'"):
            list(formats.sharegpt(bad, "f"))


def test_jsonl_fields() -> None:
    lines = [
        b'{"prompt":"a","id":9}\n',
        b"\n",
        b'"b"\n',
        b'{"text":"c"}',
        b'{"messages":[{"role":"system","content":"d"},{"content":"e"}]}',
    ]
    assert [(p.text, p.source_id) for p in formats.jsonl(lines, "f")] == [
        ("a", "9"),
        ("b", "3"),
        ("c", "4"),
        ("d\n\ne", "5"),
    ]
    assert [p.text for p in formats.jsonl([b'{"q":"x","prompt":"y"}'], "f", "q")] == ["x"]
    for line, word in (
        (b"{", "line 1: not JSON"),
        (b'{"x":1}', "line 1: no text"),
        (b'{"messages":[{"content":null}]}', "no text"),
        (b'"s"', "'q'"),
    ):
        with pytest.raises(BadPrompts, match=word):
            list(formats.jsonl([line], "f", "q" if word == "'q'" else None))


def test_text_is_split_at_empty_lines() -> None:
    assert [p.text for p in formats.plain("one\ntwo\n\n\n \nthree\r\n\r\nfour\n", "f")] == ["one\ntwo", "three", "four"]


def test_choosing() -> None:
    found = [synthetic.synthetic(n, 5 + n, 0) for n in range(10)]
    assert formats.choose(found, None, None, 8, 12) == found[3:8]
    assert formats.choose(found, 3, None, 1, None) == found[:3]
    some = formats.choose(found, 4, 1, 1, None)
    assert some == formats.choose(found, 4, 1, 1, None) and len(some) == 4
    assert [p.tokens for p in some] == sorted(p.tokens for p in some)
    assert formats.choose(found, 99, 1, 1, None) == found


def test_names_sort_as_they_count() -> None:
    for number in (1, 9, 10, 1000):
        made = prompt.names("x", [prompt.Prompt("a", 1, "rule", "s")] * number)
        assert made == sorted(made) and len(set(made)) == number


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from(["aa", "bb"]), max_size=5))
def test_the_hash_of_a_set_knows_names_and_contents_and_no_order(entries: dict[str, str]) -> None:
    items = list(entries.items())
    assert files.set_hash(items) == files.set_hash(reversed(items))
    assert files.set_hash(items) != files.set_hash([*items, ("zzzzzz", "cc")])
    if items:
        assert files.set_hash(items) != files.set_hash([*items[:-1], (items[-1][0], "cc")])


def test_differences_are_named() -> None:
    manifest = [{"name": "a", "sha256": "1"}, {"name": "b", "sha256": "2"}, {"name": "c", "sha256": "3"}]
    assert files.differences(manifest, {"a": "1", "b": "x", "d": "4"}) == [
        "'c' is missing",
        "'d' is not in the manifest",
        "'b' was changed",
    ]
    assert files.differences(manifest, {"a": "1", "b": "2", "c": "3"}) == []


def test_records_encode() -> None:
    prompt = synthetic.synthetic(0, 12, 1)
    entry = record("a.txt", prompt)
    assert records.decode(records.encode(entry)) == entry
    assert (entry["bytes"], entry["tokens"], entry["token_source"]) == (len(prompt.text), 12, "rule")


def test_the_committed_set_is_what_it_says() -> None:
    with (SET / MANIFEST).open("rb") as stream:
        manifest = list(records.read(stream, "manifest"))
    import hashlib

    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SET.glob("*.txt")}
    assert differences(manifest, files) == [] and len(files) == 32
    assert {name.rsplit("-", 1)[0] for name in files} == {"answer", "classify", "extract", "summarise"}
    assert all(60 <= entry["tokens"] <= 250 for entry in manifest)
