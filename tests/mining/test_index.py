"""FAISS search against brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput
from crywolf.mining import build_index, load_index, search
from crywolf.mining.index import recall_at


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


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 20), st.data())
@settings(deadline=None, max_examples=40)
def test_search_among_some_rows_equals_brute_force_over_them(seed: int, rows: int, k: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = units(rng, rows), units(rng, 3)
    among = rng.random(rows) < 0.5
    if data.draw(st.booleans()):  # the tail, which is read in place
        among = np.arange(rows) >= rng.integers(rows)
    exact = np.where(among, asked @ vectors.T, -np.inf)
    wanted = min(k, int(among.sum()))
    for index in (build_index(vectors), build_index(vectors, kind="hnsw"), build_index(vectors, float16=True)):
        index.effort = 1024
        scores, ids = index.search(asked, k, among)
        assert scores.shape == (3, wanted)
        if index.kind == "exact":
            np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :wanted], atol=3e-3)
        assert among[ids[ids >= 0]].all()


def test_an_approximate_index_is_tuned_until_it_finds_what_it_must() -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 4000)  # without any structure: the hardest case
    index = build_index(vectors, kind="ivf")
    index.effort = 1
    found = index.tune(vectors, 5, rng, target=0.9)
    assert found >= 0.9
    assert index.effort > 1
    truth, ids = (built.search(vectors[:500], 5)[1] for built in (build_index(vectors), index))
    assert recall_at(truth, ids) == pytest.approx(found, abs=0.06)


def test_places_that_are_not_found_are_marked() -> None:
    rng = np.random.default_rng(0)
    vectors = units(rng, 400, 4)
    index = build_index(vectors, kind="ivf")
    index.effort = 1
    scores, ids = index.search(vectors, 390)
    assert (ids == -1).any()
    assert (scores[ids == -1] == -1.0).all()


def test_auto_goes_by_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crywolf.mining.index.EXACT_ROWS", 100)
    rng = np.random.default_rng(0)
    small, large = (build_index(units(rng, rows), kind="auto") for rows in (100, 101))
    assert (small.kind, small.float16) == ("exact", False)
    assert (large.kind, large.float16) == ("ivf", True)


KINDS = [(kind, half) for kind in ("exact", "ivf", "hnsw") for half in (False, True)]


@pytest.mark.parametrize(("kind", "half"), KINDS)
def test_an_index_comes_back_from_disk_and_takes_more_rows(tmp_path: Path, kind: Any, half: bool) -> None:
    rng = np.random.default_rng(0)
    vectors, more, ids = units(rng, 500), units(rng, 20), np.arange(500, dtype=np.uint64) * 7
    index = build_index(vectors, kind=kind, float16=half)
    index.effort = 64
    path = tmp_path / "benign.index"
    index.save(path, encoder="a", ids=ids)
    back, known = load_index(path, encoder="a")
    assert (back.kind, back.float16, len(back), back.effort) == (kind, half, 500, 64)
    assert np.array_equal(known, ids)
    for ours, theirs in zip(index.search(vectors[:9], 5), back.search(vectors[:9], 5), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    grown, _ = load_index(path, encoder="a", writable=True)
    grown.add(more)
    scores, found = grown.search(more, 1)
    assert found[:, 0].tolist() == list(range(500, 520))
    np.testing.assert_allclose(scores, 1.0, atol=3e-3)
    assert len(load_index(path, encoder="a")[0]) == 500
    full, small = build_index(vectors, kind=kind), build_index(vectors, kind=kind, float16=True)
    for name, one in (("full", full), ("small", small)):
        one.save(tmp_path / name, encoder="a", ids=ids)
    assert (tmp_path / "small").stat().st_size < (tmp_path / "full").stat().st_size


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone ids", "other ids"])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "benign.index"
    ids = np.arange(50, dtype=np.uint64)
    build_index(units(np.random.default_rng(0), 50), kind="ivf").save(path, encoder="a", ids=ids)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone ids":
        (tmp_path / "benign.index.ids.npy").unlink()
    else:
        np.save(tmp_path / "benign.index.ids.npy", ids[::-1])
    with pytest.raises(BadInput, match=r"benign\.index: damaged"):
        load_index(path, encoder="a")


def test_a_foreign_index_is_refused(tmp_path: Path) -> None:
    path, sidecar = tmp_path / "x", tmp_path / "x.json"
    build_index(units(np.random.default_rng(0), 50)).save(path, encoder="a", ids=np.arange(50, dtype=np.uint64))
    with pytest.raises(BadInput, match="made with encoder a, not b"):
        load_index(path, encoder="b")
    with pytest.raises(BadInput, match="exists already"):
        build_index(np.ones((1, 4), dtype=np.float32)).save(path, encoder="a", ids=np.zeros(1, dtype=np.uint64))
    with pytest.raises(BadInput, match="2 ids for 1 rows"):
        build_index(np.ones((1, 4), dtype=np.float32)).save(
            tmp_path / "y", encoder="a", ids=np.zeros(2, dtype=np.uint64)
        )
    sidecar.write_text(sidecar.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(BadInput, match="another version"):
        load_index(path, encoder="a")
    for text in ("{", "[]", '{"kind": "exact"}'):
        sidecar.write_text(text)
        with pytest.raises(BadInput, match="not one of ours"):
            load_index(path, encoder="a")
    sidecar.unlink()
    with pytest.raises(BadInput, match="not an index of ours"):
        load_index(path, encoder="a")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(BadInput, match="index kind 'lsh'"):
        build_index(np.ones((1, 4), dtype=np.float32), kind="lsh")  # type: ignore[arg-type]  # the error is the test
    with pytest.raises(BadInput, match="3 dimensions, the index has 4"):
        build_index(np.ones((1, 4), dtype=np.float32)).add(np.ones((1, 3), dtype=np.float32))
