"""Which benign prompts sit so near to attacks that a detector will confuse them: the hard negatives worth training on.

Takes benign, malicious and false-positive contract frames and an `Encode` callable. Gives the selected benign rows, a
review queue of "benign" rows that may be attacks, and a table of what each rule kept and dropped and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from crywolf.augment.dedup import deduplicate
from crywolf.data import EXTRA, SCHEMA, BadInput, Encode, Progress, check_corpus

from .config import MineConfig
from .index import Mask, Rows
from .near import ALONE, Floats, IndexPlan, IndexReport, Near, measure
from .rules import ENTRY_RULES, Table, diversify, enter, guard, table_of

_STEPS = 6  # of progress


@dataclass(frozen=True)
class Mined:
    """What mining leaves: the hard negatives and the account of the rest, in plain values, so that it can be read back.

    Attributes:
        frame: The hard negatives as contract rows: category "hard_negative", subcategory the threat type of what it was
            taken for or is near to, `how` the rule and its cosine, `extra.why_hard` a sentence. Source, ids and lineage
            are kept.
        table: One line a rule: rule, kept, dropped, why.
        index: Which index was searched, and the recall measured on it.
        advice: What to change if too few were found or much went to review; empty when all is well.
    """

    frame: pl.DataFrame
    table: pl.DataFrame
    index: IndexReport
    advice: tuple[str, ...]

    @classmethod
    def of(cls, frame: pl.DataFrame, summary: Mapping[str, Any]) -> Mined:
        """Put it together again from its rows and the `summary` of the result.

        Raises:
            KeyError: The summary lacks a part.
            TypeError: A part of it is of another shape.
        """
        index = IndexReport(**summary["index"])
        return cls(frame, table_of(summary["table"]), index, tuple(summary["advice"]))


@dataclass(frozen=True)
class MineResult(Mined):
    """What mining found.

    Attributes:
        review: Rows that may be attacks: contract rows as they came, with reason, score, nearest_id, nearest_text.
        similarities: For the selected rows, quantiles of the cosine to the nearest attack and to their own kind.
        config: The thresholds used.
    """

    review: pl.DataFrame
    similarities: dict[str, dict[str, float]]
    config: MineConfig

    def by_rule(self) -> dict[str, int]:
        """Return how many selected rows each rule brought in."""
        rules = self.frame["how"].str.extract(r"^mined:(\w+)")
        return {rule: int((rules == rule).sum()) for rule in ENTRY_RULES}

    def summary(self) -> dict[str, Any]:
        """Return all of it but the rows, in plain types, for the command line and the manifest."""
        reasons = self.review["reason"].value_counts(sort=True)
        return {
            "selected": self.frame.height,
            "review": self.review.height,
            "by_rule": self.by_rule(),
            "by_source": dict(self.frame["source"].value_counts(sort=True).iter_rows()),
            "by_threat_type": dict(self.frame["subcategory"].value_counts(sort=True).iter_rows()),
            "review_reasons": dict(reasons.iter_rows()),
            "table": self.table.to_dicts(),
            "similarities": self.similarities,
            "config": asdict(self.config),
            "index": asdict(self.index),
            "advice": list(self.advice),
        }


def mine_hard_negatives(
    benign: pl.DataFrame,
    malicious: pl.DataFrame,
    *,
    fps: pl.DataFrame | None = None,
    encode: Encode,
    config: MineConfig | None = None,
    rng: np.random.Generator | None = None,
    index: IndexPlan | None = None,
    progress: Progress | None = None,
) -> MineResult:
    """Select the benign rows nearest to attacks and false positives, and set aside those that may be attacks.

    Args:
        benign: Contract rows labelled BENIGN, the pool.
        malicious: Contract rows labelled MALICIOUS, the attacks.
        fps: Contract rows of false positives, labelled BENIGN. They are hard negatives themselves and propose their
            benign neighbours.
        encode: Texts to unit vectors.
        config: The thresholds.
        rng: Draws the rows when `config.pool` is set, and is needed then; also the rows on which an approximate index
            is measured.
        index: How the benign rows are indexed and where that is kept; None searches as suits their number.
        progress: Called with (steps done, steps).

    Returns:
        The selected rows, the review queue, and the table of rules.

    Raises:
        BadInput: A frame breaks the contract, has rows of the wrong label, or there is nothing to mine.
    """
    config = config or MineConfig()
    step = _Steps(progress)
    table = Table()
    pool = _gather(benign, malicious, fps, config, rng, table)
    step()
    attacks = deduplicate(malicious, threshold=config.duplicate_threshold).kept
    pool, duplicates = _without_duplicates(pool, attacks, malicious, config, table)
    step()
    near = measure(
        pool.frame["text"].to_list(),
        pool.fps,
        attacks["text"].to_list(),
        encode=encode,
        config=config,
        plan=index or IndexPlan(),
        rng=rng or np.random.default_rng(0),
        step=step,
    )
    by = enter(near, config, table)
    suspect = guard(near, by >= 0, config, table)
    chosen = diversify(near, by, np.flatnonzero((by >= 0) & ~suspect.mask), config, table)
    step()
    frame = _describe(pool.frame, near, by, chosen, attacks)
    review = pl.concat([duplicates, suspect.frame(pool.frame, near, attacks)]).sort("score", descending=True)
    table.add("selected", len(chosen), 0, "what is left")
    similarities = {
        "nearest_attack": _quantiles(near.attack[chosen]),
        "own_kind": _quantiles(near.own[chosen]),
    }
    advice = _advise(len(chosen), review.height, near, config, table)
    step()
    return MineResult(frame, table.frame(), near.index, advice, review, similarities, config)


# ------------------------------------------------------------------------------------------------------------- the pool


class _Steps:
    """Counts the steps of one run for a progress callback."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, _STEPS)


