"""Contract frames without their near-duplicates: what is kept, what is dropped, and why.

It takes a frame with ``id`` and ``text``, and references that win over it, and gives a ``DedupResult`` whose dropped
rows say what they repeat and how closely. Which row of a group stays is a keep rule: the first, or the one with the
shortest lineage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress

from .pairs import components, greedy, nearest_among
from .sketch import SEED, THRESHOLD, Floats, Ints, Sketches, check_threshold, fold, sketch, unique

Keep: TypeAlias = Literal["first", "original"]
"""Which of two near-duplicates stays: the one that stands first; or the one of the shorter lineage, then the first."""

GROWN_SOURCE = "augmented"
_MOST_STEPS = 1 << 20  # a lineage that runs in a circle has this many
_DOUBLINGS = 20


@dataclass(frozen=True)
class DedupResult:
    """What deduplication kept and dropped; every dropped row says why.

    Attributes:
        kept: The rows kept, in their order and with their columns. No two are near-duplicates.
        dropped: The others, with ``reason`` ("duplicate_within", "chain_within", or "duplicate_of:<name>"),
            ``match_id`` (the id of the kept row, or of the row of that reference, that it repeats) and ``jaccard`` (1.0
            for an exact copy; under the threshold for a chain_within, which repeats the kept row through others).
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

    def by_reason(self) -> dict[str, int]:
        """Return the number of rows dropped for each reason."""
        counts = self.dropped.group_by("reason").len().sort("reason")
        return dict(zip(counts["reason"].to_list(), counts["len"].to_list(), strict=True))


def lineage(frame: pl.DataFrame) -> NDArray[np.int64]:
    """Return how many steps of growing each row is from an original: 0 for an original.

    A row with an ``origin_id`` is one step further than the row of that id, which counts as an original where the frame
    does not hold it; a row of source "augmented", or with a ``how``, that names no origin is one step. A row that names
    itself is an original, and a lineage that runs in a circle is longer than any other.

    Args:
        frame: Rows with ``id`` and, where there are any, ``origin_id``, ``how`` and ``source``.
    """
    grown = pl.lit(value=False)
    if "source" in frame.columns:
        grown |= pl.col("source").cast(pl.String).fill_null("") == GROWN_SOURCE
    if "how" in frame.columns:
        grown |= pl.col("how").is_not_null()
    if "origin_id" not in frame.columns:
        frame = frame.with_columns(origin_id=pl.lit(None, pl.String))
    other = pl.col("origin_id").is_not_null() & (pl.col("origin_id") != pl.col("id"))
    itself = (pl.col("origin_id") == pl.col("id")).fill_null(value=False)
    steps = frame.select(((grown & ~itself) | other).cast(pl.Int64)).to_series().to_numpy().copy()
    places = frame.select("id").with_row_index("_parent").unique("id", keep="first")
    origins = frame.select(origin=pl.when(other).then(pl.col("origin_id")))
    parents = origins.join(places, left_on="origin", right_on="id", how="left", maintain_order="left")["_parent"]
    parent = parents.cast(pl.Int64).fill_null(-1).to_numpy().copy()
    # Pointer doubling: each pass adds what the ancestor reached so far has, and doubles the reach. In a circle it goes
    # on to the last pass, and to the most steps.
    for _ in range(_DOUBLINGS):
        has = parent >= 0
        if not has.any():
            break
        steps[has] = np.minimum(steps[has] + steps[parent[has]], _MOST_STEPS)
        parent[has] = parent[parent[has]]
    return steps


