"""Semantic duplicates: rows that say the same in other characters, by the cosine of their vectors.

It takes unit vectors, or texts and an encoder, and gives for each row the kept row that it repeats. Vectors are
compared block against block, exactly and without an index, so memory is the vectors' own and time grows with the
square of the rows kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Encode, Progress

COSINE = 0.95
_BLOCK = 1024  # rows compared at once with ...
_TILE = 8192  # ... so many others: 32 MB of products
_UNIT = 1e-3  # how far from 1 a vector's length may be (half-precision encoders)

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class SemanticResult:
    """Which rows stay and what the others repeat.

    Attributes:
        match: For each row the position of the kept row that it repeats, -1 for a kept row.
        cosine: Its cosine to that row; 0 for a kept row.
        threshold: The least cosine that counted.
    """

    match: Ints
    cosine: Floats32
    threshold: float

    @property
    def kept(self) -> Ints:
        """The positions of the rows that stay, ascending."""
        return np.flatnonzero(self.match < 0).astype(np.int64)

    @property
    def duplicate_ratio(self) -> float:
        """The share of rows that repeat another, 0 for no rows."""
        return float((self.match >= 0).mean()) if len(self.match) else 0.0


def unit_vectors(vectors: NDArray[np.float32], what: str = "vectors") -> Floats32:
    """Return the vectors as contiguous float32, after a look at their shape and length.

    Raises:
        BadInput: they are no (n, d) array of numbers, or one of them is not of length 1.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2:
        raise BadInput(f"{what}: shape {array.shape}; expected (rows, dimensions)")
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array))
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= _UNIT))
    if len(wrong):
        raise BadInput(
            f"{what}: row {int(wrong[0])} has length {float(lengths[wrong[0]]):.4g}; cosines need unit vectors, "
            "divide each row by its length first"
        )
    return array


def check_cosine(cosine: float) -> None:
    """Refuse a threshold that is no cosine of similar texts.

    Raises:
        BadInput: it is not in (0, 1].
    """
    if not 0.0 < cosine <= 1.0:
        raise BadInput(f"semantic threshold {cosine}: must be above 0 and at most 1 (0.95 is nearly the same sentence)")


def nearest_vector(queries: Floats32, known: Floats32) -> tuple[Ints, Floats32]:
    """Return for each query the position of the known vector of the highest cosine (-1: none is known), and that."""
    best = np.full(len(queries), -1, dtype=np.int64)
    cosine = np.full(len(queries), -1.0 if len(known) else 0.0, dtype=np.float32)
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        _look(queries[rows], known, best[rows], cosine[rows])
    return best, cosine


def _look(block: Floats32, known: Floats32, best: Ints, cosine: Floats32) -> None:
    """Improve the best match of a block's rows in place; the lower position wins a tie."""
    for start in range(0, len(known), _TILE):
        products = block @ known[start : start + _TILE].T
        place = products.argmax(axis=1)
        value = products[np.arange(len(block)), place]
        better = value > cosine
        best[better], cosine[better] = start + place[better], value[better]