@dataclass(frozen=True)
class _Pool:
    """The benign rows under consideration, false positives first."""

    frame: pl.DataFrame
    fps: int

    @property
    def is_fp(self) -> Mask:
        return np.arange(self.frame.height) < self.fps


def _gather(
    benign: pl.DataFrame,
    malicious: pl.DataFrame,
    fps: pl.DataFrame | None,
    config: MineConfig,
    rng: np.random.Generator | None,
    table: Table,
) -> _Pool:
    """Check the inputs and put false positives and benign rows into one frame."""
    for name, frame, label in (
        ("benign", benign, "BENIGN"),
        ("malicious", malicious, "MALICIOUS"),
        ("fps", fps, "BENIGN"),
    ):
        if frame is not None:
            _check_frame(name, frame, label)
    if not malicious.height:
        raise BadInput("malicious has no rows: hard negatives are what is near to attacks; give some attacks")
    rows = benign.height + (0 if fps is None else fps.height)
    if not rows:
        raise BadInput("benign has no rows and there are no false positives: nothing to mine")
    table.add("input", rows, 0, "benign rows and false positives given")
    if config.pool is not None and config.pool < benign.height:
        if rng is None:
            raise BadInput("mining option pool draws rows at random: pass rng, or leave pool out")
        drawn = np.sort(rng.choice(benign.height, size=config.pool, replace=False))
        table.add("pool", rows - benign.height + config.pool, benign.height - config.pool, "not drawn (pool)")
        benign = benign[drawn]
    if fps is None:
        return _Pool(benign, 0)
    return _Pool(pl.concat([fps, benign]), fps.height)


def _check_frame(name: str, frame: pl.DataFrame, label: str) -> None:
    try:
        check_corpus(frame)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    wrong = int((frame["label"] != label).sum())
    if wrong:
        raise BadInput(f"{name} has {wrong} rows that are not labelled {label}; filter by label first")


def _without_duplicates(
    pool: _Pool, attacks: pl.DataFrame, malicious: pl.DataFrame, config: MineConfig, table: Table
) -> tuple[_Pool, pl.DataFrame]:
    """Drop repeated rows; those that repeat an attack are review rows, returned apart."""
    own = pool.frame.with_columns(pl.Series("_fp", pool.is_fp))
    result = deduplicate(own, against=[("attack", attacks)], threshold=config.duplicate_threshold)
    fps = int(result.kept["_fp"].sum())
    of_attack = result.dropped.filter(pl.col("reason") == "duplicate_of:attack")
    texts = malicious.unique("id").select(pl.col("id").alias("match_id"), pl.col("text").alias("nearest_text"))
    review = of_attack.join(texts, on="match_id", how="left").select(
        *SCHEMA,
        pl.lit("near_duplicate_of_attack").alias("reason"),
        pl.col("jaccard").alias("score"),
        pl.col("match_id").alias("nearest_id"),
        "nearest_text",
    )
    left = pool.frame.height - of_attack.height
    threshold = f"Jaccard >= {config.duplicate_threshold:g}"
    table.add("near_duplicate_of_attack", left, of_attack.height, f"the text of an attack, {threshold}: to review")
    table.add(
        "duplicate", result.kept.height, left - result.kept.height, f"repeats an earlier row or an FP, {threshold}"
    )
    return _Pool(result.kept.drop("_fp"), fps), review


# --------------------------------------------------------------------------------------------------------------- output


