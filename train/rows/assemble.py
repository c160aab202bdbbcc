"""The training set from its three parts: originals, grown rows and mined hard negatives.

Takes contract frames and gives one, with a table that says how many rows of each source and category were kept and why
the others were not. A grown row whose origin is held out is refused; one that merely resembles a held-out row is
dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from crywolf.data import BadInput, check_corpus, empty_corpus

KEPT = "kept"
LENT = "in originals, weight raised"
_IN_ORIGINALS = "already in originals"
TIERS = ("hard negatives", "programming", "educational", "generic")
"""Who is kept first when the budget is short."""

_TIER_OF = {"hard_negative": 0, "legitimate_programming": 1, "legitimate_educational": 2}


@dataclass(frozen=True)
class Assembly:
    """A training set and the account of its making.

    Attributes:
        frame: Contract rows, sorted by id.
        table: One row for each part, source, category and outcome (`kept` or the reason), with its number of rows.
        notes: What a reader should know, such as a budget that the hard negatives alone exceed.
    """

    frame: pl.DataFrame
    table: pl.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> dict[str, int]:
        """Rows kept by part."""
        return self._sum(pl.col("outcome") == KEPT, "part")

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped by reason."""
        return self._sum(~pl.col("outcome").is_in([KEPT, LENT]), "outcome")

    @property
    def lent(self) -> int:
        """Hard negatives that are originals already and raised their weight."""
        return int(self.table.filter(pl.col("outcome") == LENT)["rows"].sum())

    def _sum(self, condition: pl.Expr, by: str) -> dict[str, int]:
        counts = self.table.filter(condition).group_by(by).agg(pl.col("rows").sum()).sort(by)
        return dict(counts.select(by, "rows").iter_rows())


def assemble(
    originals: pl.DataFrame,
    augmented: pl.DataFrame | None = None,
    hard_negatives: pl.DataFrame | None = None,
    *,
    budget: int | None = None,
    holdouts: Sequence[tuple[str, pl.DataFrame]] = (),
    threshold: float = 0.8,
    rng: np.random.Generator,
) -> Assembly:
    """Join the parts of a training set.

    A hard negative that is an original already lends it its weight, where that is the larger. Rows are dropped in this
    order: a text that two originals label differently (both), a text that an earlier part has (originals over hard
    negatives over augmented), a near-duplicate of a held-out row, and what the budget cannot
    hold. The budget keeps all hard negatives (mined ones and near-miss twins) even if they alone exceed it, then
    programming rows, then educational ones, and samples the rest. Where a tier has to be sampled, every origin keeps
    its share, so that no false positive loses all of its variations.

    Args:
        originals: The training fold.
        augmented: Rows grown from the training fold's FPs.
        hard_negatives: Mined rows.
        budget: The most rows of augmented and hard negatives together; None keeps all.
        holdouts: Names and frames that training must not resemble: validation, test, suites.
        threshold: Jaccard similarity from which two texts are near-duplicates.
        rng: Samples within the budget.

    Raises:
        BadInput: If a grown row's origin is in a holdout (it was grown from what it shall be tested on), if the budget
            is negative, or a frame is no contract frame.
    """
    if budget is not None and budget < 0:
        raise BadInput(f"assemble: the budget is {budget}; it must be 0 or more")
    parts = {"original": originals, "hard_negative": hard_negatives, "augmented": augmented}
    rows = pl.concat(
        [
            check_corpus(empty_corpus() if frame is None else frame).with_columns(pl.lit(name).alias("part"))
            for name, frame in parts.items()
        ]
    ).with_columns(pl.lit(None, dtype=pl.String).alias("why"))
    _refuse_leaks(rows, holdouts)
    rows = _lend_weight(_mark_duplicates(rows))
    rows = _mark_near_holdouts(rows, holdouts, threshold)
    rows, notes = _mark_over_budget(rows, budget, rng)
    kept = rows.filter(pl.col("why").is_null()).drop("part", "why").sort("id")
    return Assembly(frame=check_corpus(kept), table=_table(rows), notes=tuple(notes))


def _refuse_leaks(rows: pl.DataFrame, holdouts: Sequence[tuple[str, pl.DataFrame]]) -> None:
    grown = rows.filter(pl.col("origin_id").is_not_null())
    for name, frame in holdouts:
        leaks = grown.filter(pl.col("origin_id").is_in(frame["id"].implode()))
        if leaks.height:
            raise BadInput(
                f"assemble: {leaks.height} grown rows come from rows of {name} (the first: {leaks['id'][0]} from "
                f"{leaks['origin_id'][0]}); grow from the training fold's false positives only"
            )