def semantic_duplicates(
    vectors: NDArray[np.float32] | None = None,
    *,
    texts: Sequence[str] | None = None,
    encode: Encode | None = None,
    threshold: float = COSINE,
    order: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> SemanticResult:
    """Keep each row in order unless its cosine to a row kept before it is at least the threshold.

    Args:
        vectors: (n, d) unit vectors; or give texts and encode.
        texts: Texts to encode where there are no vectors.
        encode: list of str -> (n, d) unit vectors.
        threshold: The least cosine of a duplicate.
        order: Positions in the order of who comes first; as they stand if not given.
        progress: Called with (rows compared, rows).

    Returns:
        The verdict on each row; no two kept rows have a cosine of the threshold or more.

    Raises:
        BadInput: the threshold is not in (0, 1], the vectors are not unit vectors, or there are neither vectors nor
            texts with an encoder.
    """
    check_cosine(threshold)
    if vectors is None:
        if texts is None or encode is None:
            raise BadInput("semantic duplicates need vectors, or texts and an encoder")
        vectors = encode(list(texts)) if len(texts) else np.empty((0, 1), dtype=np.float32)
    units = unit_vectors(vectors)
    total = len(units)
    order = np.arange(total, dtype=np.int64) if order is None else np.asarray(order, dtype=np.int64)
    match, cosine = np.full(total, -1, dtype=np.int64), np.zeros(total, dtype=np.float32)
    kept_rows, kept = np.empty(total, dtype=np.int64), np.empty_like(units)
    count = 0
    for start in range(0, total, _BLOCK):
        rows = order[start : start + _BLOCK]
        block = units[rows]
        place, value = nearest_vector(block, kept[:count])
        repeats = (place >= 0) & (value >= threshold)
        match[rows[repeats]], cosine[rows[repeats]] = kept_rows[place[repeats]], value[repeats]
        left = np.flatnonzero(~repeats)
        stays = _within(block[left], threshold)
        gone = stays >= 0
        match[rows[left[gone]]] = rows[left[stays[gone]]]
        cosine[rows[left[gone]]] = np.einsum("ij,ij->i", block[left[gone]], block[left[stays[gone]]])
        new = left[~gone]
        kept_rows[count : count + len(new)], kept[count : count + len(new)] = rows[new], block[new]
        count += len(new)
        if progress is not None:
            progress(min(start + _BLOCK, total), total)
    return SemanticResult(match, cosine, threshold)


def _within(block: Floats32, threshold: float) -> Ints:
    """Return for each row of one block the earlier kept row of the block that it repeats most, -1 for a kept row."""
    products = block @ block.T
    match = np.full(len(block), -1, dtype=np.int64)
    later, earlier = np.nonzero(np.tril(products >= threshold, -1))
    # A loop, for it is sequential by nature: a row goes only if the row that it repeats has stayed.
    for b, a in zip(later.tolist(), earlier.tolist(), strict=True):
        if match[a] < 0 and (match[b] < 0 or products[b, a] > products[b, match[b]]):
            match[b] = a
    return match


def semantic_pairs(
    vectors: NDArray[np.float32], *, threshold: float = COSINE
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return all pairs with a cosine of at least the threshold: (m, 2) positions, the earlier first, and cosines."""
    check_cosine(threshold)
    units = unit_vectors(vectors)
    pairs, cosines = [np.empty((0, 2), dtype=np.int64)], [np.empty(0, dtype=np.float32)]
    for first in range(0, len(units), _BLOCK):
        for second in range(first, len(units), _TILE):
            products = units[first : first + _BLOCK] @ units[second : second + _TILE].T
            a, b = np.nonzero(products >= threshold)
            value = products[a, b]
            found = np.stack([a + first, b + second], axis=1).astype(np.int64)
            later = found[:, 1] > found[:, 0]
            pairs.append(found[later])
            cosines.append(value[later])
    joined, values = np.concatenate(pairs), np.concatenate(cosines)
    ranked = np.lexsort((joined[:, 1], joined[:, 0]))
    return joined[ranked], values[ranked]


def drop_semantic(
    frame: pl.DataFrame,
    encode: Encode,
    *,
    against: Sequence[tuple[str, pl.DataFrame]] = (),
    threshold: float = COSINE,
    order: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drop rows that say what a row of a reference, or a kept row before them, says.

    Args:
        frame: Rows with ``id`` and ``text``; other columns are carried.
        encode: list of str -> (n, d) unit vectors.
        against: (name, frame) references with ``id`` and ``text``.
        threshold: The least cosine of a duplicate.
        order: Positions of frame in the order of who comes first; as they stand if not given.
        progress: Called with (rows compared, rows).

    Returns:
        (kept, dropped) in their order; dropped has ``reason`` ("semantic_within" or "semantic_of:<name>"),
        ``match_id`` and ``cosine``.
    """
    check_cosine(threshold)
    texts = frame["text"].to_list()
    vectors = unit_vectors(encode(texts)) if texts else np.empty((0, 1), dtype=np.float32)
    reason: list[str | None] = [None] * len(texts)
    match_id: list[str | None] = [None] * len(texts)
    cosine = np.zeros(len(texts), dtype=np.float32)
    left = np.arange(len(texts), dtype=np.int64) if order is None else np.asarray(order, dtype=np.int64)
    for name, reference in against:
        if not len(left) or reference.is_empty():
            continue
        place, value = nearest_vector(vectors[left], unit_vectors(encode(reference["text"].to_list()), name))
        hit = value >= threshold
        ids = reference["id"].to_list()
        for row, at in zip(left[hit].tolist(), place[hit].tolist(), strict=True):
            reason[row], match_id[row] = f"semantic_of:{name}", ids[at]
        cosine[left[hit]] = value[hit]
        left = left[~hit]
    found = semantic_duplicates(vectors[left], threshold=threshold, progress=progress)
    ids = frame["id"].to_list()
    for row in np.flatnonzero(found.match >= 0).tolist():
        reason[left[row]], match_id[left[row]] = "semantic_within", ids[left[found.match[row]]]
    cosine[left] = found.cosine
    explained = frame.with_columns(
        pl.Series("reason", reason, dtype=pl.String),
        pl.Series("match_id", match_id, dtype=pl.String),
        pl.Series("cosine", cosine.astype(np.float64), dtype=pl.Float64),
    )
    keep = explained["reason"].is_null()
    return frame.filter(keep), explained.filter(~keep)
