"""Which texts are near-duplicates of which: buckets give candidates, the exact Jaccard decides.

It takes texts, or sketches and the rows among them that matter, and gives pairs, clusters, the nearest text of a
reference, or what a greedy pass in a given order keeps. Buckets are made columnar, a band at a time: rows alone in a
table of key bits are set aside, the rest are sorted. That gives the groups of a polars group-by in about half its time
(docs/bench/dedup.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crywolf.data import Progress

from .sketch import SEED, THRESHOLD, Floats, Ints, Sketches, check_threshold, fold, sketch, sorted_words, unique

_BUDGET = 1 << 21  # candidate pairs looked at together, to bound memory
_MANY = 256  # candidates a row past which large buckets are thinned before pairs are formed
_ROUNDS = 64  # rounds of a greedy pass before the rest of a block is decided one by one
_STEP = 1 << 14  # pairs compared exactly before the clusters that they join are looked at again
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Buckets:
    """The buckets of more than one row, of all bands together, and each row's candidates: those before it in a bucket.

    Args:
        keys: (bands, rows) bucket keys; rows stand in the order that matters.
        known: if given, the first so many rows are a reference: candidates are the reference's rows alone.

    Attributes:
        rows: How many rows there are.
        member: Rows, bucket after bucket, ascending in each.
        start: For each place in member the place where its bucket begins.
        count: For each place the number of its candidates, which stand from `start` on.
    """

    def __init__(self, keys: NDArray[np.uint32], known: int | None = None) -> None:
        self.rows = keys.shape[1]
        parts = [_grouped(band) for band in keys]
        self.member = np.concatenate([np.empty(0, dtype=np.int64), *(member for member, _ in parts)])
        begins = np.concatenate([np.empty(0, dtype=bool), *(begin for _, begin in parts)])
        places = np.arange(len(begins), dtype=np.int64)
        self.start = np.maximum.accumulate(np.where(begins, places, 0)) if len(begins) else places
        if known is None:
            self.count = places - self.start
        else:
            of_known = self.member < known
            before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(of_known)])
            self.count = np.where(of_known, 0, before[places] - before[self.start])

    def _counts(self) -> Ints:
        """Return the number of each row's candidates, one that shares two buckets counted twice."""
        return np.bincount(self.member, weights=self.count, minlength=self.rows).astype(np.int64)

    def crowded(self) -> bool:
        """Return whether the buckets are so large that not all of their pairs should be formed."""
        return bool(self.count.sum() > _MANY * self.rows)

    def leaders(self) -> NDArray[np.bool_]:
        """Return which rows are the first of every bucket that they are in."""
        return np.asarray(self._counts() == 0)

    def behind(self, lead: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Return (row, leader) for every row that is in a bucket with a leader, in order of row and leader."""
        first = self.member[self.start]
        led = (self.count > 0) & lead[first]
        return _distinct(self.member[led], first[led])

    def blocks(self) -> Iterator[tuple[Ints, Ints]]:
        """Yield (row, candidate) a block of rows at a time, in order of row and candidate, each pair once."""
        later = np.flatnonzero(self.count)
        for start, stop in _budgeted(self._counts()):
            places = later[(self.member[later] >= start) & (self.member[later] < stop)]
            counts = self.count[places]
            others = _runs(self.start[places], counts)
            yield _distinct(np.repeat(self.member[places], counts), self.member[others])

    def beside(self) -> tuple[Ints, Ints]:
        """Return every row of a bucket with the one before it there, each pair once."""
        later = np.flatnonzero(self.count)
        return _distinct(self.member[later], self.member[later - 1])


def _grouped(keys: NDArray[np.uint32]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the rows that share their key with another, grouped by key and ascending, and where each group begins."""
    total = len(keys)
    rows = np.arange(total, dtype=np.int32)
    # Most rows are alone. Each writes itself into a table at its key's last bits, which need not be cleared first: who
    # finds another there shares the place with it, and only those are sorted.
    size = 1 << max(int(8 * total).bit_length(), 10)
    slots = (keys & np.uint32(size - 1)).astype(np.int64)
    table = np.empty(size, dtype=np.int32)
    table[slots] = rows
    last = table[slots]
    shared = last != rows
    shared[last[shared]] = True
    chosen = np.flatnonzero(shared)
    # Key and row in one word: a plain sort is then a stable sort by key.
    words = sorted_words((keys[chosen].astype(np.uint64) << _HALF) | chosen.astype(np.uint64))
    key = words >> _HALF
    begins = np.concatenate([np.ones(min(len(key), 1), dtype=bool), key[1:] != key[:-1]])
    alone = begins & np.concatenate([begins[1:], np.ones(min(len(key), 1), dtype=bool)])
    return (words[~alone] & _LOW).astype(np.int64), begins[~alone]


def _budgeted(counts: Ints) -> Iterator[tuple[int, int]]:
    """Cut rows into (start, stop) of about _BUDGET candidates in all."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _BUDGET, side="right")), start + 1)
        yield start, stop
        start = stop


def _runs(starts: Ints, counts: Ints) -> Ints:
    """Return starts[0], starts[0] + 1, ... (counts[0] of them), then the same for the next."""
    places = np.arange(int(counts.sum()), dtype=np.int64)
    places += np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return places


def _distinct(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the distinct pairs in order."""
    pairs = sorted_words((a.astype(np.uint64) << _HALF) | b.astype(np.uint64))
    pairs = pairs[np.concatenate([np.ones(min(len(pairs), 1), dtype=bool), pairs[1:] != pairs[:-1]])]
    return (pairs >> _HALF).astype(np.int64), (pairs & _LOW).astype(np.int64)


# --------------------------------------------------------------------------------------------------- rows of sketches


def pairs_among(sketches: Sketches, rows: Ints) -> tuple[Ints, Ints, Floats]:
    """Return every near-duplicate pair among rows as (positions a < b in rows, Jaccard), sorted."""
    empty = np.empty(0, dtype=np.int64)
    found: list[tuple[Ints, Ints, Floats]] = [(empty, empty, np.empty(0, dtype=np.float64))]
    for b, a in Buckets(sketches.bands[:, rows]).blocks():
        hit, near = sketches.verify(rows[a], rows[b])
        found.append((a[hit], b[hit], near))
    a, b, near = (np.concatenate(part) for part in zip(*found, strict=True))
    ranked = np.lexsort((b, a))
    return a[ranked], b[ranked], near[ranked]


def greedy(sketches: Sketches, rows: Ints) -> tuple[Ints, Floats]:
    """Keep each row in order unless it is a near-duplicate of a row kept before it.

    Returns for each position the kept row that it repeats (-1: kept) and their Jaccard. Large buckets are thinned
    first: a row that is the first of all its buckets is kept whatever the others are, and drops what is near to it. A
    thousand near-identical texts then cost a thousand comparisons and not half a million.
    """
    match = np.full(len(rows), -1, dtype=np.int64)
    near = np.zeros(len(rows), dtype=np.float64)
    left = np.arange(len(rows), dtype=np.int64)
    buckets = Buckets(sketches.bands[:, rows])
    while buckets.crowded():
        lead = buckets.leaders()
        row, leader = buckets.behind(lead)
        hit, similarity = sketches.verify(rows[left[leader]], rows[left[row]])
        _improve(match, near, left[row[hit]], rows[left[leader[hit]]], similarity)
        open_ = ~lead & (match[left] < 0)
        slow = open_.sum() * 8 > len(left) * 7  # rows that share buckets and little else: no use to go by leaders
        left = left[open_]
        buckets = Buckets(sketches.bands[:, rows[left]])
        if slow:
            break
    _Undecided(sketches, rows, left, match, near).decide(buckets)
    return match, near


@dataclass
class _Undecided:
    """The rows of a greedy pass that are left: `left` are positions in rows, match and near are written to."""

    sketches: Sketches
    rows: Ints
    left: Ints
    match: Ints
    near: Floats

    def decide(self, buckets: Buckets) -> None:
        """Decide them in order, a block at a time; rows of the blocks before are decided then."""
        for later, earlier in buckets.blocks():
            stays = self.match[self.left[earlier]] < 0
            row, before = self.left[later[stays]], self.left[earlier[stays]]
            hit = self.sketches.likely(self.rows[before], self.rows[row])
            self._resolve(row[hit], before[hit])

    def _resolve(self, row: Ints, before: Ints) -> None:
        """Decide a block by the pairs that its signatures do not rule out; a pair with a dropped row needs no check.

        In rounds: a row of which no pair is left is kept, and the pairs with kept rows are checked.
        """
        for _ in range(_ROUNDS):
            if not len(row):
                return
            waits = np.zeros(len(self.rows), dtype=bool)
            waits[row] = True
            now = ~waits[before]
            self._check(row[now], before[now])
            still = ~now & (self.match[row] < 0) & (self.match[before] < 0)
            row, before = row[still], before[still]
        similarity = self.sketches.exact(self.rows[before], self.rows[row])
        enough = similarity >= self.sketches.threshold
        # A loop, for it is sequential by nature: whether a row is kept hangs on whether its earlier matches were.
        for a, b, value in zip(before[enough].tolist(), row[enough].tolist(), similarity[enough].tolist(), strict=True):
            if self.match[a] < 0 and value > self.near[b]:
                self.match[b], self.near[b] = self.rows[a], value

    def _check(self, row: Ints, before: Ints) -> None:
        similarity = self.sketches.exact(self.rows[before], self.rows[row])
        enough = similarity >= self.sketches.threshold
        _improve(self.match, self.near, row[enough], self.rows[before[enough]], similarity[enough])


def _improve(best: Ints, near: Floats, at: Ints, found: Ints, similarity: Floats) -> None:
    """Write the nearest of the found rows to each position, the lower on a tie, where it beats what is there."""
    order = np.lexsort((found, -similarity, at))
    at, found, similarity = at[order], found[order], similarity[order]
    first = np.concatenate([np.ones(min(len(at), 1), dtype=bool), at[1:] != at[:-1]])
    at, found, similarity = at[first], found[first], similarity[first]
    better = similarity > near[at]
    best[at[better]], near[at[better]] = found[better], similarity[better]


def nearest_among(sketches: Sketches, asked: Ints, known: Ints) -> tuple[Ints, Floats]:
    """Return for each asked text number its nearest near-duplicate among the sorted known numbers, itself included."""
    numbers, back = np.unique(asked, return_inverse=True)
    own = np.isin(numbers, known)
    match, near = np.where(own, numbers, -1), np.where(own, 1.0, 0.0)
    rows = np.concatenate([known, numbers[~own]])
    best, value = np.full(len(rows), -1, dtype=np.int64), np.zeros(len(rows), dtype=np.float64)
    for row, candidate in Buckets(sketches.bands[:, rows], known=len(known)).blocks():
        hit, similarity = sketches.verify(rows[candidate], rows[row])
        _improve(best, value, row[hit], rows[candidate[hit]], similarity)
    match[~own], near[~own] = best[len(known) :], value[len(known) :]
    return match[back.reshape(-1)], near[back.reshape(-1)]


def components(sketches: Sketches) -> Ints:
    """Label each sketched text with the component that it is in, any label; in large buckets only the unjoined meet."""
    labels = np.arange(len(sketches.folded), dtype=np.int64)
    buckets = Buckets(sketches.bands)
    pairs = buckets.blocks()
    if buckets.crowded():
        labels = _join_near(sketches, labels, *buckets.beside())  # every member of a bucket with the one before it
        pairs = _unjoined(buckets, labels)
    for a, b in pairs:
        labels = _join_near(sketches, labels, a, b)
    return labels


def _join_near(sketches: Sketches, labels: Ints, a: Ints, b: Ints) -> Ints:
    """Return the labels after joining the clusters of the pairs that are near-duplicates."""
    apart = np.flatnonzero(labels[a] != labels[b])
    a, b = a[apart], b[apart]
    likely = sketches.likely(a, b)
    a, b = a[likely], b[likely]
    for start in range(0, len(a), _STEP):  # in steps, since each join spares comparisons
        part = slice(start, start + _STEP)
        left, right = a[part], b[part]
        apart = np.flatnonzero(labels[left] != labels[right])
        left, right = left[apart], right[apart]
        near = sketches.exact(left, right) >= sketches.threshold
        labels = _join(labels, left[near], right[near])
    return labels


def _unjoined(buckets: Buckets, labels: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the pairs of the buckets whose labels differ, about _BUDGET of them at a time."""
    bucket, label = buckets.start, labels[buckets.member]
    mixed = np.zeros(len(bucket), dtype=bool)
    mixed[bucket[label != label[bucket]]] = True  # at the first place of every bucket that is not one cluster yet
    places = np.flatnonzero(mixed[bucket])
    order = places[np.lexsort((label[places], bucket[places]))]
    bucket, label, member = bucket[order], label[order], buckets.member[order]
    ends = np.searchsorted(bucket, bucket, side="right").astype(np.int64)
    changed = np.flatnonzero((np.diff(label) != 0) | (np.diff(bucket) != 0)) + 1
    bounds = np.append(changed, len(order))
    # From the end of a row's own cluster to the end of its bucket: the bucket's members that it is not joined to.
    own_end = bounds[np.searchsorted(bounds, np.arange(len(order)), side="right")].astype(np.int64)
    counts = ends - own_end
    for start, stop in _budgeted(counts):
        part = slice(start, stop)
        others = _runs(own_end[part], counts[part])
        yield _distinct(np.repeat(member[part], counts[part]), member[others])


def _join(labels: Ints, a: Ints, b: Ints) -> Ints:
    """Return the labels after joining the clusters of each pair."""
    if not len(a):
        return labels
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), dtype=np.int8), (labels[a], labels[b])), shape=(len(labels), len(labels)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[labels]  # type: ignore[no-any-return]  # scipy is untyped


def by_appearance(labels: Ints) -> Ints:
    """Renumber labels 0, 1, ... in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


# -------------------------------------------------------------------------------------------------------------- texts


def near_duplicate_pairs(
    texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int = SEED, progress: Progress | None = None
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
    check_threshold(threshold)
    distinct, inverse = unique([fold(text) for text in texts])
    sketches = sketch(distinct, threshold, seed=seed, progress=progress)
    own = np.arange(len(distinct), dtype=np.int64)
    a, b, near = pairs_among(sketches, own)
    # Every distinct text pairs with itself too, so that its copies pair with each other.
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
    texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int = SEED, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Label each text with its cluster: the texts reachable from it by a chain of near-duplicates.

    Labels count up from 0 in order of first appearance. Within a bucket only pairs that are not yet connected are
    compared, so that large groups of near-identical texts cost about as much as small ones.
    """
    check_threshold(threshold)
    distinct, inverse = unique([fold(text) for text in texts])
    sketches = sketch(distinct, threshold, seed=seed, progress=progress)
    return by_appearance(components(sketches)[inverse])


def nearest_reference(
    texts: Sequence[str],
    reference: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    seed: int = SEED,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Return for each text the position in reference of its nearest near-duplicate there, -1 where there is none."""
    return nearest_with_jaccard(texts, reference, threshold=threshold, seed=seed, progress=progress)[0]


def nearest_with_jaccard(
    texts: Sequence[str],
    reference: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    seed: int = SEED,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what ``nearest_reference`` does, and the exact similarity of each, 0 where there is none."""
    check_threshold(threshold)
    folded, inverse = unique([fold(text) for text in reference] + [fold(text) for text in texts])
    sketches = sketch(folded, threshold, seed=seed, progress=progress)
    known, first = np.unique(inverse[: len(reference)], return_index=True)
    match, near = nearest_among(sketches, inverse[len(reference) :], known)
    out = np.full(len(texts), -1, dtype=np.int64)
    hit = match >= 0
    out[hit] = first[np.searchsorted(known, match[hit])]
    return out, near
