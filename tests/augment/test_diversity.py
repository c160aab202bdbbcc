"""The measures of variety agree with a count by hand."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.diversity import distinct_n, diversity


def by_hand(texts: list[str], n: int) -> float:
    grams = []
    for text in texts:
        words = text.lower().split()
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def test_distinct_words_and_pairs() -> None:
    texts = ["Find the file", "find the Folder"]
    assert distinct_n(texts, 1) == pytest.approx(4 / 6)
    assert distinct_n(texts, 2) == pytest.approx(3 / 4)


words = st.lists(st.sampled_from(["a", "B", "c", "find", "file"]), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, max_size=8), st.integers(1, 3))
def test_it_is_the_count_by_hand(texts: list[str], n: int) -> None:
    assert distinct_n(texts, n) == pytest.approx(by_hand(texts, n))


def test_pairs_do_not_cross_from_one_text_to_the_next() -> None:
    assert distinct_n(["a", "b"], 2) == 0.0


def test_samples_without_a_prompt_count_for_no_prompt() -> None:
    texts = pl.Series([f"word{i} x" for i in range(7)])
    origins = pl.Series(["p"] * 6 + [None])
    found = diversity(texts, origins, fps=3, mean_cosine=0.5)
    assert found.samples == 7
    assert found.per_fp == 2.0
    assert found.few == pytest.approx(2 / 3)  # two of three prompts have none
    assert found.distinct_1 == pytest.approx(8 / 14)
    assert found.distinct_1_per_fp == pytest.approx(7 / 12)
    assert found.as_dict()["mean_cosine"] == 0.5


def test_copies_lower_it() -> None:
    varied = diversity(pl.Series(["a b", "c d"]), pl.Series(["p", "p"]), fps=1)
    copied = diversity(pl.Series(["a b", "a b"]), pl.Series(["p", "p"]), fps=1)
    assert copied.distinct_2_per_fp < varied.distinct_2_per_fp


def test_nothing_grown() -> None:
    found = diversity(pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.String), fps=2)
    assert (found.per_fp, found.few, found.distinct_1) == (0.0, 1.0, 0.0)
    assert diversity(pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.String), fps=0).few == 0.0
