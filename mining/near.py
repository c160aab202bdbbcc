"""How near each benign row is to attacks, to its own kind and to false positives: what the rules of mining look at.

Takes texts, an `Encode` callable and thresholds, gives a `Near` of arrays, one value a row. The index of the benign
rows can be kept on disk and used again: new rows are added, and an index that holds rows which are gone is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crywolf.data import Encode

from .cache import cache_ids
from .config import MineConfig
from .index import EXACT_ROWS, Asked, Ids, Mask, Rows, VectorIndex, Vectors, build_index, load_index
from .memory import give_back

Floats = NDArray[np.float64]

ALONE = -1.0  # the cosine to its own kind of a row that has none
_BLOCK = 8192  # rows asked at once


@dataclass(frozen=True)
class IndexPlan:
    """How the benign rows are indexed.

    Attributes:
        path: Where the index is kept and found again; None keeps nothing.
        kind: Which index; "auto" goes by the number of rows.
        float16: Keep the index's rows in half precision.
        encoder: Says what the vectors are made with, asked once they are made; a kept index of another is refused.
    """

    path: Path | None = None
    kind: Asked = "auto"
    float16: bool = False
    encoder: Callable[[], str] = lambda: "unnamed"


@dataclass(frozen=True)
class IndexReport:
    """Which index was searched, and how well it finds.

    Attributes:
        kind: exact, ivf or hnsw.
        float16: Whether its rows are in half precision.
        rows: How many it holds.
        origin: "built", "reused", "grown" by new rows, or "rebuilt", for it held rows that are gone or is another kind.
        k: The neighbours asked for.
        recall: Share of sampled rows' k exact neighbours that it finds; 1 for exact search.
    """

    kind: str
    float16: bool
    rows: int
    origin: str
    k: int
    recall: float


@dataclass(frozen=True)
class Near:
    """What is known of each pool row: how near the attacks, its own kind and the false positives are.

    `own`, `nearest` and `attack_own` are only filled where a rule asks for them (rows near an attack or an FP); -1
    stands for "no such row".
    """

    attack: Floats  # cosine to the nearest attack
    attack_row: Rows
    own: Floats  # mean cosine to the nearest rows of its own class
    nearest: Floats  # cosine to the nearest of these
    attack_own: Floats  # the same of its nearest attack
    fp: Floats  # cosine to the nearest false positive that proposes it, -1 for none
    fp_row: Rows
    proposed: Mask  # by an attack, as one of its nearest benign rows
    is_fp: Mask
    vectors: NDArray[np.float32]
    index: IndexReport


def measure(
    texts: list[str],
    fps: int,
    attacks: list[str],
    *,
    encode: Encode,
    config: MineConfig,
    plan: IndexPlan,
    rng: np.random.Generator,
    step: Callable[[], None],
) -> Near:
    """Embed everything and search both ways; the first `fps` texts are the false positives."""
    give_back()  # what finding duplicates left
    vectors = encode(texts)
    step()
    attack_vectors = encode(attacks)
    step()
    give_back()
    rows = len(vectors)
    is_fp = np.arange(rows) < fps
    if not rows:
        empty, none = np.empty(0), np.empty(0, dtype=np.int64)
        report = IndexReport("exact", False, 0, "built", 0, 1.0)
        return Near(empty, none, empty, empty, empty, empty, none, none.astype(bool), is_fp, vectors, report)
    attack_index = build_index(attack_vectors)
    scores, ids = attack_index.search(vectors, 1)
    attack, attack_row = scores[:, 0].astype(np.float64), ids[:, 0]
    pool = open_pool(vectors, cache_ids(texts), plan, config.own_neighbours + 1, rng)
    proposed = np.zeros(rows, dtype=bool)
    # False positives take no place among an attack's neighbours: they come in by a rule of their own.
    named = pool.search(attack_vectors, config.neighbours, among=~is_fp)[1].ravel()
    proposed[named[named >= 0]] = True
    fp, fp_row = _proposing_fp(pool, vectors, is_fp, config.fp_neighbours)
    asked = np.flatnonzero((attack >= config.min_similarity) | (fp >= config.fp_similarity) | is_fp)
    own, nearest = np.full(rows, ALONE), np.full(rows, ALONE)
    own[asked], nearest[asked] = _own_kind(pool, vectors, asked, config.own_neighbours)
    attack_pool = PoolIndex(attack_index, None, pool.report)
    attack_own, _ = _own_kind(attack_pool, attack_vectors, np.arange(len(attacks)), config.own_neighbours)
    of_attack = attack_own[attack_row]
    return Near(attack, attack_row, own, nearest, of_attack, fp, fp_row, proposed, is_fp, vectors, pool.report)


@dataclass(frozen=True)
class PoolIndex:
    """An index whose row numbers are those of the pool, whatever order it was made in."""

    index: VectorIndex
    order: Rows | None
    report: IndexReport

    def search(self, queries: Vectors, k: int, among: Mask | None = None) -> tuple[Vectors, Rows]:
        """Return scores and pool rows of each query's k nearest among some; -1 where fewer were found."""
        if self.order is None:
            return self.index.search(queries, k, among)
        scores, ids = self.index.search(queries, k, None if among is None else among[self.order])
        return scores, np.where(ids < 0, -1, self.order[ids])


