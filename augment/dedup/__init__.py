"""Near-duplicates: which prompts say the same thing in nearly the same characters.

A near-duplicate is a pair whose exact Jaccard similarity over lower-cased character 5-grams, white space folded, is at
least a threshold (0.8). MinHash signatures (datasketch) and banding find the candidates, exact Jaccard decides, so
precision is 1 and recall at the threshold itself is above 0.99999. It takes texts or contract frames and gives pairs,
clusters or a ``DedupResult`` whose dropped rows say what they repeated and how closely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress

SHINGLE = 5  # characters in a shingle; a shorter text is its own only shingle
THRESHOLD = 0.8
NUM_PERM = 128
_SEED = 1
_TARGET_RECALL = 0.999999  # of pairs exactly at the threshold; above it the miss rate falls steeply
_BLOCK = 1024  # rows deduplicated against each other at once: bounds the pairs of one giant bucket to half a million
_CHUNK = 1 << 19  # candidate pairs looked at at once, to bound memory
_EXACT = 1 << 23  # shingles of candidate pairs compared at once, likewise
_FILTER_SIGMAS = 6.0  # a signature this many standard deviations under the threshold is not worth an exact check

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def fold(text: str) -> str:
    """Return the text as shingling sees it: lower case, every run of white space one blank, none at the ends."""
    return " ".join(text.lower().split())


def shingles(text: str) -> frozenset[str]:
    """Return the distinct 5-grams of the folded text; a folded text shorter than 5 characters is its own shingle."""
    folded = fold(text)
    if len(folded) < SHINGLE:
        return frozenset((folded,))
    return frozenset(folded[i : i + SHINGLE] for i in range(len(folded) - SHINGLE + 1))


def jaccard(a: str, b: str) -> float:
    """Return the exact Jaccard similarity of two texts' shingles: the definition that everything here is held to."""
    left, right = shingles(a), shingles(b)
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


