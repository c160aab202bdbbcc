"""Traits are what anybody can see of a prompt: its language and script, case, punctuation, how it opens."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import make_corpus
from crywolf.train.audit.traits import TRAITS, traits


def one(text: str) -> dict[str, object]:
    return traits(make_corpus([{"text": text}], label="BENIGN")).row(0, named=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "how do you sort it",
            {"case": "all lower", "end": "letter", "opening": "how", "opening_kind": "question"},
        ),
        ("SORT THIS LIST!", {"case": "ALL UPPER", "end": "!", "opening_kind": "imperative"}),
        ("Please sort it.", {"case": "Capital first", "end": ".", "opening_kind": "please"}),
        ("The List Of Many Things", {"case": "Title Case"}),
        ("你好吗？", {"case": "no case", "end": "?", "characters": 4, "words": 1}),
        ("a\nb\r\nc", {"line_breaks": 2, "words": 3}),
        ("ab12", {"digit_percent": 50.0, "punctuation_percent": 0.0, "end": "digit"}),
        ("(a)", {"opening": "a", "end": "other punctuation"}),
        ("कृपया बताइए कि", {"opening": "कृपया", "script": "Devanagari"}),
        ("You are a poet", {"opening_kind": "second person"}),
    ],
)
def test_a_prompt_s_traits(text: str, expected: dict[str, object]) -> None:
    found = one(text)
    assert {name: found[name] for name in expected} == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_every_text_has_every_trait(texts: list[str]) -> None:
    frame = make_corpus([{"text": f"x{text}"} for text in texts], label="BENIGN")
    found = traits(frame)
    assert found.height == frame.height
    used = {name for trait in TRAITS for name in (*trait.numeric, *trait.labels)}
    assert sum(found[name].null_count() for name in used) == 0
    assert found.select(pl.col(pl.Float64).is_between(0, 100).all()).row(0) == (True,) * 5