def deduplicate(
    frame: pl.DataFrame,
    *,
    against: Sequence[tuple[str, pl.DataFrame]] = (),
    threshold: float = THRESHOLD,
    keep: Keep = "first",
    chains: bool = False,
    seed: int = SEED,
    progress: Progress | None = None,
) -> DedupResult:
    """Drop rows that repeat a row of a reference frame, or a row of their own frame that comes before them.

    Args:
        frame: Rows with ``id`` and ``text``; other columns are carried.
        against: (name, frame) references with ``id`` and ``text``, e.g. the originals and every holdout. The first
            reference that a row repeats is its reason; references are not changed.
        threshold: The least Jaccard similarity of a near-duplicate.
        keep: "first": rows come before others as they stand; "original": rows with a shorter ``lineage`` come first.
        chains: Keep one row of every connected component: rows that reach a kept one only through other near-duplicates
            are dropped too. Without it a row goes only if it is itself a near-duplicate of a kept row.
        seed: Chooses the MinHash permutations.
        progress: Called with (distinct texts signed, distinct texts).

    Returns:
        The kept and the dropped rows. No two kept rows, and no kept row and reference row, are near-duplicates, but
        for pairs that banding misses: about 5 in 100 million of those exactly at 0.8, fewer above.

    Raises:
        BadInput: the threshold is not in (0, 1], or a frame lacks an id or a text.
    """
    check_threshold(threshold)
    need_columns(frame, "the frame to deduplicate")
    for name, reference in against:
        need_columns(reference, f"the reference {name!r}")
    # The folding is Python's own: str.lower and str.split are the definition that shingles() uses.
    parts = [[fold(text) for text in part["text"]] for part in (*(reference for _, reference in against), frame)]
    distinct, inverse = unique([text for part in parts for text in part])
    sketches = sketch(distinct, threshold, seed=seed, progress=progress)
    bounds = np.cumsum([0] + [len(part) for part in parts])
    numbers = [inverse[lo:hi] for lo, hi in pairwise(bounds)]
    verdict = _Verdict.undecided(frame.height)
    for (name, reference), known in zip(against, numbers[:-1], strict=True):
        verdict.match_reference(name, reference, known, numbers[-1], sketches)
    first = np.zeros(frame.height, dtype=np.int64) if keep == "first" else lineage(frame)
    verdict.match_within(frame, numbers[-1], sketches, np.argsort(first, kind="stable").astype(np.int64), chains)
    return verdict.split(frame, threshold)


def need_columns(frame: pl.DataFrame, what: str) -> None:
    """Refuse a frame without ids or texts.

    Raises:
        BadInput: a column is missing, or a text is.
    """
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

    def _open(self) -> NDArray[np.bool_]:
        return np.asarray(self.reason == None)  # noqa: E711  elementwise on an object array

    def match_reference(self, name: str, reference: pl.DataFrame, known: Ints, own: Ints, sketches: Sketches) -> None:
        """Drop open rows that repeat a row of the reference."""
        rows = np.flatnonzero(self._open())
        if not len(rows) or not len(known):
            return
        present, first = np.unique(known, return_index=True)
        match, near = nearest_among(sketches, own[rows], present)
        hit = match >= 0
        ids = reference["id"].to_numpy()[first[np.searchsorted(present, match[hit])]]
        self.reason[rows[hit]] = f"duplicate_of:{name}"
        self.match_id[rows[hit]], self.jaccard[rows[hit]] = ids, near[hit]

    def match_within(self, frame: pl.DataFrame, own: Ints, sketches: Sketches, order: Ints, chains: bool) -> None:
        """Drop open rows that repeat a kept row which comes before them in the order given."""
        rows = order[self._open()[order]]
        if not len(rows):
            return
        present, first, back = np.unique(own[rows], return_index=True, return_inverse=True)
        ranked = np.argsort(first, kind="stable")  # distinct texts in the order of their first open row
        match, near = np.full(len(present), -1, dtype=np.int64), np.zeros(len(present))
        decide = _one_of_each_component if chains else greedy
        match[ranked], near[ranked] = decide(sketches, present[ranked])
        back = back.reshape(-1)
        keeper = np.where(match >= 0, match, present)[back]  # the kept text that each row stands behind
        keeper_row = rows[first[np.searchsorted(present, keeper)]]
        drop = rows != keeper_row
        value = np.where(match >= 0, near, 1.0)[back][drop]
        ids = frame["id"].to_numpy()
        self.reason[rows[drop]] = np.where(value >= sketches.threshold, "duplicate_within", "chain_within")
        self.match_id[rows[drop]] = ids[keeper_row[drop]]
        self.jaccard[rows[drop]] = value

    def split(self, frame: pl.DataFrame, threshold: float) -> DedupResult:
        """Return the result: rows without a reason are kept."""
        keep = pl.Series(self._open())
        explained = frame.with_columns(
            pl.Series("reason", self.reason.tolist(), dtype=pl.String),
            pl.Series("match_id", self.match_id.tolist(), dtype=pl.String),
            pl.Series("jaccard", self.jaccard, dtype=pl.Float64),
        )
        return DedupResult(frame.filter(keep), explained.filter(~keep), threshold)


def _one_of_each_component(sketches: Sketches, rows: Ints) -> tuple[Ints, Floats]:
    """Return what ``greedy`` does, for one kept row to a connected component of the rows: its first."""
    among = sketches.only(rows)
    _, first, back = np.unique(components(among), return_index=True, return_inverse=True)
    keeper = first[back.reshape(-1)].astype(np.int64)
    match, near = np.full(len(rows), -1, dtype=np.int64), np.zeros(len(rows), dtype=np.float64)
    behind = np.flatnonzero(keeper != np.arange(len(rows)))
    match[behind], near[behind] = rows[keeper[behind]], among.exact(keeper[behind], behind.astype(np.int64))
    return match, near