@lru_cache(maxsize=32)
def banding(threshold: float, num_perm: int = NUM_PERM) -> tuple[int, int]:
    """Return (bands, rows per band): the most selective that lose at most a millionth of the pairs at the threshold.

    At 0.8 and 128 permutations that is 32 bands of 4 rows, which miss a pair at 0.8 about 5 times in 100 million. A
    threshold too low for that gets one-row bands, the best there is.
    """
    for rows in range(num_perm // 2, 1, -1):
        bands = num_perm // rows
        if 1.0 - (1.0 - threshold**rows) ** bands >= _TARGET_RECALL:
            return bands, rows
    return num_perm, 1


# ---------------------------------------------------------------------------------------------------------- sketches


def _multipliers() -> NDArray[np.uint64]:
    """Return fixed odd 64-bit multipliers: one for each character of a shingle, then one salt for each short length."""
    generator = np.random.Generator(np.random.PCG64(0x5EED))
    return generator.integers(0, 1 << 63, size=2 * SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _hash_shingles(folded: Sequence[str]) -> tuple[NDArray[np.int64], Ints]:
    """Hash all shingles of all texts at once: (63-bit hashes one text after another, row offsets).

    The hash is a random linear form over the five code points, so two different shingles collide about once in 2**56;
    texts under five characters are padded and salted by their length, so that they equal only themselves.
    """
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    padded = np.maximum(lengths, SHINGLE)
    joined = "".join(text if len(text) >= SHINGLE else text.ljust(SHINGLE, "\0") for text in folded)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    multipliers = _multipliers()
    windows = max(len(points) - SHINGLE + 1, 0)
    hashes = np.zeros(windows, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes += points[offset : offset + windows] * multipliers[offset]
    counts = padded - SHINGLE + 1
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    # Windows that reach over a text's end are skipped: each text has four of them behind its last valid one.
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(padded)])[:-1]
    wanted = np.arange(indptr[-1], dtype=np.int64) + np.repeat(starts - indptr[:-1], counts)
    hashes = hashes[wanted]
    short = np.flatnonzero(lengths < SHINGLE)
    hashes[indptr[short]] += multipliers[SHINGLE + lengths[short]]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    return (hashes >> np.uint64(1)).astype(np.int64), indptr


def _identity(value: int) -> int:
    """Pass a hash through: MinHash is given shingles that are hashed already."""
    return value


def _signatures(hashes: NDArray[np.int64], indptr: Ints, seed: int, progress: Progress | None) -> NDArray[np.uint32]:
    """Return datasketch's MinHash signatures, one row of 128 values a text."""
    from datasketch import MinHash

    narrow = (hashes >> np.int64(31)).astype(np.uint32)  # the best mixed half
    total = len(indptr) - 1
    out = np.empty((total, NUM_PERM), dtype=np.uint32)
    # tolist() gives plain ints: MinHash calls its hash function once a value, and numpy scalars would make that slow.
    sets = (narrow[indptr[row] : indptr[row + 1]].tolist() for row in range(total))
    sketches = MinHash.generator(sets, num_perm=NUM_PERM, seed=seed, hashfunc=_identity, scheme="affine32")
    for row, sketch in enumerate(sketches):
        out[row] = sketch.hashvalues
        if progress is not None and row % 1024 == 1023:
            progress(row + 1, total)
    if progress is not None:
        progress(total, total)
    return out


@dataclass(frozen=True)
class _Sketches:
    """Everything the comparison of texts needs: exact shingle sets, one-byte signatures, and a 32-bit key per band."""

    sets: Any  # scipy.sparse.csr_array, one row a text, one column a shingle hash
    sizes: Ints
    bytes_: NDArray[np.uint8]
    bands: NDArray[np.uint32]  # (number of bands, number of texts): the bucket of each text in each band
    buckets: NDArray[np.uint32]  # the same, one row a text
    threshold: float

    def likely(self, a: Ints, b: Ints) -> NDArray[np.bool_]:
        """Return which pairs the signatures do not rule out (a one-byte signature only ever overestimates)."""
        spread = (self.threshold * (1.0 - self.threshold) / NUM_PERM) ** 0.5
        floor = (self.threshold - _FILTER_SIGMAS * spread) * NUM_PERM
        sizes_a, sizes_b = self.sizes[a], self.sizes[b]
        fits = np.minimum(sizes_a, sizes_b) >= self.threshold * np.maximum(sizes_a, sizes_b)
        fits[fits] = (self.bytes_[a[fits]] == self.bytes_[b[fits]]).sum(axis=1) >= floor
        return fits

    def exact(self, a: Ints, b: Ints) -> Floats:
        """Return the exact Jaccard similarity of each pair."""
        both = self.sizes[a] + self.sizes[b]
        shared = np.zeros(len(a), dtype=np.int64)
        ends = np.cumsum(both)
        start = 0
        while start < len(a):
            done = ends[start - 1] if start else 0
            stop = max(int(np.searchsorted(ends, done + _EXACT, side="right")), start + 1)
            part = slice(start, stop)
            shared[part] = np.diff(self.sets[a[part]].multiply(self.sets[b[part]]).indptr)
            start = stop
        return np.asarray(shared / (both - shared), dtype=np.float64)

    def verify(self, a: Ints, b: Ints, band: int) -> tuple[NDArray[np.bool_], Floats]:
        """Return which pairs of one band are near-duplicates, and how near those are.

        A pair that shared a bucket in an earlier band has been verified there and is not taken again.
        """
        hit = self.likely(a, b)
        if band:
            low, high = a[hit], b[hit]
            hit[hit] = ~(self.buckets[low, :band] == self.buckets[high, :band]).any(axis=1)
        near = self.exact(a[hit], b[hit])
        hit[hit] = near >= self.threshold
        return hit, near[near >= self.threshold]


def _sketch(folded: Sequence[str], threshold: float, seed: int = _SEED, progress: Progress | None = None) -> _Sketches:
    """Sketch folded texts: hash, sign, cut the signatures into bands."""
    from scipy.sparse import csr_array

    hashes, indptr = _hash_shingles(folded)
    signatures = _signatures(hashes, indptr, seed, progress)
    # The hash itself is the column number: nothing in a sparse matrix is sized by its columns.
    sets = csr_array((np.ones(len(hashes), dtype=np.int8), hashes, indptr), shape=(len(folded), 2**63 - 1))
    sets.sum_duplicates()
    sets.data[:] = 1
    bands, rows = banding(threshold)
    keys = np.empty((bands, len(folded)), dtype=np.uint32)
    weights = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 63, size=rows, dtype=np.uint64) | np.uint64(1)
    for band in range(bands):
        part = signatures[:, band * rows : (band + 1) * rows].astype(np.uint64)
        # The high half of a random linear form; a chance collision costs one comparison.
        keys[band] = (part * weights).sum(axis=1, dtype=np.uint64) >> np.uint64(32)
    sizes = np.diff(sets.indptr).astype(np.int64)
    low_bytes = (signatures & np.uint32(0xFF)).astype(np.uint8)
    return _Sketches(sets, sizes, low_bytes, keys, np.ascontiguousarray(keys.T), threshold)