def open_pool(vectors: Vectors, ids: Ids, plan: IndexPlan, k: int, rng: np.random.Generator) -> PoolIndex:
    """Return the index over the pool's rows: the kept one, grown by what is new, or a new one."""
    index, order, origin = None, None, "built"
    if plan.path is not None and plan.path.exists():
        index, order, origin = _kept(vectors, ids, plan)
    if index is None:
        index = build_index(vectors, kind=plan.kind, float16=plan.float16)
    recall = index.tune(vectors, k, rng, order=order)
    if plan.path is not None and origin != "reused":
        index.save(plan.path, encoder=plan.encoder(), ids=ids if order is None else ids[order], force=True)
    report = IndexReport(index.kind, index.float16, len(index), origin, k, recall)
    return PoolIndex(index, order, report)


def _kept(vectors: Vectors, ids: Ids, plan: IndexPlan) -> tuple[VectorIndex | None, Rows | None, str]:
    """Return the kept index with the pool row of each of its rows, and how it came; None if it must be made anew."""
    assert plan.path is not None  # noqa: S101  # there is a file
    index, known = load_index(plan.path, encoder=plan.encoder())
    ordered = np.argsort(ids, kind="stable")
    place = ordered[np.minimum(np.searchsorted(ids, known, sorter=ordered), len(ids) - 1)]
    if not (_suits(index, plan, len(ids)) and np.array_equal(ids[place], known)):
        return None, None, "rebuilt"
    fresh = np.flatnonzero(~np.isin(ids, known))
    if not len(fresh):
        return index, place, "reused"
    index, _ = load_index(plan.path, encoder=plan.encoder(), writable=True)
    for start in range(0, len(fresh), _BLOCK):
        index.add(vectors[fresh[start : start + _BLOCK]])
    return index, np.concatenate([place, fresh]), "grown"


def _suits(index: VectorIndex, plan: IndexPlan, rows: int) -> bool:
    """Return whether a kept index is of the kind that the plan asks for."""
    if plan.kind == "auto":
        return (index.kind != "exact" or rows <= EXACT_ROWS) and index.float16 >= plan.float16
    return index.kind == plan.kind and index.float16 == plan.float16


def _proposing_fp(pool: PoolIndex, vectors: Vectors, is_fp: Mask, k: int) -> tuple[Floats, Rows]:
    """Return for each row the cosine and number of the nearest false positive that proposes it, -1 for none."""
    best, row = np.full(len(vectors), -1.0), np.full(len(vectors), -1, dtype=np.int64)
    if not is_fp.any():
        return best, row
    scores, ids = pool.search(vectors[: int(is_fp.sum())], k, among=~is_fp)
    anchors = np.repeat(np.arange(len(ids), dtype=np.int64), ids.shape[1])
    flat, proposed = scores.ravel(), ids.ravel()
    found = np.flatnonzero(proposed >= 0)
    order = found[np.argsort(flat[found], kind="stable")]  # the greatest is written last and stays
    best[proposed[order]], row[proposed[order]] = flat[order], anchors[order]
    return best, row


def _own_kind(pool: PoolIndex, vectors: Vectors, asked: Rows, k: int) -> tuple[Floats, Floats]:
    """Return each asked row's mean and greatest cosine to its k nearest other rows of the index; -1 if it is alone."""
    mean, nearest = np.full(len(asked), ALONE), np.full(len(asked), ALONE)
    for start in range(0, len(asked), _BLOCK):
        part = asked[start : start + _BLOCK]
        scores, ids = pool.search(vectors[part], k + 1)
        other = ids != part[:, None]
        # With many equal vectors a row may be missing from its own neighbours; then the last one is left out instead.
        other[other.all(axis=1), -1] = False
        other &= ids >= 0
        count = other.sum(axis=1)
        total = np.where(other, scores, 0.0).sum(axis=1)
        mean[start : start + _BLOCK] = np.where(count > 0, total / np.maximum(count, 1), ALONE)
        nearest[start : start + _BLOCK] = np.where(other, scores, ALONE).max(axis=1, initial=ALONE)
    return mean, nearest
