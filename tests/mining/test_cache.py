"""The vector cache gives back what was put, whatever happens to its files, its writers and its readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, text_id
from crywolf.mining import VectorCache
from crywolf.mining import cache as cache_module
from crywolf.mining.cache import cache_ids


def vectors_of(ids: np.ndarray, dimension: int = 4) -> np.ndarray:
    """A vector that can be told from its id, so that a mix-up shows."""
    return np.stack([(ids % (7 + column)).astype(np.float32) for column in range(dimension)], axis=1)


def opened(folder: Path) -> VectorCache:
    cache = VectorCache(folder, 4)
    cache.refresh()
    return cache


def put(cache: VectorCache, *numbers: int) -> None:
    ids = np.array(numbers, dtype=np.uint64)
    cache.put(ids, vectors_of(ids))


def known(cache: VectorCache, *numbers: int) -> list[bool]:
    ids = np.array(numbers, dtype=np.uint64)
    mask, vectors = cache.get(ids)
    assert np.array_equal(vectors, vectors_of(ids[mask]))
    return mask.tolist()


numbers = st.integers(0, 2**64 - 1)


@given(st.lists(st.lists(numbers, unique=True, max_size=8), max_size=40), st.lists(numbers, max_size=8))
@settings(deadline=None, max_examples=30)
def test_what_was_put_comes_back_and_nothing_else(writes: list[list[int]], others: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = opened(Path(folder))
        for write in writes:  # up to 40 shards: merging happens on the way
            put(cache, *write)
        everything = {number for write in writes for number in write}
        asked = [*everything, *others]
        for reader in (cache, opened(Path(folder))):
            assert known(reader, *asked) == [number in everything for number in asked]
            assert len(reader) == len(everything)
        assert len(list(Path(folder).glob("shard-*"))) <= cache_module._MAX_SHARDS


def test_ids_are_the_contracts() -> None:
    assert [f"{value:016x}" for value in cache_ids(["a", "é", "e\u0301"]).tolist()] == [
        text_id("a"),
        text_id("é"),
        text_id("é"),
    ]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle", "other"])
def test_a_damaged_shard_is_dropped_and_the_others_stay(tmp_path: Path, damage: str) -> None:
    cache = opened(tmp_path)
    put(cache, 1, 2, 3)
    bad = next(tmp_path.glob("shard-*"))
    put(cache, 4, 5)
    content = bytearray(bad.read_bytes())
    if damage == "cut":
        del content[-5:]
    elif damage == "flip":
        content[-3] ^= 0xFF
    elif damage == "empty":
        content.clear()
    elif damage == "pickle":
        np.save(bad.with_suffix(".x"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
        content = bytearray(bad.with_suffix(".x.npy").read_bytes())
        bad.with_suffix(".x.npy").unlink()
    else:
        content = bytearray(b"not an array")
    bad.write_bytes(content)
    fresh = opened(tmp_path)
    assert known(fresh, 1, 2, 3, 4, 5) == [False, False, False, True, True]
    assert not bad.exists()
    put(fresh, 1, 2, 3)
    assert known(opened(tmp_path), 1, 2, 3, 4, 5) == [True] * 5


def test_a_pickle_under_a_right_name_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / f"shard-{blake2b(content, digest_size=16).hexdigest()}.npy").write_bytes(content)
    assert len(opened(tmp_path)) == 0


def test_a_shard_of_another_dimension_is_not_taken(tmp_path: Path) -> None:
    put(opened(tmp_path), 1, 2)
    other = VectorCache(tmp_path, 5)
    other.refresh()
    assert len(other) == 0


def test_a_reader_sees_what_another_writes_and_survives_its_merging(tmp_path: Path) -> None:
    reader, writer = opened(tmp_path), opened(tmp_path)
    put(writer, 1)
    reader.refresh()
    for number in range(2, 2 + 2 * cache_module._MAX_SHARDS):
        put(writer, number)
    assert known(reader, 1) == [True]  # its shard is gone from the folder, but still open here
    reader.refresh()
    assert len(reader) == len(writer)


WRITER = """
import sys, numpy as np
from pathlib import Path
from crywolf.mining import VectorCache
cache = VectorCache(Path(sys.argv[1]), 4)
cache.refresh()
start = int(sys.argv[2])
for first in range(start, start + int(sys.argv[3])):
    ids = np.array([first], dtype=np.uint64)
    cache.put(ids, np.stack([(ids % (7 + c)).astype(np.float32) for c in range(4)], axis=1))
"""


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start), "60"]) for start in (0, 1000, 2000)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    expected = [*range(60), *range(1000, 1060), *range(2000, 2060)]
    assert known(opened(tmp_path), *expected) == [True] * 180


def test_a_killed_writer_leaves_a_cache_that_works(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0", "100000"])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("shard-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=10)
    cache = opened(tmp_path)
    count = len(cache)
    assert count
    assert known(cache, *range(count)) == [True] * count
    put(cache, 10**6)
    assert known(opened(tmp_path), 10**6) == [True]


def test_leftovers_of_killed_writers_go_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp-old", tmp_path / ".tmp-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache = opened(tmp_path)
    for number in range(cache_module._MAX_SHARDS + 1):
        put(cache, number)
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be made"):
        VectorCache(tmp_path / "file" / "cache", 4)


def test_vectors_go_to_the_rows_asked_for_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_BLOCK", 3)
    cache = opened(tmp_path)
    put(cache, *range(0, 20, 2))
    put(cache, *range(1, 10, 2))
    ids = np.array([9, 40, 2, 18, 7, 41, 0, 11], dtype=np.uint64)
    out, rows = np.full((10, 4), -1.0, dtype=np.float32), np.array([3, 0, 9, 1, 4, 2, 8, 5])
    assert cache.fill(ids, out, rows).tolist() == [True, False, True, True, True, False, True, False]
    assert np.array_equal(out[[3, 9, 1, 4, 8]], vectors_of(ids[[0, 2, 3, 4, 6]]))
    assert (out[[0, 2, 5, 6, 7]] == -1.0).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_reading_and_merging_take_little_memory_beside_the_vectors(tmp_path: Path) -> None:
    code = (
        "import sys, re; from pathlib import Path; import numpy as np; from crywolf.mining import VectorCache\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024\n"
        "cache = VectorCache(Path(sys.argv[1]), 384); cache.refresh(); before = peak()\n"
        "for start in range(0, 99_000, 3000):\n"  # 33 shards, 150 MB: the last one has them merged
        "    cache.put(np.arange(start, start + 3000, dtype=np.uint64), np.ones((3000, 384), dtype=np.float32))\n"
        "merged = peak() - before\n"
        "out = np.ones((99_000, 384), dtype=np.float32); rows = np.arange(99_000)\n"
        "assert cache.fill(rows.astype(np.uint64), out, rows).all()\n"
        "print(len(list(Path(sys.argv[1]).glob('shard-*'))), merged, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    shards, merged, filled = map(int, done.stdout.split())
    assert shards == 1
    assert merged < 90  # MB
    assert filled < 145 + 90
