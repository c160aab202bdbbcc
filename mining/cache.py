"""A cache of vectors on disk, by text id, for one encoder: what was embedded once is never embedded again.

Takes 64-bit text ids and float32 vectors and gives them back. Each shard is one .npy file of (id, vector) records named
by the hash of its own content, written beside and renamed: a killed writer leaves nothing behind, two writers cannot
hurt each other, and a damaged file is noticed, dropped, and its texts embedded anew.
"""

from __future__ import annotations

import io
import logging
import mmap
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, text_id

Ids = NDArray[np.uint64]
Vectors = NDArray[np.float32]

_LOG = logging.getLogger(__name__)
_MAX_SHARDS = 32  # more are merged into one
_BLOCK = 1 << 13  # rows read or written at once: what is mapped or copied beside the vectors stays small
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a killed writer


def cache_ids(texts: Sequence[str]) -> Ids:
    """Return the contract's text ids as 64-bit numbers."""
    return np.fromiter((int(text_id(text), 16) for text in texts), dtype=np.uint64, count=len(texts))


class VectorCache:
    """The vectors of one encoder at one setting, in one folder."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._record = np.dtype([("id", "<u8"), ("vector", "<f4", (dimension,))])
        self._shards: dict[str, _Shard] = {}
        self._ids: Ids = np.empty(0, dtype=np.uint64)
        self._shard_of: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._row_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._order: list[_Shard] = []
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
        ids = np.concatenate([shard.ids for shard in self._order])
        shard_of = np.repeat(np.arange(len(self._order), dtype=np.int32), [len(shard) for shard in self._order])
        row_of = np.concatenate([np.arange(len(shard), dtype=np.int64) for shard in self._order])
        self._ids, first = np.unique(ids, return_index=True)
        self._shard_of, self._row_of = shard_of[first], row_of[first]

    def get(self, ids: Ids) -> tuple[NDArray[np.bool_], Vectors]:
        """Return which ids are known, and the vectors of those, in order."""
        known = self._known(ids)
        out = np.empty((int(known.sum()), self._record["vector"].shape[0]), dtype=np.float32)
        self.fill(ids[known], out, np.arange(len(out)))
        return known, out

    def fill(self, ids: Ids, out: Vectors, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Write the vector of each known id to its row of `out`, which stays as it is elsewhere; return which are."""
        known = self._known(ids)
        place, rows = np.searchsorted(self._ids, ids[known]), rows[known]
        order = np.lexsort((self._row_of[place], self._shard_of[place]))
        for start in range(0, len(order), _BLOCK):
            part = order[start : start + _BLOCK]
            shard_of = self._shard_of[place[part]]
            for number in np.unique(shard_of).tolist():
                mine = part[shard_of == number]
                out[rows[mine]] = self._order[number].records["vector"][self._row_of[place[mine]]]
                self._order[number].forget()
        return known

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Write vectors as a new shard; merges the shards when there are many."""
        if not len(ids):
            return
        records = np.empty(len(ids), dtype=self._record)
        records["id"], records["vector"] = ids, vectors
        self._write(len(records), iter([records]))
        self.refresh()
        if len(self._shards) > _MAX_SHARDS:
            self._merge()

    def _known(self, ids: Ids) -> NDArray[np.bool_]:
        place = np.searchsorted(self._ids, ids)
        known = place < len(self._ids)
        known[known] = self._ids[place[known]] == ids[known]
        return np.asarray(known, dtype=bool)

    def _open(self, name: str) -> _Shard | None:
        if name in self._shards:
            return self._shards[name]
        path = self._folder / name
        try:
            if content_hash(path) != name[len("shard-") : -len(".npy")]:
                raise ValueError("content does not match its name")
            return _Shard(path, self._record)
        except FileNotFoundError:  # another process merged it away in this moment
            return None
        except (ValueError, OSError, EOFError) as error:
            _LOG.warning("embedding cache %s: damaged (%s); dropped, its texts will be embedded again", path, error)
            path.unlink(missing_ok=True)
            return None

    def _write(self, count: int, blocks: Iterator[NDArray[np.void]]) -> None:
        """Write blocks of records, `count` in all, as one shard."""
        temporary = self._folder / f".tmp-{secrets.token_hex(6)}"
        digest = blake2b(digest_size=16)
        try:
            with temporary.open("wb") as stream:
                for content in chain([self._header(count)], (block.tobytes() for block in blocks)):
                    digest.update(content)
                    stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._folder / f"shard-{digest.hexdigest()}.npy")
        except OSError as error:
            raise BadInput(f"embedding cache {self._folder}: cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _header(self, count: int) -> bytes:
        buffer = io.BytesIO()
        described = {"descr": self._record.descr, "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(buffer, described)
        return buffer.getvalue()

    def _blocks(self) -> Iterator[NDArray[np.void]]:
        """Yield every record in the order of ids."""
        for start in range(0, len(self._ids), _BLOCK):
            ids = self._ids[start : start + _BLOCK]
            records = np.empty(len(ids), dtype=self._record)
            records["id"], records["vector"] = ids, self.get(ids)[1]
            yield records

    def _merge(self) -> None:
        """Write all shards as one, then remove them; readers that have one open keep it until they refresh."""
        old = list(self._shards)
        self._write(len(self._ids), self._blocks())
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


class _Shard:
    """The records of one file, mapped: they can be read although the file's name is gone."""

    def __init__(self, path: Path, record: np.dtype[np.void]) -> None:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"array format {version}")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype != record or len(shape) != 1 or fortran:
                raise ValueError(f"holds {dtype}")
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            offset = stream.tell()
        self.records: NDArray[np.void] = np.frombuffer(self._map, dtype=record, count=shape[0], offset=offset)
        self.ids: Ids = np.empty(shape[0], dtype=np.uint64)
        for start in range(0, shape[0], _BLOCK):
            self.ids[start : start + _BLOCK] = self.records["id"][start : start + _BLOCK]
            self.forget()

    def __len__(self) -> int:
        return len(self.records)

    def forget(self) -> None:
        """Give back the memory of what was read; the system keeps the file's pages as it sees fit."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def content_hash(path: Path) -> str:
    """Return a BLAKE2b hash (16 bytes) of a file's content."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
