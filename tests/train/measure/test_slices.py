"""Language and length: the bins, what is worked out and what was saved."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.train.measure.slices import LENGTHS, LONGEST, NOT_SAVED, Slices, lengths

TEXTS = [
    "Please tell me how the weather is today.",
    "Kannst du mir bitte erklären, wie das Wetter heute wird?",
    "x" * 3000,
]


@given(st.integers(0, 6000))
def test_every_length_has_one_bin_with_its_upper_edge_in_it(n: int) -> None:
    name = next((name for edge, name in LENGTHS if n <= edge), LONGEST)
    assert lengths(pl.Series(["é" * n])).to_list() == [name]


def rows(texts: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [str(i) for i in range(len(texts))], "text": texts}, schema_overrides={"text": pl.String}
    )


def test_slices_join_in_the_rows_own_order() -> None:
    frame = pl.concat([rows(TEXTS), rows(TEXTS)[::-1]])
    slices = Slices.of(frame)
    assert slices.texts.height == 3
    found = slices.join(slices.join(frame, "language"), "length")
    assert found["text"].to_list() == [*TEXTS, *TEXTS[::-1]]
    assert found["language"].to_list()[:2] == ["en", "de"]
    assert found["length"].to_list()[:3] == ["to 50", "51 to 200", "over 2,000"]


def test_nothing_is_guessed_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def guess(texts: pl.Series) -> pl.Series:
        asked.append(len(texts))
        return pl.Series(["en"] * len(texts), dtype=pl.String)

    monkeypatch.setattr("crywolf.data.language.languages", guess)
    slices = Slices.of(rows(TEXTS))
    slices.by("length")
    assert asked == []
    slices.by("language"), slices.by("language")
    assert asked == [3]


def test_what_was_saved_stands_where_the_text_is_missing() -> None:
    saved = pl.DataFrame({"id": ["0", "1"], "language": ["fr", None], "length": ["to 50", None]})
    slices = Slices.of(rows([None, None]), saved)
    assert slices.join(rows([None, None]), "language")["language"].to_list() == ["fr", NOT_SAVED]
    assert Slices.of(rows([None])).join(rows([None]), "length")["length"].to_list() == [NOT_SAVED]
