"""Nearest-neighbour indexes over unit vectors (FAISS, inner product), so that scores are cosines.

Takes float32 arrays, gives scores and row numbers. Exact search reads the given array in place and costs rows times
queries; past EXACT_ROWS inverted lists (IVF) look at a part of the rows, as many as it takes for a measured recall; a
graph (HNSW) answers fastest, takes longest to build, and is made only when asked for. An index on disk is mapped, not
read, and comes with a sidecar that says which rows of which encoder it holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, atomic_path

from .cache import content_hash
from .memory import give_back

Kind = Literal["exact", "ivf", "hnsw"]
Asked = Literal["auto", "exact", "ivf", "hnsw"]
Vectors = NDArray[np.float32]
Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

EXACT_ROWS = 100_000  # up to here "auto" searches exactly
TARGET_RECALL = 0.95  # of the exact neighbours that an approximate index must find on a sample
_SAMPLE = 200  # queries of that sample
_BLOCK = 8192  # rows added, checked or asked at once: what is copied beside the vectors stays small
_PER_LIST = 40  # rows that train each inverted list's centre
_LINKS = 32  # of a row in the graph
_BUILD_EFFORT = 80  # rows looked at to link one
_FORMAT = 1


class VectorIndex:
    """Rows that can be searched by inner product; they keep their numbers. Use `build_index` or `load_index`."""

    def __init__(self, kind: Kind, dimension: int, *, float16: bool, rows: Vectors | None, index: Any = None) -> None:
        self.kind: Kind = kind
        self.dimension = dimension
        self.float16 = float16
        self.effort = 8 if kind == "ivf" else 32
        self._rows = rows  # exact search in place
        self._index = index

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else int(self._index.ntotal)

    def search(self, queries: Vectors, k: int, among: Mask | None = None) -> tuple[Vectors, Rows]:
        """Return the scores and row numbers of each query's k nearest rows, the nearest first.

        With fewer than k rows to choose from, all of them come. An approximate index may find fewer: the places left
        have row -1 and score -1.

        Args:
            queries: One a row.
            k: How many neighbours.
            among: Which rows to choose from; None for all.
        """
        asked = _rows(queries, "queries")
        if asked.shape[1] != self.dimension:
            raise BadInput(
                f"queries have {asked.shape[1]} dimensions, the index has {self.dimension}; use one encoder for both"
            )
        k = min(k, len(self) if among is None else int(among.sum()))
        scores = np.full((len(asked), max(k, 0)), -1.0, dtype=np.float32)
        ids = np.full(scores.shape, -1, dtype=np.int64)
        if k < 1:
            return scores, ids
        for start in range(0, len(asked), _BLOCK):
            part = slice(start, start + _BLOCK)
            scores[part], ids[part] = self._search(asked[part], k, among)
        scores[ids < 0] = -1.0
        return scores, ids

    def _search(self, queries: Vectors, k: int, among: Mask | None) -> tuple[Vectors, Rows]:
        faiss = _faiss()
        if self._rows is None:
            return tuple(self._index.search(queries, k, params=self._parameters(among)))
        rows, numbers = _chosen(self._rows, among)
        scores, ids = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, ids if numbers is None else numbers[ids]

    def _parameters(self, among: Mask | None) -> Any:
        faiss = _faiss()
        chosen: dict[str, Any] = {}
        if among is not None:
            # A bitmap's bytes must outlive the selector; faiss keeps what Python handed it.
            chosen["sel"] = faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
        if self.kind == "ivf":
            return faiss.SearchParametersIVF(nprobe=self.effort, **chosen)
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=self.effort, **chosen)
        return faiss.SearchParameters(**chosen)

    def add(self, vectors: Vectors) -> None:
        """Append rows; a mapped index has to be loaded with `writable`."""
        rows = _rows(vectors, "vectors")
        if rows.shape[1] != self.dimension:
            raise BadInput(f"vectors have {rows.shape[1]} dimensions, the index has {self.dimension}; use one encoder")
        if self._rows is not None:
            self._rows = np.concatenate([self._rows, rows])
            return
        for start in range(0, len(rows), _BLOCK):
            self._index.add(rows[start : start + _BLOCK])

    def tune(
        self,
        vectors: Vectors,
        k: int,
        rng: np.random.Generator,
        *,
        order: Rows | None = None,
        target: float = TARGET_RECALL,
    ) -> float:
        """Look at as much as it takes to find the target's share of sampled rows' k exact neighbours; return the share.

        Args:
            vectors: The rows of the index in full precision.
            k: How many neighbours will be asked for.
            rng: Draws the sample.
            order: Which of the vectors each row of the index is; None if they are in its order.
            target: The share to reach.
        """
        if self.kind == "exact" and not self.float16:
            return 1.0
        sample = vectors[np.sort(rng.choice(len(vectors), size=min(_SAMPLE, len(vectors)), replace=False))]
        truth = build_index(vectors, kind="exact").search(sample, k)[1]
        most = self._index.nlist if self.kind == "ivf" else 1024 if self.kind == "hnsw" else self.effort
        while True:
            ids = self.search(sample, k)[1]
            found = recall_at(truth, ids if order is None else np.where(ids < 0, -1, order[ids]))
            if found >= target or self.effort >= most:
                return found
            self.effort = min(self.effort * 2, most)

    def save(self, path: Path, *, encoder: str, ids: Ids, force: bool = False) -> None:
        """Write the index, the ids of its rows (`PATH.ids.npy`), and a sidecar that vouches for both (`PATH.json`).

        Raises:
            BadInput: The ids are not as many as the rows, or the files exist and force is not set.
        """
        faiss = _faiss()
        if len(ids) != len(self):
            raise BadInput(f"index {path}: {len(ids)} ids for {len(self)} rows")
        index = self._index
        if index is None:
            index = _empty("exact", self.dimension, 0, float16=self.float16)
            VectorIndex("exact", self.dimension, float16=self.float16, rows=None, index=index).add(_all(self._rows))
        with atomic_path(path, force=force) as temporary:
            faiss.write_index(index, str(temporary))
            content = content_hash(temporary)
        with atomic_path(_ids_path(path), force=True) as temporary, temporary.open("wb") as stream:
            np.save(stream, ids, allow_pickle=False)
        sidecar = Sidecar(
            _FORMAT, self.kind, self.float16, self.dimension, len(self), self.effort, encoder, ids_hash(ids), content
        )
        with atomic_path(_sidecar_path(path), force=True) as temporary:
            temporary.write_text(json.dumps(asdict(sidecar), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Sidecar:
    """What stands beside an index file: what it is, and by which hashes it can be known again."""

    format: int
    kind: Kind
    float16: bool
    dimension: int
    rows: int
    effort: int
    encoder: str
    ids: str
    content: str


def build_index(vectors: Vectors, *, kind: Asked = "exact", float16: bool = False) -> VectorIndex:
    """Return an inner-product index over the rows, which keep their numbers.

    An exact index in full precision reads the array where it is: change the array, and it changes.

    Args:
        vectors: One unit vector a row.
        kind: "auto" is exact up to EXACT_ROWS rows, and from there on inverted lists in half precision, so that the
            index takes half of what the vectors take.
        float16: Keep rows in half precision: half the memory, and slower where search is exact.

    Raises:
        BadInput: The array is not two-dimensional or holds values that are not finite, or the kind is not known.
    """
    if kind not in get_args(Asked):
        raise BadInput(f"index kind {kind!r}: must be one of {', '.join(get_args(Asked))}")
    rows = _rows(vectors, "vectors")
    chosen: Kind = kind if kind != "auto" else "exact" if len(rows) <= EXACT_ROWS else "ivf"
    float16 = float16 or (kind == "auto" and chosen == "ivf")
    if chosen == "exact" and not float16:
        return VectorIndex(chosen, rows.shape[1], float16=False, rows=rows)
    index = _empty(chosen, rows.shape[1], len(rows), float16=float16)
    if not index.is_trained:
        # Rows from end to end, no more than the centres need: FAISS copies what it trains on, twice.
        index.train(np.ascontiguousarray(rows[:: max(len(rows) // (index.nlist * _PER_LIST), 1)]))
        give_back()
    built = VectorIndex(chosen, rows.shape[1], float16=float16, rows=None, index=index)
    built.add(rows)
    return built


def load_index(path: Path, *, encoder: str, writable: bool = False) -> tuple[VectorIndex, Ids]:
    """Return a saved index and the ids of its rows; it is mapped, unless rows shall be added.

    Raises:
        BadInput: A file is missing, damaged, from another encoder, or not one of ours.
    """
    faiss = _faiss()
    sidecar = _read_sidecar(path)
    if sidecar.encoder != encoder:
        raise BadInput(
            f"index {path}: made with encoder {sidecar.encoder}, not {encoder}; vectors of two encoders cannot be "
            "compared: name another file, or delete this one and its .json"
        )
    try:
        ids = np.load(_ids_path(path), allow_pickle=False)
        whole = ids.dtype == np.uint64 and len(ids) == sidecar.rows and ids_hash(ids) == sidecar.ids
        if not whole or content_hash(path) != sidecar.content:
            raise ValueError("content does not match its sidecar")
        index = faiss.read_index(str(path), 0 if writable else _mapping(sidecar.kind))
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise BadInput(f"index {path}: damaged ({error}); delete it and it will be made again") from error
    loaded = VectorIndex(sidecar.kind, sidecar.dimension, float16=sidecar.float16, rows=None, index=index)
    loaded.effort = sidecar.effort
    return loaded, ids


def search(index: VectorIndex, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    """Return the scores and row numbers of each query's k nearest rows, the nearest first."""
    return index.search(queries, k)