def _describe(pool: pl.DataFrame, near: Near, by: Rows, chosen: Rows, attacks: pl.DataFrame) -> pl.DataFrame:
    """Return the chosen rows with what they are and why, in contract columns."""
    rows = pool[chosen]
    nearest = attacks[near.attack_row[chosen]]
    anchor = pool[np.maximum(near.fp_row[chosen], 0)]
    notes = pl.DataFrame(
        {
            "_rule": pl.Series([ENTRY_RULES[rule] for rule in by[chosen]], dtype=pl.String),
            "_cos": near.attack[chosen].round(3),
            "_own": near.own[chosen].round(3),
            "_attack": nearest["id"],
            "_threat": nearest["threat_type"].cast(pl.String).fill_null("unknown"),
            "_fp": near.fp[chosen].round(3),
            "_fp_id": anchor["id"],
            "_fp_threat": anchor["threat_type"].cast(pl.String),
        }
    )
    by_fp, is_fp = pl.col("_rule") == "fp_neighbour", pl.col("_rule") == "fp"
    was = pl.concat_str(pl.col("category"), pl.col("subcategory"), separator="/", ignore_nulls=True)
    why = pl.concat_str(
        pl.when(by_fp).then(pl.format("false positive {} at cosine {}; ", "_fp_id", "_fp")).otherwise(pl.lit("")),
        pl.format("nearest attack {} ({}) at cosine {}", "_attack", "_threat", "_cos"),
        pl.when(pl.col("_own") > ALONE).then(pl.format("; its own kind at {}", "_own")).otherwise(pl.lit("")),
        pl.when(was != "").then(pl.format("; was {}", was)).otherwise(pl.lit("")),
    )
    # What a detector took it, or the false positive next to it, for says more than an attack that may be far.
    taken_for = pl.when(is_fp).then(pl.col("threat_type").cast(pl.String)).when(by_fp).then("_fp_threat")
    extra = [
        why.alias(part.name) if part.name == "why_hard" else pl.col("extra").struct.field(part.name).alias(part.name)
        for part in EXTRA.fields
    ]
    described = pl.concat([rows, notes], how="horizontal").with_columns(
        pl.lit("hard_negative").alias("category"),
        pl.coalesce(taken_for, "_threat").alias("subcategory"),
        pl.format("mined:{} cos={}", "_rule", pl.when(by_fp).then("_fp").otherwise("_cos")).alias("how"),
        pl.struct(extra).cast(EXTRA).alias("extra"),
    )
    return check_corpus(described.select(*SCHEMA))


def _quantiles(values: Floats) -> dict[str, float]:
    """Return least, quartiles and greatest, rounded; nothing for no values."""
    if not len(values):
        return {}
    return dict(
        zip(
            ("min", "q25", "median", "q75", "max"),
            (round(float(value), 4) for value in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])),
            strict=True,
        )
    )


def _advise(selected: int, review: int, near: Near, config: MineConfig, table: Table) -> tuple[str, ...]:
    """Return what to change: the option of the rule that dropped most, with a value that would have helped."""
    advice: list[str] = []
    if selected < config.wanted and (config.limit is None or selected < config.limit):
        advice.append(f"{selected} hard negatives found, {config.wanted} wanted")
        advice.extend(_too_few(near, config, table))
    if review > max(selected, 20):
        advice.append(
            f"{review} rows went to review, more than were selected ({selected}): look at the first of them; if they "
            f"are benign, raise guard_similarity ({config.guard_similarity:g}), guard_floor ({config.guard_floor:g}) "
            f"and foreign_margin ({config.foreign_margin:g}); if they are attacks, clean the benign set"
        )
    return tuple(advice)


def _too_few(near: Near, config: MineConfig, table: Table) -> Sequence[str]:
    """Return one sentence for each rule that dropped enough to matter, the greatest first."""
    reach = np.sort(near.attack[~near.is_fp])[::-1][: config.wanted]
    lower = f"to about {reach[-1]:.2f}" if len(reach) and reach[-1] < config.min_similarity else "a little"
    suggestions = {
        "attack_neighbour": f"lower min_similarity (--min-cosine, {config.min_similarity:g}) {lower}, or raise "
        f"proposed_margin ({config.proposed_margin:g}): rows next to an attack were left out",
        "fp_neighbour": f"lower fp_similarity ({config.fp_similarity:g}) or raise benign_margin "
        f"({config.benign_margin:g}): rows next to an FP were left out",
        "nearest_attack": f"raise neighbours (--per-anchor, {config.neighbours}) or benign_margin "
        f"({config.benign_margin:g}): rows near an attack, but in the midst of their own kind, were left out",
        "alike": f"raise alike ({config.alike:g}): rows near to a selected one were left out",
        "per_neighbourhood": f"raise per_neighbourhood (--per-anchor, {config.per_neighbourhood}): attacks had more "
        "neighbours",
        "pool": f"raise pool ({config.pool}), or leave it out: benign rows were not looked at",
        "duplicate": "give a benign set with more distinct rows: repeated ones were dropped",
    }
    dropped = sorted(((table.dropped(rule), rule) for rule in suggestions), reverse=True)
    told = [f"{suggestions[rule]} ({count} rows)" for count, rule in dropped if count]
    return told or ["give more benign rows: no rule dropped any"]
