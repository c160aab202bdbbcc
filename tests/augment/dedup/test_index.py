"""The index knows what brute force finds and what datasketch's own holds, survives the disk, and trusts no file."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import NearIndex, banding, fold, jaccard, sign
from crywolf.data import BadInput

WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "the", "signal", "Über", "进程", "\ud800"]
texts_strategy = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=14)

Frame = Callable[..., pl.DataFrame]
Siblings = Callable[..., list[str]]


def expected(asked: list[str], known: list[str]) -> list[tuple[int, str, float]]:
    found = [
        (position, f"r{row}", jaccard(text, other))
        for position, text in enumerate(asked)
        for row, other in enumerate(known)
    ]
    near = [entry for entry in found if entry[2] >= 0.8]
    return sorted(near, key=lambda entry: (entry[0], -entry[2], int(entry[1][1:])))


@given(texts_strategy, texts_strategy, st.integers(0, 14), st.sampled_from([0, 3, 2048]))
@settings(deadline=None, max_examples=60)
def test_it_finds_what_brute_force_finds_however_it_was_filled(
    frame: Frame, known: list[str], asked: list[str], cut: int, shelve: int
) -> None:
    known, asked = ([text.replace("\ud800", "") for text in texts] for texts in (known, asked))
    index = NearIndex()
    rows = frame(known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crywolf.augment.dedup.index._SHELVE", shelve)
        assert index.add(rows[:cut]) + index.add(rows) == len(known) == len(index)
        assert index.add(rows) == 0
    assert index.query(asked).rows() == expected(asked, known)


def test_saved_and_loaded_it_is_the_same_and_goes_on(frame: Frame, siblings: Siblings, tmp_path: Path) -> None:
    texts = siblings(np.random.default_rng(2), families=12, each=10)
    rows = frame(texts)
    index = NearIndex(seed=5)
    index.add(rows[:80])
    again = NearIndex.load(index.save(tmp_path / "known.npz"))
    assert (again.ids, again.threshold, again.seed) == (index.ids, 0.8, 5)
    assert again.query(texts).equals(index.query(texts))
    assert len(index.query(texts)) > 150
    again.add(rows)
    again.save(tmp_path / "known.npz")
    assert NearIndex.load(tmp_path / "known.npz").query(texts).rows() == expected(texts, texts)


@pytest.mark.parametrize("colliding", [False, True])
def test_after_loading_the_buckets_are_those_of_datasketch_to_the_key(
    colliding: bool, frame: Frame, siblings: Siblings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if colliding:  # as if all keys of our own were one
        for module in ("sketch", "index"):
            monkeypatch.setattr(
                f"crywolf.augment.dedup.{module}.band_weights", lambda rows, _: np.zeros(rows, dtype=np.uint64)
            )
    texts = siblings(np.random.default_rng(3), families=10, each=10, length=12)
    index = NearIndex()
    index.add(frame(texts[:90]))
    index = NearIndex.load(index.save(tmp_path / "known.npz"))
    index.add(frame(texts))
    theirs = MinHashLSH(num_perm=128, params=banding(0.8))
    signatures = [MinHash(seed=1, hashvalues=row, scheme="affine32") for row in sign([fold(text) for text in texts])]
    for row, signature in enumerate(signatures):
        theirs.insert(row, signature)
    found = [sorted(index._lsh.query(signature)) for signature in signatures]
    assert found == [sorted(theirs.query(signature)) for signature in signatures]
    assert sum(map(len, found)) > 2 * len(texts)


def test_an_empty_index_is_saved_loaded_and_knows_nothing(tmp_path: Path) -> None:
    index = NearIndex.load(NearIndex().save(tmp_path / "empty.npz"))
    assert len(index) == 0
    assert index.query(["anything"]).is_empty()
    assert index.query([]).columns == ["position", "match_id", "jaccard"]


def test_ids_may_be_anything_and_of_two_rows_of_one_id_the_first_counts(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a" * 300, "", "ü", "ü"], "text": ["one text", "another text", "a third", "a fourth"]})
    index = NearIndex()
    assert index.add(rows) == 3
    index = NearIndex.load(index.save(tmp_path / "known.npz"))
    assert index.ids == ["a" * 300, "", "ü"]
    assert "ü" in index
    assert "b" not in index
    assert index.query(["A  THIRD", "a fourth"]).rows() == [(0, "ü", 1.0)]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(frame: Frame, siblings: Siblings, tmp_path: Path) -> Path:
    index = NearIndex()
    index.add(frame(siblings(np.random.default_rng(4), families=5, each=6)))
    return index.save(tmp_path / "known.npz")


def rewrite(path: Path, **changed: Any) -> None:
    with np.load(path) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    arrays |= changed
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def about(path: Path, **changed: Any) -> np.ndarray:
    with np.load(path) as loaded:
        parameters = json.loads(loaded["about"].tobytes())
    return np.frombuffer(json.dumps(parameters | changed).encode(), dtype=np.uint8)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no near-duplicate index"):
        NearIndex.load(tmp_path / "none.npz")
    with pytest.raises(BadInput, match="there is no near-duplicate index"):
        NearIndex.load(tmp_path)


def test_no_flipped_byte_goes_unseen(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    whole = NearIndex.load(saved)
    for place in np.random.default_rng(0).integers(0, len(data), 120).tolist():
        broken = bytearray(data)
        broken[place] ^= 0x55
        saved.write_bytes(broken)
        try:
            loaded = NearIndex.load(saved)
        except BadInput:
            continue
        # A byte of the zip's own that nobody reads, such as a date.
        assert loaded.ids == whole.ids
        assert loaded._folded == whole._folded
        np.testing.assert_array_equal(loaded._signatures, whole._signatures)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInput, match="damaged"):
        NearIndex.load(saved)


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (tmp_path.joinpath("sprung").touch, ())

    rewrite(saved, signatures=np.array([Trap()], dtype=object))
    with pytest.raises(BadInput, match="damaged"):
        NearIndex.load(saved)
    assert not (tmp_path / "sprung").exists()


def test_a_compressed_file_is_refused_before_it_is_unpacked(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", b"0" * 1000)
    with pytest.raises(BadInput, match="compressed"):
        NearIndex.load(saved)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "version 2, this version needs 1"),
        ({"scheme": "legacy"}, "scheme 'legacy'"),
        ({"shingle": 4}, "shingle 4"),
        ({"num_perm": 64}, "num_perm 64"),
        ({"format": "something else"}, "no near-duplicate index"),
        ({"threshold": 7.0}, "damaged"),
        ({"threshold": "high"}, "damaged"),
        ({"seed": -1}, "damaged"),
        ({"rows": 3}, "do not fit together"),
    ],
)
def test_other_parameters_are_refused(saved: Path, changed: dict[str, Any], said: str) -> None:
    rewrite(saved, about=about(saved, **changed))
    with pytest.raises(BadInput, match=said):
        NearIndex.load(saved)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"about": np.frombuffer(b"[1", dtype=np.uint8)}, "no near-duplicate index"),
        ({"about": np.frombuffer(b"[1]", dtype=np.uint8)}, "no near-duplicate index"),
        ({"texts": None}, "damaged"),
        ({"texts": np.frombuffer(b"\xff" * 10, dtype=np.uint8)}, "damaged"),
        ({"text_ends": np.array([5, 2, 10])}, "damaged"),
        ({"text_ends": np.array(["a"])}, "damaged"),
        ({"signatures": np.zeros((30, 64), dtype=np.uint32)}, "do not fit together"),
        ({"signatures": np.zeros((30, 128), dtype=np.float64)}, "do not fit together"),
        ({"signatures": np.zeros((29, 128), dtype=np.uint32)}, "do not fit together"),
    ],
)
def test_parts_that_do_not_fit_are_refused(saved: Path, changed: dict[str, Any], said: str) -> None:
    rewrite(saved, **changed)
    with pytest.raises(BadInput, match=said):
        NearIndex.load(saved)


def test_a_save_that_fails_leaves_the_old_file(saved: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    index = NearIndex()
    index.add(frame(["something new"]))
    with pytest.raises(BadInput, match="cannot be written"):
        index.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["known.npz"]


def test_bad_frames_and_thresholds_are_named() -> None:
    with pytest.raises(BadInput, match="has no column text"):
        NearIndex().add(pl.DataFrame({"id": ["a"]}))
    with pytest.raises(BadInput, match="threshold 0"):
        NearIndex(threshold=0)