def _mark(rows: pl.DataFrame, condition: pl.Expr | pl.Series, why: str) -> pl.DataFrame:
    """Write the reason into rows that have none yet."""
    return rows.with_columns(why=pl.when(pl.col("why").is_null() & condition).then(pl.lit(why)).otherwise("why"))


def _mark_duplicates(rows: pl.DataFrame) -> pl.DataFrame:
    original = pl.col("part") == "original"
    labels = pl.col("label").cast(pl.String)
    quarrel = (labels.filter(original).n_unique() > 1).over("id")
    rows = _mark(rows, original & quarrel, "two originals label this text differently")
    # A benign row that repeats an attack's text is no benign row, whatever grew it.
    against = (labels.filter(original).first() != labels).over("id")
    rows = _mark(rows, ~original & against.fill_null(value=False), "an original labels this text differently")
    in_originals = original.any().over("id")
    rows = _mark(rows, ~original & in_originals, _IN_ORIGINALS)
    # Parts are stacked in the order of precedence, so the first row of an id is the one to keep.
    return _mark(rows, ~pl.col("id").is_first_distinct(), "duplicate text")


def _lend_weight(rows: pl.DataFrame) -> pl.DataFrame:
    """Give an original the weight of the hard negative that repeats it: mined from training data, it is there to press.

    Such a hard negative is accounted for as lent rather than dropped for nothing.
    """
    lent = rows.filter((pl.col("part") == "hard_negative") & (pl.col("why") == _IN_ORIGINALS))
    weights = lent.group_by("id").agg(lent=pl.col("weight").max())
    rows = rows.join(weights, on="id", how="left", maintain_order="left")
    raised = pl.max_horizontal("weight", "lent")
    rows = rows.with_columns(weight=pl.when(pl.col("part") == "original").then(raised).otherwise("weight"))
    return rows.with_columns(
        why=pl.when((pl.col("part") == "hard_negative") & (pl.col("why") == _IN_ORIGINALS))
        .then(pl.lit(LENT))
        .otherwise("why")
    ).drop("lent")


def _mark_near_holdouts(
    rows: pl.DataFrame, holdouts: Sequence[tuple[str, pl.DataFrame]], threshold: float
) -> pl.DataFrame:
    from crywolf.augment.dedup import nearest_reference

    for name, frame in holdouts:
        left = rows.with_row_index("at").filter(pl.col("why").is_null())
        if not left.height or not frame.height:
            continue
        match = nearest_reference(left["text"].to_list(), frame["text"].to_list(), threshold=threshold)
        near = np.zeros(rows.height, dtype=np.bool_)
        near[left["at"].to_numpy()[np.asarray(match) >= 0]] = True
        rows = _mark(rows, pl.Series(near), f"near-duplicate of {name}")
    return rows


def _mark_over_budget(
    rows: pl.DataFrame, budget: int | None, rng: np.random.Generator
) -> tuple[pl.DataFrame, list[str]]:
    if budget is None:
        return rows, []
    generic = len(TIERS) - 1
    by_category = pl.col("category").replace_strict(_TIER_OF, default=generic, return_dtype=pl.Int64).fill_null(generic)
    tier = pl.when(pl.col("part") == "hard_negative").then(0).otherwise(by_category)
    grown = (
        rows.with_row_index("at")
        .filter(pl.col("why").is_null() & (pl.col("part") != "original"))
        # By id first: whom the generator picks must not depend on the order of the rows.
        .sort("id")
        .with_columns(tier=tier, luck=pl.Series(rng.random(_count_grown(rows)), dtype=pl.Float64))
        .with_columns(turn=pl.col("luck").rank("ordinal").over("tier", pl.col("origin_id").fill_null(pl.col("id"))))
        .sort("tier", "turn", "luck")
    )
    hard = grown.filter(pl.col("tier") == 0).height
    over = grown["at"].to_numpy()[max(budget, hard) :]
    mask = np.zeros(rows.height, dtype=np.bool_)
    mask[over] = True
    notes = []
    if hard > budget:
        notes.append(
            f"{hard:,} hard negatives exceed the budget of {budget:,}: all of them are kept, no other grown row is"
        )
    return _mark(rows, pl.Series(mask), "over budget"), notes


def _count_grown(rows: pl.DataFrame) -> int:
    return rows.filter(pl.col("why").is_null() & (pl.col("part") != "original")).height


def _table(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.with_columns(outcome=pl.col("why").fill_null(KEPT))
        .group_by("part", "source", "category", "outcome")
        .agg(pl.len().cast(pl.Int64).alias("rows"))
        .sort("part", "source", "category", "outcome", nulls_last=True)
    )