# ----------------------------------------------------------------------------------------------------------- probing


def _expand(lo: Ints, hi: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield (query number, position) for every position in lo[i]:hi[i], at most about _CHUNK pairs at a time."""
    queries = np.flatnonzero(hi > lo)
    counts = (hi - lo)[queries]
    ends = np.cumsum(counts)
    start = 0
    while start < len(queries):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _CHUNK, side="right")), start + 1)
        part, sizes = queries[start:stop], counts[start:stop]
        first = np.cumsum(sizes) - sizes
        positions = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(lo[part] - first, sizes)
        yield np.repeat(part, sizes), positions
        start = stop


class _Table:
    """The rows seen so far, sorted by key within each band, so that a bucket is one slice."""

    def __init__(self, sketches: _Sketches) -> None:
        self._sketches = sketches
        bands = len(sketches.bands)
        self._keys: list[NDArray[np.uint32]] = [np.empty(0, dtype=np.uint32)] * bands
        self._rows: list[Ints] = [np.empty(0, dtype=np.int64)] * bands

    def add(self, rows: Ints) -> None:
        """Add rows to every band's order."""
        for band, keys in enumerate(self._sketches.bands):
            merged_keys = np.concatenate([self._keys[band], keys[rows]])
            merged_rows = np.concatenate([self._rows[band], rows])
            order = np.argsort(merged_keys, kind="stable")
            self._keys[band], self._rows[band] = merged_keys[order], merged_rows[order]

    def nearest(self, rows: Ints) -> tuple[Ints, Floats]:
        """Return for each row the nearest near-duplicate in the table (-1 for none; the lower row on a tie)."""
        best = np.full(len(rows), -1, dtype=np.int64)
        near = np.zeros(len(rows), dtype=np.float64)
        for band, keys in enumerate(self._sketches.bands):
            wanted = keys[rows]
            lo = np.searchsorted(self._keys[band], wanted, side="left").astype(np.int64)
            hi = np.searchsorted(self._keys[band], wanted, side="right").astype(np.int64)
            for query, position in _expand(lo, hi):
                self._improve(best, near, rows, query, self._rows[band][position], band)
        return best, near

    def _improve(self, best: Ints, near: Floats, rows: Ints, query: Ints, match: Ints, band: int) -> None:
        hit, similarity = self._sketches.verify(rows[query], match, band)
        query, match = query[hit], match[hit]
        # Worst first, so that the last write to each query is its best; a better or an equal lower row replaces.
        order = np.lexsort((-match, similarity))
        winner = np.full(len(best), -1, dtype=np.int64)
        winner[query[order]] = order
        touched = np.flatnonzero(winner >= 0)
        won = winner[touched]
        better = similarity[won] > near[touched]
        tie = (similarity[won] == near[touched]) & (match[won] < best[touched])
        take = better | tie
        best[touched[take]] = match[won[take]]
        near[touched[take]] = similarity[won[take]]


def _bucket_ends(keys: NDArray[np.uint32]) -> Ints:
    """Return for sorted keys the position at which each element's bucket ends."""
    return np.searchsorted(keys, keys, side="right").astype(np.int64)


def _pairs_among(sketches: _Sketches, rows: Ints) -> tuple[Ints, Ints, Floats]:
    """Return every near-duplicate pair among rows as (positions a < b in rows, Jaccard), sorted."""
    empty = np.empty(0, dtype=np.int64)
    found: list[tuple[Ints, Ints, Floats]] = [(empty, empty, np.empty(0, dtype=np.float64))]
    for band, keys in enumerate(sketches.bands):
        wanted = keys[rows]
        order = np.argsort(wanted, kind="stable").astype(np.int64)
        ends = _bucket_ends(wanted[order])
        for left, right in _expand(np.arange(1, len(rows) + 1, dtype=np.int64), ends):
            a, b = order[left], order[right]  # stable order: a < b
            hit, near = sketches.verify(rows[a], rows[b], band)
            found.append((a[hit], b[hit], near))
    a, b, near = (np.concatenate(part) for part in zip(*found, strict=True))
    ranked = np.lexsort((b, a))
    return a[ranked], b[ranked], near[ranked]


def _greedy(sketches: _Sketches, rows: Ints, progress: Progress | None = None) -> tuple[Ints, Floats]:
    """Keep each row in order unless it is a near-duplicate of a row kept before it.

    Returns for each position the kept row that it repeats (-1: kept) and their Jaccard. Rows go in blocks: each block
    is held against all kept rows, and what is left of it against itself, so a bucket of a thousand near-identical
    texts costs a thousand comparisons with its one kept row and not half a million.
    """
    table = _Table(sketches)
    match = np.full(len(rows), -1, dtype=np.int64)
    near = np.zeros(len(rows), dtype=np.float64)
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        match[start:stop], near[start:stop] = table.nearest(rows[start:stop])
        left = start + np.flatnonzero(match[start:stop] < 0)
        kept = np.ones(len(left), dtype=bool)
        # A loop, for it is sequential by nature: whether a row is kept hangs on whether its earlier matches were.
        for a, b, similarity in zip(*(part.tolist() for part in _ordered(sketches, rows[left])), strict=True):
            if kept[a] and (kept[b] or similarity > near[left[b]]):
                kept[b] = False
                match[left[b]], near[left[b]] = rows[left[a]], similarity
        table.add(rows[left[kept]])
        if progress is not None:
            progress(stop, len(rows))
    return match, near


def _ordered(sketches: _Sketches, rows: Ints) -> tuple[Ints, Ints, Floats]:
    """Return the near-duplicate pairs among rows ordered by their later, then their earlier member."""
    a, b, near = _pairs_among(sketches, rows)
    order = np.lexsort((a, b))
    return a[order], b[order], near[order]


# -------------------------------------------------------------------------------------------------------- public: texts


def _check_threshold(threshold: float) -> None:
    if not 0.0 < threshold <= 1.0:
        raise BadInput(f"dedup threshold {threshold}: must be above 0 and at most 1 (0.8 is this project's meaning)")


def _unique(folded: Sequence[str]) -> tuple[list[str], Ints]:
    """Return the distinct texts in order of first appearance, and each text's number among them."""
    numbers: dict[str, int] = {}
    inverse = np.fromiter((numbers.setdefault(text, len(numbers)) for text in folded), np.int64, count=len(folded))
    return list(numbers), inverse


def near_duplicate_pairs(
    texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int = _SEED, progress: Progress | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find every pair of near-duplicates, exact duplicates included.

    Args:
        texts: The texts to compare with each other.
        threshold: The least Jaccard similarity of a pair.
        seed: Chooses the MinHash permutations; the answer does not depend on it but for missed pairs.
        progress: Called with (texts signed, texts).

    Returns:
        (m, 2) positions, the earlier first, in order, and the m exact similarities. A group of k equal texts has
        k(k-1)/2 pairs; where only the groups matter, ``near_duplicate_clusters`` does not pay for them.
    """
    _check_threshold(threshold)
    distinct, inverse = _unique([fold(text) for text in texts])
    sketches = _sketch(distinct, threshold, seed, progress)
    a, b, near = _pairs_among(sketches, np.arange(len(distinct), dtype=np.int64))
    # Every distinct text pairs with itself too, so that its copies pair with each other.
    own = np.arange(len(distinct), dtype=np.int64)
    a, b, near = np.concatenate([a, own]), np.concatenate([b, own]), np.concatenate([near, np.ones(len(own))])
    order = np.argsort(inverse, kind="stable").astype(np.int64)
    counts = np.bincount(inverse, minlength=len(distinct)).astype(np.int64)
    offsets = np.cumsum(counts) - counts
    sizes = counts[a] * counts[b]
    flat = np.arange(int(sizes.sum()), dtype=np.int64) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    width = np.repeat(counts[b], sizes)
    left = order[np.repeat(offsets[a], sizes) + flat // np.maximum(width, 1)]
    right = order[np.repeat(offsets[b], sizes) + flat % np.maximum(width, 1)]
    similarity, same = np.repeat(near, sizes), np.repeat(a == b, sizes)
    keep = (left != right) & (~same | (left < right))
    pairs = np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)[keep]
    ranked = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[ranked], similarity[keep][ranked]


def near_duplicate_clusters(
    texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int = _SEED, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Label each text with its cluster: the texts reachable from it by a chain of near-duplicates.

    Labels count up from 0 in order of first appearance. Within a bucket only pairs that are not yet connected are
    compared, so that large groups of near-identical texts cost about as much as small ones.
    """
    _check_threshold(threshold)
    distinct, inverse = _unique([fold(text) for text in texts])
    sketches = _sketch(distinct, threshold, seed, progress)
    labels = np.arange(len(distinct), dtype=np.int64)
    for keys in sketches.bands:  # cheap first: every member of a bucket against the one before it
        order = np.argsort(keys, kind="stable").astype(np.int64)
        beside = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        a, b = order[beside], order[beside + 1]
        hit, _ = sketches.verify(a, b, 0)
        labels = _join(labels, a[hit], b[hit])
    for band, keys in enumerate(sketches.bands):
        order = np.lexsort((labels, keys)).astype(np.int64)
        ends = _bucket_ends(keys[order])
        changed = np.flatnonzero((np.diff(labels[order]) != 0) | (np.diff(keys[order]) != 0)) + 1
        bounds = np.append(changed, len(order))
        # From the end of a row's own cluster to the end of its bucket: the bucket's members that it is not joined to.
        own_end = bounds[np.searchsorted(bounds, np.arange(len(order)), side="right")]
        for left, right in _expand(own_end.astype(np.int64), ends):
            a, b = order[left], order[right]
            apart = labels[a] != labels[b]
            a, b = a[apart], b[apart]
            hit, _ = sketches.verify(a, b, band)
            labels = _join(labels, a[hit], b[hit])
    return _by_appearance(labels[inverse])


def _join(labels: Ints, a: Ints, b: Ints) -> Ints:
    """Return the labels after joining the clusters of each pair."""
    if not len(a):
        return labels
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), dtype=np.int8), (labels[a], labels[b])), shape=(len(labels), len(labels)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[labels]  # type: ignore[no-any-return]  # scipy is untyped


def _by_appearance(labels: Ints) -> Ints:
    """Renumber labels 0, 1, ... in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def nearest_reference(
    texts: Sequence[str],
    reference: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    seed: int = _SEED,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Return for each text the position in reference of its nearest near-duplicate there, -1 where there is none."""
    _check_threshold(threshold)
    folded, inverse = _unique([fold(text) for text in reference] + [fold(text) for text in texts])
    sketches = _sketch(folded, threshold, seed, progress)
    known, first = np.unique(inverse[: len(reference)], return_index=True)
    match, _ = _nearest_among(sketches, inverse[len(reference) :], known)
    out = np.full(len(texts), -1, dtype=np.int64)
    hit = match >= 0
    out[hit] = first[np.searchsorted(known, match[hit])]
    return out


def _nearest_among(sketches: _Sketches, asked: Ints, known: Ints) -> tuple[Ints, Floats]:
    """Return for each asked text number its nearest near-duplicate among the sorted known numbers, itself included."""
    numbers, back = np.unique(asked, return_inverse=True)
    own = np.isin(numbers, known)
    match, near = np.where(own, numbers, -1), np.where(own, 1.0, 0.0)
    if len(known):
        table = _Table(sketches)
        table.add(known)
        match[~own], near[~own] = table.nearest(numbers[~own])
    return match[back.reshape(-1)], near[back.reshape(-1)]


# ------------------------------------------------------------------------------------------------------- public: frames


@dataclass(frozen=True)
class DedupResult:
    """What deduplication kept and dropped; every dropped row says why.

    Attributes:
        kept: The rows kept, in their order and with their columns. No two are near-duplicates.
        dropped: The others, with ``reason`` ("duplicate_within", or "duplicate_of:<name>"), ``match_id`` (the id of the
            kept row, or of the row of that reference, that it repeats) and ``jaccard`` (1.0 for an exact copy).
        threshold: The least Jaccard similarity that counted as a near-duplicate.
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame
    threshold: float = field(default=THRESHOLD)

    @property
    def duplicate_ratio(self) -> float:
        """The share of rows dropped, 0 for an empty input."""
        total = self.kept.height + self.dropped.height
        return self.dropped.height / total if total else 0.0

    @property
    def exact_ratio(self) -> float:
        """The share of rows dropped for a text that is the same after folding case and white space."""
        total = self.kept.height + self.dropped.height
        return int((self.dropped["jaccard"] == 1.0).sum()) / total if total else 0.0

    def by_reason(self) -> dict[str, int]:
        """Return the number of rows dropped for each reason."""
        counts = self.dropped.group_by("reason").len().sort("reason")
        return dict(zip(counts["reason"].to_list(), counts["len"].to_list(), strict=True))

    def least_similar(self, n: int = 10) -> pl.DataFrame:
        """Return the n dropped rows nearest to the threshold: the ones to look at before trusting it."""
        return self.dropped.sort("jaccard").head(n)


def deduplicate(
    frame: pl.DataFrame,
    *,
    against: Sequence[tuple[str, pl.DataFrame]] = (),
    threshold: float = THRESHOLD,
    seed: int = _SEED,
    progress: Progress | None = None,
) -> DedupResult:
    """Drop rows that repeat a row of a reference frame, or an earlier kept row of their own.

    Args:
        frame: Rows with ``id`` and ``text``; other columns are carried.
        against: (name, frame) references with ``id`` and ``text``, e.g. the originals and every holdout. The first
            reference that a row repeats is its reason; references are not changed.
        threshold: The least Jaccard similarity of a near-duplicate.
        seed: Chooses the MinHash permutations.
        progress: Called with (distinct texts signed, distinct texts).

    Returns:
        The kept and the dropped rows. No two kept rows, and no kept row and reference row, are near-duplicates, but
        for pairs that banding misses: about 5 in 100 million of those exactly at 0.8, fewer above.
    """
    _check_threshold(threshold)
    _need_columns(frame, "the frame to deduplicate")
    for name, reference in against:
        _need_columns(reference, f"the reference {name!r}")
    # The folding is Python's own: str.lower and str.split are the definition that shingles() uses.
    parts = [[fold(text) for text in part["text"]] for part in (*(reference for _, reference in against), frame)]
    distinct, inverse = _unique([text for part in parts for text in part])
    sketches = _sketch(distinct, threshold, seed, progress)
    bounds = np.cumsum([0] + [len(part) for part in parts])
    numbers = [inverse[lo:hi] for lo, hi in pairwise(bounds)]
    verdict = _Verdict.undecided(frame.height)
    for (name, reference), known in zip(against, numbers[:-1], strict=True):
        verdict.match_reference(name, reference, known, numbers[-1], sketches)
    verdict.match_within(frame, numbers[-1], sketches)
    return verdict.split(frame, threshold)


def _need_columns(frame: pl.DataFrame, what: str) -> None:
    missing = [name for name in ("id", "text") if name not in frame.columns]
    if missing:
        raise BadInput(f"{what} has no column {', '.join(missing)}; columns are {', '.join(frame.columns)}")
    empty = frame["text"].null_count()
    if empty:
        raise BadInput(f"{what} has {empty} rows without text; drop them first")


@dataclass
class _Verdict:
    """The decision on each row while deduplicate() goes through its references; reason None means kept so far."""

    reason: NDArray[np.object_]
    match_id: NDArray[np.object_]
    jaccard: Floats

    @classmethod
    def undecided(cls, rows: int) -> _Verdict:
        return cls(np.full(rows, None, dtype=object), np.full(rows, None, dtype=object), np.zeros(rows))

    def _open(self) -> Ints:
        return np.flatnonzero(self.reason == None).astype(np.int64)  # noqa: E711  elementwise on an object array

    def match_reference(self, name: str, reference: pl.DataFrame, known: Ints, own: Ints, sketches: _Sketches) -> None:
        """Drop open rows that repeat a row of the reference."""
        rows = self._open()
        if not len(rows) or not len(known):
            return
        present, first = np.unique(known, return_index=True)
        match, near = _nearest_among(sketches, own[rows], present)
        hit = match >= 0
        ids = reference["id"].to_numpy()[first[np.searchsorted(present, match[hit])]]
        self.reason[rows[hit]] = f"duplicate_of:{name}"
        self.match_id[rows[hit]], self.jaccard[rows[hit]] = ids, near[hit]

    def match_within(self, frame: pl.DataFrame, own: Ints, sketches: _Sketches) -> None:
        """Drop open rows that repeat an earlier kept row."""
        rows = self._open()
        if not len(rows):
            return
        present, first, back = np.unique(own[rows], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")  # distinct texts in the order of their first open row
        match, near = np.full(len(present), -1, dtype=np.int64), np.zeros(len(present))
        match[order], near[order] = _greedy(sketches, present[order])
        back = back.reshape(-1)
        keeper = np.where(match >= 0, match, present)[back]  # the kept text that each row stands behind
        keeper_row = rows[first[np.searchsorted(present, keeper)]]
        drop = rows != keeper_row
        ids = frame["id"].to_numpy()
        self.reason[rows[drop]] = "duplicate_within"
        self.match_id[rows[drop]] = ids[keeper_row[drop]]
        self.jaccard[rows[drop]] = np.where(match >= 0, near, 1.0)[back][drop]

    def split(self, frame: pl.DataFrame, threshold: float) -> DedupResult:
        """Return the result: rows without a reason are kept."""
        keep = pl.Series(self.reason == None)  # noqa: E711  elementwise on an object array
        explained = frame.with_columns(
            pl.Series("reason", self.reason.tolist(), dtype=pl.String),
            pl.Series("match_id", self.match_id.tolist(), dtype=pl.String),
            pl.Series("jaccard", self.jaccard, dtype=pl.Float64),
        )
        return DedupResult(frame.filter(keep), explained.filter(~keep), threshold)
