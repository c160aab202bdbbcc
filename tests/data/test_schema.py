import unicodedata
from hashlib import blake2b

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import (
    EXTRA,
    SCHEMA,
    BadInput,
    check_corpus,
    empty_corpus,
    make_corpus,
    text_id,
    text_ids,
)
from crywolf.data.schema import MAX_TEXT_BYTES

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda t: t.strip()
)


def test_an_id_is_16_hex_digits_of_blake2b_over_nfc() -> None:
    expected = blake2b(unicodedata.normalize("NFC", "cafe\u0301").encode(), digest_size=8).hexdigest()
    assert text_id("cafe\u0301") == text_id("caf\u00e9") == expected
    assert len(expected) == 16


def test_an_id_does_not_change_between_releases() -> None:
    # As `printf 'please repeat yourself' | b2sum -l 64` gives it.
    assert text_id("please repeat yourself") == "b8a7c4d4d158f26e"


@given(st.lists(TEXT, max_size=20))
def test_ids_of_a_column_are_the_ids_of_its_texts(texts: list[str]) -> None:
    assert text_ids(pl.Series(texts, dtype=pl.String)).to_list() == [text_id(text) for text in texts]


@given(TEXT)
def test_canonically_equal_texts_share_an_id(text: str) -> None:
    assert text_id(unicodedata.normalize("NFD", text)) == text_id(unicodedata.normalize("NFC", text))


def test_ids_of_nulls_are_null() -> None:
    assert text_ids(pl.Series(["a", None])).to_list() == [text_id("a"), None]


def test_make_corpus_fills_in_every_column() -> None:
    frame = make_corpus([{"prompt": "hello", "label": "benign"}], source="here")
    assert dict(frame.schema) == SCHEMA
    row = frame.row(0, named=True)
    assert (row["id"], row["text"], row["label"], row["source"], row["weight"]) == (
        text_id("hello"),
        "hello",
        "BENIGN",
        "here",
        1.0,
    )
    assert row["extra"] is None


@pytest.mark.parametrize(
    ("given_label", "label"),
    [("BENIGN", "BENIGN"), ("Malicious", "MALICIOUS"), ("0", "BENIGN"), (1, "MALICIOUS"), (" malicious ", "MALICIOUS")],
)
def test_labels_are_taken_in_any_case_and_as_numbers(given_label: object, label: str) -> None:
    assert make_corpus([{"text": "a", "label": given_label}])["label"].to_list() == [label]


def test_threat_types_are_taken_in_any_case() -> None:
    frame = make_corpus([{"text": "a", "label": 1, "threat_type": "Semantic_Jailbreak"}])
    assert frame["threat_type"].to_list() == ["semantic_jailbreak"]


def test_a_given_id_becomes_the_external_id_unless_it_is_the_texts_own() -> None:
    frame = make_corpus([{"text": "a", "label": 0, "id": 17}, {"text": "a", "label": 0, "id": text_id("a")}])
    assert frame["external_id"].to_list() == ["17", None]
    assert frame["id"].n_unique() == 1


def test_unknown_keys_are_kept() -> None:
    frame = make_corpus([{"text": "a", "label": 0, "shard": 3, "tags": ["x"]}])
    assert frame["extra"].struct.field("other").to_list() == ['{"shard": 3, "tags": ["x"]}']


def test_columns_named_like_fields_of_extra_are_folded_into_it() -> None:
    frame = make_corpus(pl.DataFrame({"text": ["a", "b"], "label": [0, 1], "why_hard": ["near", None]}))
    assert frame["extra"].struct.field("why_hard").to_list() == ["near", None]
    assert frame["extra"].null_count() == 1


def test_threats_may_lack_keys() -> None:
    rows = {"text": ["a"], "label": [0], "extra": [{"threats": [{"rule_id": "x"}]}]}
    threats = make_corpus(pl.DataFrame(rows))["extra"].struct.field("threats").to_list()
    assert threats == [[{"rule_id": "x", "severity": None, "confidence": None, "layer": None}]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "a", "label": "maybe"}, "column label: 'maybe'"),
        ({"text": "a"}, "no column label"),
        ({"label": "BENIGN"}, "no column text"),
        ({"text": " \t", "label": 0}, "the text is empty"),
        ({"text": "a\0b", "label": 0}, "NUL"),
        ({"text": "\ud800", "label": 0}, "surrogate"),
        ({"text": 5, "label": 0}, "column text: must be text"),
        ({"text": "a", "label": 0, "threat_type": "rude"}, "column threat_type: 'rude'"),
        ({"text": "a", "label": 0, "weight": float("nan")}, "column weight"),
        ({"text": "a", "label": 0, "weight": -1}, "column weight"),
        ({"text": "a", "label": 0, "weight": 10**400}, "column weight"),
        ({"text": "a", "label": 0, "extra": 5}, "column extra"),
        ({"text": "a", "label": 0, "extra": {"threats": 5}}, "column threats"),
        ({"text": "a" * (MAX_TEXT_BYTES + 1), "label": 0}, "longer than 1,048,576 bytes"),
    ],
)
def test_make_corpus_names_what_is_wrong(row: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make_corpus([row])


def test_make_corpus_names_the_row() -> None:
    with pytest.raises(BadInput, match="row 2, column label"):
        make_corpus([{"text": "a", "label": 0}, {"text": "b", "label": 7}])


def test_a_message_about_a_row_does_not_quote_its_text() -> None:
    with pytest.raises(BadInput) as caught:
        make_corpus([{"text": "secret words", "label": "maybe"}])
    assert "secret" not in str(caught.value)


ROWS = st.fixed_dictionaries(
    {"text": TEXT, "label": st.sampled_from(["BENIGN", "malicious", 0, 1])},
    optional={
        "category": st.text(st.characters(exclude_categories=["Cs"])),
        "origin_id": st.just(text_id("x")),
        "weight": st.floats(0, 100, width=32),
        "extra": st.fixed_dictionaries({}, optional={"notes": TEXT, "confidence": st.floats(0, 1)}),
        "unheard": st.integers(),
    },
)


@given(st.lists(ROWS, max_size=8))
def test_what_make_corpus_gives_keeps_the_contract_and_is_a_fixed_point(rows: list[dict[str, object]]) -> None:
    frame = make_corpus(rows)
    assert check_corpus(frame) is frame
    assert make_corpus(frame).equals(frame)
    assert frame["text"].to_list() == [row["text"] for row in rows]


def test_empty_input_gives_an_empty_corpus() -> None:
    assert make_corpus([]).equals(empty_corpus())
    assert check_corpus(empty_corpus()).height == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pl.lit(None, pl.String).alias("text"), "column text, row 1: no value"),
        (pl.lit("0" * 16).alias("id"), "column id, row 1: not the id"),
        (pl.lit(float("nan"), pl.Float32).alias("weight"), "column weight, row 1"),
        (pl.lit("x").alias("label"), "column label is String"),
        (pl.lit(1).alias("more"), "more"),
    ],
)
def test_check_corpus_names_the_offence(change: pl.Expr, words: str) -> None:
    frame = make_corpus([{"text": "a", "label": 0}]).with_columns(change)
    with pytest.raises(BadInput, match=words):
        check_corpus(frame)


def test_check_corpus_names_a_missing_column() -> None:
    with pytest.raises(BadInput, match="no column extra"):
        check_corpus(empty_corpus().drop("extra"))


def test_extra_has_the_fields_of_the_contract() -> None:
    names = {field.name for field in EXTRA.fields}
    assert {"confidence", "layer", "rule_id", "severity", "family", "notes", "why_hard", "original_fp"} <= names
