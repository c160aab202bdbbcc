"""Semantic duplicates against brute force over all cosines, in blocks of any size, and in little memory."""

import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crywolf.augment.dedup import drop_semantic, semantic, semantic_duplicates, semantic_pairs
from crywolf.data import BadInput

Frame = Callable[..., pl.DataFrame]


def clouds(rng: np.random.Generator, rows: int, centres: int, spread: float, d: int = 8) -> NDArray[np.float32]:
    points = rng.normal(size=(centres, d))[rng.integers(0, centres, rows)] + spread * rng.normal(size=(rows, d))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def slow_greedy(vectors: NDArray[np.float32], threshold: float, order: Sequence[int]) -> list[int]:
    kept: list[int] = []
    for row in order:
        if all(float(vectors[row] @ vectors[other]) < threshold for other in kept):
            kept.append(row)
    return sorted(kept)


@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.8, 0.95]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_kept_rows_are_those_of_a_slow_greedy(seed: int, rows: int, threshold: float, turned: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = clouds(rng, rows, 6, 0.15)
    order = rng.permutation(rows) if turned else np.arange(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "_BLOCK", 7)
        patch.setattr(semantic, "_TILE", 5)
        result = semantic_duplicates(vectors, threshold=threshold, order=order if turned else None)
    products = vectors @ vectors.T
    # Sums in another order may differ in the last digit: leave out draws with a cosine right at the threshold.
    if rows and np.abs(products - threshold).min() > 1e-6:
        assert result.kept.tolist() == slow_greedy(vectors, threshold, order.tolist())
        place = np.argsort(order)
        for row in np.flatnonzero(result.match >= 0).tolist():
            other = int(result.match[row])
            assert result.match[other] == -1
            assert place[other] < place[row]
            assert result.cosine[row] == pytest.approx(products[row, other], abs=1e-5)
            assert result.cosine[row] >= threshold - 1e-5
    assert (result.cosine[result.kept] == 0).all()


@given(st.integers(0, 10_000), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_pairs_equal_brute_force(seed: int, rows: int) -> None:
    vectors = clouds(np.random.default_rng(seed), rows, 5, 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "_BLOCK", 9)
        patch.setattr(semantic, "_TILE", 4)
        pairs, cosines = semantic_pairs(vectors, threshold=0.9)
    products = vectors @ vectors.T
    expected = {(a, b) for a in range(rows) for b in range(a + 1, rows) if products[a, b] >= 0.9}
    if not rows or np.abs(products - 0.9).min() > 1e-6:
        assert {tuple(pair) for pair in pairs.tolist()} == expected
        assert len(pairs) == len(expected)
        np.testing.assert_allclose(cosines, [products[a, b] for a, b in pairs.tolist()], atol=1e-5)


def test_texts_and_an_encoder_do_as_well() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.99, float(np.sqrt(1 - 0.99**2))]}

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([vectors[text] for text in texts], dtype=np.float32)

    result = semantic_duplicates(texts=["a", "b", "c"], encode=encode, threshold=0.95)
    assert result.match.tolist() == [-1, -1, 0]
    assert result.duplicate_ratio == pytest.approx(1 / 3)
    assert len(semantic_duplicates(texts=[], encode=encode).kept) == 0


def test_memory_is_the_vectors_and_not_their_square() -> None:
    vectors = clouds(np.random.default_rng(0), 9000, 9000, 0.1, d=16)
    tracemalloc.start()
    try:
        semantic_duplicates(vectors, threshold=0.99)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(vectors) ** 2 * 4 / 3
    assert peak < 100e6


def test_bad_input_is_named() -> None:
    with pytest.raises(BadInput, match="row 1 has length 2"):
        semantic_duplicates(np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32))
    with pytest.raises(BadInput, match="row 0 has length nan"):
        semantic_duplicates(np.array([[np.nan, 0.0]], dtype=np.float32))
    with pytest.raises(BadInput, match="shape"):
        semantic_duplicates(np.ones(3, dtype=np.float32))
    with pytest.raises(BadInput, match="vectors, or texts and an encoder"):
        semantic_duplicates(texts=["a"])
    with pytest.raises(BadInput, match=r"semantic threshold 1\.5"):
        semantic_duplicates(np.eye(2, dtype=np.float32), threshold=1.5)


def by_first_word(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts of one first word mean the same."""
    return np.eye(4, dtype=np.float32)[[hash_of(text.split()[0]) for text in texts]]


def hash_of(word: str) -> int:
    return {"red": 0, "green": 1, "blue": 2, "white": 3}[word]


def test_rows_that_mean_what_a_reference_or_an_earlier_row_means_are_dropped_and_explained(frame: Frame) -> None:
    rows = frame(["red one", "green one", "red two", "blue one", "green two"])
    kept, dropped = drop_semantic(rows, by_first_word, against=[("train", frame(["white", "blue x"], "t"))])
    assert kept["id"].to_list() == ["r0", "r1"]
    assert kept.columns == ["id", "text"]
    assert dropped.rows() == [
        ("r2", "red two", "semantic_within", "r0", 1.0),
        ("r3", "blue one", "semantic_of:train", "t1", 1.0),
        ("r4", "green two", "semantic_within", "r1", 1.0),
    ]


def test_who_comes_first_may_be_given(frame: Frame) -> None:
    rows = frame(["red one", "green one", "red two"])
    kept, dropped = drop_semantic(rows, by_first_word, order=np.array([2, 1, 0]))
    assert kept["id"].to_list() == ["r1", "r2"]
    assert dropped["match_id"].to_list() == ["r2"]


def test_an_empty_frame_and_empty_references_are_fine(frame: Frame) -> None:
    kept, dropped = drop_semantic(frame([]), by_first_word, against=[("x", frame(["red"]))])
    assert kept.height == dropped.height == 0
    kept, dropped = drop_semantic(frame(["red"]), by_first_word, against=[("x", frame([]))])
    assert (kept.height, dropped.height) == (1, 0)
