"""FAISS search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput
from crywolf.mining import build_index, pairs_above, search


def units(rng: np.random.Generator, rows: int, dimension: int = 16) -> np.ndarray:
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 12), st.integers(1, 70))
@settings(deadline=None, max_examples=60)
def test_search_equals_brute_force(seed: int, rows: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = units(rng, rows), units(rng, queries)
    scores, ids = search(build_index(vectors), asked, k)
    exact = asked @ vectors.T
    assert scores.shape == ids.shape == (queries, min(k, rows))
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, : min(k, rows)], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(exact, ids, axis=1), scores, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in ids.tolist())


@given(st.integers(0, 10**6), st.integers(0, 50), st.floats(-0.5, 0.9))
@settings(deadline=None, max_examples=60)
def test_pairs_above_equal_brute_force(seed: int, rows: int, floor: float) -> None:
    vectors = units(np.random.default_rng(seed), rows, 6)
    a, b = pairs_above(vectors, floor)
    exact = vectors @ vectors.T
    unsure = np.abs(exact - floor) < 1e-6
    expected = [(i, j) for j in range(rows) for i in range(j) if exact[i, j] > floor and not unsure[i, j]]
    assert [pair for pair in zip(a.tolist(), b.tolist(), strict=True) if not unsure[pair]] == expected


def test_an_empty_index_and_no_queries_give_empty_results() -> None:
    index = build_index(np.empty((0, 4), dtype=np.float32))
    assert search(index, np.ones((2, 4), dtype=np.float32), 3)[0].shape == (2, 0)
    index = build_index(np.ones((2, 4), dtype=np.float32))
    assert search(index, np.empty((0, 4), dtype=np.float32), 3)[1].shape == (0, 2)


def test_bad_arrays_are_named() -> None:
    with pytest.raises(BadInput, match="two-dimensional"):
        build_index(np.ones(3, dtype=np.float32))
    with pytest.raises(BadInput, match="not finite"):
        build_index(np.array([[np.nan, 1.0]], dtype=np.float32))
    with pytest.raises(BadInput, match="3 dimensions, the index has 4"):
        search(build_index(np.ones((1, 4), dtype=np.float32)), np.ones((1, 3), dtype=np.float32), 1)
