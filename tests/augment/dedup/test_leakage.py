"""Leaks are found by copy, by nearness and by meaning, each with the row of the holdout that it leaks from."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crywolf.augment.dedup import fold, jaccard, leakage
from crywolf.data import BadInput

Frame = Callable[..., pl.DataFrame]
LONG = "could you explain how the kernel kills a process that ignores its signals"
WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "Über", "进程"]
texts_strategy = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=12)


def bags(texts: Sequence[str]) -> NDArray[np.float32]:
    """Bags of words to unit vectors: the same words in another order mean the same."""
    vectors = np.zeros((len(texts), 512), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row, 511] = 0.1
        for word in text.lower().split():
            vectors[row, sum(word.encode()) % 511] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_each_kind_of_leak_is_named_with_its_match(frame: Frame) -> None:
    turned = " ".join(reversed(LONG.split()))
    train = frame([LONG.upper() + " ", f"{LONG}!", turned, "a recipe for onion soup"])
    suite = frame(["what time is it", LONG], "s")
    found = leakage(train, [("suite", suite)], encode=bags)
    assert found.select("id", "holdout", "match_id", "kind").rows() == [
        ("r0", "suite", "s1", "exact"),
        ("r1", "suite", "s1", "near"),
        ("r2", "suite", "s1", "semantic"),
    ]
    assert found["jaccard"].to_list() == [1.0, jaccard(f"{LONG}!", LONG), jaccard(turned, LONG)]
    assert found["cosine"][0] == pytest.approx(1.0, abs=1e-6)
    assert found["cosine"][1] < 0.99
    assert found["cosine"][2] == pytest.approx(1.0, abs=1e-6)


def test_without_an_encoder_meaning_is_not_looked_at_and_cosines_are_null(frame: Frame) -> None:
    turned = " ".join(reversed(LONG.split()))
    found = leakage(frame([turned, LONG]), [("suite", frame([LONG], "s"))])
    assert found.rows() == [("r1", "suite", "s0", 1.0, None, "exact")]


def test_the_same_shingles_are_not_the_same_text(frame: Frame) -> None:
    found = leakage(frame(["aaaaaaaa"]), [("suite", frame(["aaaaaaaaaa"]))])
    assert found.select("jaccard", "kind").rows() == [(1.0, "near")]


def test_a_row_may_leak_into_several_holdouts(frame: Frame) -> None:
    held = frame([LONG], "s")
    found = leakage(frame([LONG, f"{LONG}?"]), [("test", held), ("suite", held), ("other", frame(["no"], "o"))])
    assert found.select("id", "holdout").rows() == [("r0", "test"), ("r1", "test"), ("r0", "suite"), ("r1", "suite")]


@given(texts_strategy, texts_strategy, st.sampled_from([0.5, 0.8]))
@settings(deadline=None, max_examples=60)
def test_leaks_are_those_of_brute_force(frame: Frame, texts: list[str], held: list[str], threshold: float) -> None:
    found = leakage(frame(texts), [("suite", frame(held, "s"))], encode=bags, threshold=threshold, cosine=0.97)
    rows = {row["id"]: row for row in found.iter_rows(named=True)}
    cosines = bags(texts) @ bags(held).T if texts and held else np.zeros((len(texts), len(held)))
    for i, text in enumerate(texts):
        near = max((jaccard(text, other) for other in held), default=0.0)
        meant = float(cosines[i].max()) if len(held) else 0.0
        row = rows.get(f"r{i}")
        if abs(meant - 0.97) < 1e-4:
            continue
        assert (row is not None) == (near >= threshold or meant >= 0.97)
        if row is None:
            continue
        other = held[int(row["match_id"][1:])]
        assert row["jaccard"] == pytest.approx(jaccard(text, other))
        assert row["cosine"] == pytest.approx(float(cosines[i, int(row["match_id"][1:])]), abs=1e-5)
        if near >= threshold:
            assert row["jaccard"] == pytest.approx(near)
            assert (row["kind"] == "exact") == (fold(text) == fold(other))
        else:
            assert row["kind"] == "semantic"
            assert row["cosine"] == pytest.approx(meant, abs=1e-5)


def test_nothing_leaks_from_or_into_nothing(frame: Frame) -> None:
    columns = ["id", "holdout", "match_id", "jaccard", "cosine", "kind"]
    for rows, holdouts in (
        (frame([]), [("suite", frame(["a text"]))]),
        (frame(["a text"]), [("suite", frame([]))]),
        (frame(["a text"]), []),
    ):
        found = leakage(rows, holdouts, encode=bags)
        assert found.is_empty()
        assert found.columns == columns


def test_bad_input_is_named(frame: Frame) -> None:
    with pytest.raises(BadInput, match="the holdout 'suite' has no column text"):
        leakage(frame(["a"]), [("suite", pl.DataFrame({"id": ["x"]}))])
    with pytest.raises(BadInput, match="semantic threshold 0"):
        leakage(frame(["a"]), [], cosine=0.0)
