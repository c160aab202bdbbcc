"""A cache of vectors on disk, by text id, for one encoder: what was embedded once is never embedded again.

Takes 64-bit text ids and float32 vectors and gives them back. Each shard is one .npy file of (id, vector) records named
by the hash of its own content, written beside and renamed: a killed writer leaves nothing behind, two writers cannot
hurt each other, and a damaged file is noticed, dropped, and its texts embedded anew.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, text_id

Ids = NDArray[np.uint64]
Vectors = NDArray[np.float32]

_LOG = logging.getLogger(__name__)
_MAX_SHARDS = 32  # more are merged into one
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a killed writer


def cache_ids(texts: Sequence[str]) -> Ids:
    """Return the contract's text ids as 64-bit numbers."""
    return np.fromiter((int(text_id(text), 16) for text in texts), dtype=np.uint64, count=len(texts))


class VectorCache:
    """The vectors of one encoder at one setting, in one folder."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._record = np.dtype([("id", "<u8"), ("vector", "<f4", (dimension,))])
        self._shards: dict[str, NDArray[np.void]] = {}
        self._ids: Ids = np.empty(0, dtype=np.uint64)
        self._shard_of: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._row_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._order: list[NDArray[np.void]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"embedding cache {folder}: cannot be made: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self._ids)

    def refresh(self) -> None:
        """Take in shards that this or another process has written since, and drop damaged ones."""
        found = {path.name for path in self._folder.glob("shard-*.npy")}
        if found == set(self._shards):
            return
        opened = {name: shard for name in sorted(found) if (shard := self._open(name)) is not None}
        self._shards = opened
        self._order = list(opened.values())
        if not opened:
            self._ids = np.empty(0, dtype=np.uint64)
            return
        ids = np.concatenate([shard["id"] for shard in self._order])
        shard_of = np.repeat(np.arange(len(self._order), dtype=np.int32), [len(shard) for shard in self._order])
        row_of = np.concatenate([np.arange(len(shard), dtype=np.int64) for shard in self._order])
        self._ids, first = np.unique(ids, return_index=True)
        self._shard_of, self._row_of = shard_of[first], row_of[first]

    def get(self, ids: Ids) -> tuple[NDArray[np.bool_], Vectors]:
        """Return which ids are known, and the vectors of those, in order."""
        place = np.searchsorted(self._ids, ids)
        known = place < len(self._ids)
        known[known] = self._ids[place[known]] == ids[known]
        place = place[known]
        out = np.empty((len(place), self._record["vector"].shape[0]), dtype=np.float32)
        shard_of = self._shard_of[place]
        for number in np.unique(shard_of):
            mine = np.flatnonzero(shard_of == number)
            out[mine] = self._order[number]["vector"][self._row_of[place[mine]]]
        return known, out

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Write vectors as a new shard; merges the shards when there are many."""
        if not len(ids):
            return
        records = np.empty(len(ids), dtype=self._record)
        records["id"], records["vector"] = ids, vectors
        self._write(records)
        self.refresh()
        if len(self._shards) > _MAX_SHARDS:
            self._merge()

    def _open(self, name: str) -> NDArray[np.void] | None:
        if name in self._shards:
            return self._shards[name]
        path = self._folder / name
        try:
            if _content_hash(path.read_bytes()) != name[len("shard-") : -len(".npy")]:
                raise ValueError("content does not match its name")
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
            if shard.dtype != self._record or shard.ndim != 1:
                raise ValueError(f"holds {shard.dtype}")
        except FileNotFoundError:  # another process merged it away in this moment
            return None
        except (ValueError, OSError, EOFError) as error:
            _LOG.warning("embedding cache %s: damaged (%s); dropped, its texts will be embedded again", path, error)
            path.unlink(missing_ok=True)
            return None
        return np.asarray(shard)

    def _write(self, records: NDArray[np.void]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, records, allow_pickle=False)
        content = buffer.getvalue()
        temporary = self._folder / f".tmp-{secrets.token_hex(6)}"
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._folder / f"shard-{_content_hash(content)}.npy")
        except OSError as error:
            raise BadInput(f"embedding cache {self._folder}: cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _merge(self) -> None:
        """Write all shards as one, then remove them; readers that have one open keep it until they refresh."""
        old = list(self._shards)
        records = np.empty(len(self._ids), dtype=self._record)
        records["id"] = self._ids
        records["vector"] = self.get(self._ids)[1]
        self._write(records)
        self.refresh()
        merged = set(self._shards) - set(old)
        for name in old:
            if merged:  # were everything in one shard already, its name would be among the old ones
                (self._folder / name).unlink(missing_ok=True)
        for leftover in self._folder.glob(".tmp-*"):
            self._remove_stale(leftover)
        self.refresh()

    @staticmethod
    def _remove_stale(path: Path) -> None:
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            return


def _content_hash(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