def recall_at(truth: Rows, found: Rows) -> float:
    """Return which share of the true neighbours, one query a row, was found; 1 where there are none."""
    if not truth.size:
        return 1.0
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


def ids_hash(ids: Ids) -> str:
    """Return a hash over ids and their order."""
    return blake2b(np.ascontiguousarray(ids, dtype="<u8").tobytes(), digest_size=16).hexdigest()


def _faiss() -> Any:
    """Return the faiss module; what it says of its own types falls short of what it has."""
    import faiss

    return faiss


def _empty(kind: Kind, dimension: int, rows: int, *, float16: bool) -> Any:
    """Return a FAISS index without rows, made for so many."""
    faiss = _faiss()
    lists = max(min(int(2 * math.sqrt(rows)), rows // _PER_LIST), 1)
    storage = "SQfp16" if float16 else "Flat"
    name = {"exact": storage, "ivf": f"IVF{lists},{storage}", "hnsw": f"HNSW{_LINKS},{storage}"}[kind]
    index = faiss.index_factory(dimension, name, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.max_points_per_centroid = _PER_LIST
        index.cp.min_points_per_centroid = 1
    if kind == "hnsw":
        index.hnsw.efConstruction = _BUILD_EFFORT
    return index


def _chosen(rows: Vectors, among: Mask | None) -> tuple[Vectors, Rows | None]:
    """Return the rows to choose from and their numbers, None where both are the same; the tail of an array in place."""
    if among is None or among.all():
        return rows, None
    numbers = np.flatnonzero(among)
    if len(rows) - numbers[0] == len(numbers):
        return rows[numbers[0] :], numbers
    return rows[numbers], numbers


def _mapping(kind: Kind) -> int:
    """Return the flag by which FAISS maps this kind of file."""
    faiss = _faiss()
    return int(faiss.IO_FLAG_MMAP if kind == "ivf" else getattr(faiss, "IO_FLAG_MMAP_IFC", 0))


def _read_sidecar(path: Path) -> Sidecar:
    beside = _sidecar_path(path)
    try:
        sidecar = Sidecar(**json.loads(beside.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"index {path}: its sidecar {beside.name} cannot be read; not an index of ours") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"index {path}: its sidecar {beside.name} is not one of ours; name another file") from error
    if sidecar.format != _FORMAT or sidecar.kind not in get_args(Kind):
        raise BadInput(f"index {path}: written by another version; delete it and it will be made again")
    return sidecar


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _ids_path(path: Path) -> Path:
    return path.with_name(path.name + ".ids.npy")


def _all(rows: Vectors | None) -> Vectors:
    return np.empty((0, 0), dtype=np.float32) if rows is None else rows


def _rows(array: Vectors, what: str) -> Vectors:
    if array.ndim != 2:
        raise BadInput(f"{what} must be a two-dimensional array, not one of shape {array.shape}")
    for start in range(0, len(array), _BLOCK):
        if not np.isfinite(array[start : start + _BLOCK]).all():
            raise BadInput(f"{what} hold values that are not finite; the encoder is broken")
    return np.ascontiguousarray(array, dtype=np.float32)
