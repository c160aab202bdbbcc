"""Which benign prompts sit so near to attacks that a detector will confuse them: the hard negatives worth training on.

Takes benign, malicious and false-positive contract frames and an `Encode` callable. Gives the selected benign rows, a
review queue of "benign" rows that may be attacks, and a table of what each rule kept and dropped and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.augment.dedup import deduplicate
from crywolf.data import EXTRA, SCHEMA, BadInput, Encode, Progress, check_corpus

from .index import build_index, pairs_above, search

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# The rules by which a row enters, the first one that holds naming it.
ENTRY_RULES = ("fp", "fp_neighbour", "attack_neighbour", "nearest_attack")
REVIEW_COLUMNS: dict[str, pl.DataType] = {
    **SCHEMA,
    "reason": pl.String(),
    "score": pl.Float64(),
    "nearest_id": pl.String(),
    "nearest_text": pl.String(),
}
_TABLE = {"rule": pl.String(), "kept": pl.Int64(), "dropped": pl.Int64(), "why": pl.String()}
_STEPS = 6  # of progress
_ALONE = -1.0  # the cosine to its own kind of a row that has none


@dataclass(frozen=True)
class MineConfig:
    """Every threshold of mining; similarities are cosines of the encoder's unit vectors.

    The defaults were set on all-MiniLM-L6-v2 by reading what they select; another encoder has another scale.

    Attributes:
        neighbours: How many of its nearest benign rows each attack proposes.
        fp_neighbours: How many of its nearest benign rows each false positive proposes.
        min_similarity: A benign row less similar than this to every attack is easy, and stays out.
        fp_similarity: The same towards false positives, for the rows that these propose.
        proposed_margin: A row that an attack proposes is easy all the same, and stays out, if that attack is more than
            this much less similar than the row's own kind, the mean of its nearest other benign rows.
        benign_margin: The same for rows that no attack proposes, and towards the FP for rows that one proposes.
        own_neighbours: How many nearest rows of the same class make up a row's own kind, for benign rows and attacks.
        guard_similarity: From here up to an attack a "benign" row goes to review whatever else holds.
        guard_margin: A row goes to review if it is as similar to an attack as the attack's own kind is, less this ...
        guard_floor: ... and at least this similar: an attack without kin has a far-off own kind.
        foreign_margin: A row that is this much more similar to an attack than to its own kind goes to review: it
            stands among the attacks. False positives do so by nature and are spared this one rule.
        alike: A row this similar to one already selected adds nothing, and stays out.
        per_neighbourhood: How many rows the same attack or false positive may bring in.
        limit: At most this many rows in all, the hardest first; None for no limit.
        wanted: With fewer rows than this the result says which option to change.
        pool: Look at this many benign rows, drawn at random; None looks at all.
        duplicate_threshold: The Jaccard similarity of near-duplicates.
    """

    neighbours: int = 5
    fp_neighbours: int = 5
    min_similarity: float = 0.45
    fp_similarity: float = 0.60
    proposed_margin: float = 0.25
    benign_margin: float = 0.10
    own_neighbours: int = 3
    guard_similarity: float = 0.80
    guard_margin: float = 0.05
    guard_floor: float = 0.60
    foreign_margin: float = 0.15
    alike: float = 0.90
    per_neighbourhood: int = 10
    limit: int | None = None
    wanted: int = 100
    pool: int | None = None
    duplicate_threshold: float = 0.8

    def __post_init__(self) -> None:
        for name in ("neighbours", "own_neighbours", "per_neighbourhood"):
            _check(name, getattr(self, name), low=1)
        for name in ("fp_neighbours", "wanted"):
            _check(name, getattr(self, name), low=0)
        for name in ("limit", "pool"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), low=1)
        for name in ("min_similarity", "fp_similarity", "guard_similarity", "guard_floor", "alike"):
            _check(name, getattr(self, name), low=-1.0, high=1.0)
        for name in ("proposed_margin", "benign_margin", "guard_margin", "foreign_margin"):
            _check(name, getattr(self, name), low=-2.0, high=2.0)
        if self.guard_similarity <= self.min_similarity:
            raise BadInput(
                f"guard_similarity {self.guard_similarity} is not above min_similarity {self.min_similarity}: every "
                "row near an attack would go to review and none be selected; raise the one or lower the other"
            )


def _check(name: str, value: float, *, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        raise BadInput(
            f"mining option {name} is {value}; it must be at least {low}" + f" and at most {high}" * (high < math.inf)
        )


@dataclass(frozen=True)
class MineResult:
    """What mining found.

    Attributes:
        frame: The hard negatives as contract rows: category "hard_negative", subcategory the threat type of what it was
            taken for or is near to, `how` the rule and its cosine, `extra.why_hard` a sentence. Source, ids and lineage
            are kept.
        review: Rows that may be attacks: contract rows as they came, with reason, score, nearest_id, nearest_text.
        table: One line a rule: rule, kept, dropped, why.
        similarities: For the selected rows, quantiles of the cosine to the nearest attack and to their own kind.
        config: The thresholds used.
        advice: What to change if too few were found or much went to review; empty when all is well.
    """

    frame: pl.DataFrame
    review: pl.DataFrame
    table: pl.DataFrame
    similarities: dict[str, dict[str, float]]
    config: MineConfig
    advice: tuple[str, ...] = field(default=())

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
        rng: Draws the rows when `config.pool` is set; needed only then.
        progress: Called with (steps done, steps).

    Returns:
        The selected rows, the review queue, and the table of rules.

    Raises:
        BadInput: A frame breaks the contract, has rows of the wrong label, or there is nothing to mine.
    """
    config = config or MineConfig()
    step = _Steps(progress)
    table = _Table()
    pool = _gather(benign, malicious, fps, config, rng, table)
    step()
    attacks = deduplicate(malicious, threshold=config.duplicate_threshold).kept
    pool, duplicates = _without_duplicates(pool, attacks, malicious, config, table)
    step()
    near = _measure(pool, attacks, encode, config, step)
    by = _enter(near, config, table)
    suspect = _guard(near, by >= 0, config, table)
    chosen = _diversify(near, by, np.flatnonzero((by >= 0) & ~suspect.mask), config, table)
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
    return MineResult(frame, review, table.frame(), similarities, config, advice)


# ------------------------------------------------------------------------------------------------------------- the pool


class _Steps:
    """Counts the steps of one run for a progress callback."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, _STEPS)


class _Table:
    """The table under construction."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, int, str]] = []

    def add(self, rule: str, kept: int, dropped: int, why: str) -> None:
        self._rows.append((rule, int(kept), int(dropped), why))

    def dropped(self, rule: str) -> int:
        return sum(row[2] for row in self._rows if row[0] == rule)

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame(self._rows, schema=_TABLE, orient="row")


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
    table: _Table,
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
    pool: _Pool, attacks: pl.DataFrame, malicious: pl.DataFrame, config: MineConfig, table: _Table
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


# -------------------------------------------------------------------------------------------------------- similarities


@dataclass(frozen=True)
class _Near:
    """What is known of each pool row: how near the attacks, its own kind and the false positives are.

    `own` and `attack_own` are only filled where a rule asks for them (rows near an attack or proposed by one); -1
    stands for "no such row".
    """

    attack: Floats  # cosine to the nearest attack
    attack_row: Ints
    own: Floats  # mean cosine to the nearest rows of its own class
    attack_own: Floats  # the same of its nearest attack
    fp: Floats  # cosine to the nearest false positive that proposes it, -1 for none
    fp_row: Ints
    proposed: Mask  # by an attack, as one of its nearest benign rows
    is_fp: Mask
    vectors: NDArray[np.float32]


def _measure(pool: _Pool, attacks: pl.DataFrame, encode: Encode, config: MineConfig, step: Callable[[], None]) -> _Near:
    """Embed everything and search both ways."""
    vectors = encode(pool.frame["text"].to_list())
    step()
    attack_vectors = encode(attacks["text"].to_list())
    step()
    rows = len(vectors)
    benign_index, attack_index = build_index(vectors), build_index(attack_vectors)
    if not rows:
        empty, none = np.empty(0), np.empty(0, dtype=np.int64)
        return _Near(empty, none, empty, empty, empty, none, none.astype(bool), pool.is_fp, vectors)
    scores, ids = search(attack_index, vectors, 1)
    attack, attack_row = scores[:, 0].astype(np.float64), ids[:, 0]
    proposed = np.zeros(rows, dtype=bool)
    # False positives take no place among an attack's neighbours: they come in by a rule of their own.
    proposed[pool.fps + _neighbours(vectors[pool.fps :], attack_vectors, config.neighbours)[1].ravel()] = True
    fp, fp_row = _proposing_fp(vectors, pool.fps, config.fp_neighbours)
    asked = np.flatnonzero((attack >= config.min_similarity) | (fp >= config.fp_similarity) | pool.is_fp)
    own = np.full(rows, _ALONE)
    own[asked] = _own_kind(benign_index, vectors, asked, config.own_neighbours)
    attack_own = _own_kind(attack_index, attack_vectors, np.arange(attacks.height), config.own_neighbours)
    return _Near(attack, attack_row, own, attack_own[attack_row], fp, fp_row, proposed, pool.is_fp, vectors)


def _neighbours(
    rows: NDArray[np.float32], anchors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each anchor's k nearest rows."""
    if not len(rows) or not len(anchors) or not k:
        return np.empty((0, 0), dtype=np.float32), np.empty((0, 0), dtype=np.int64)
    return search(build_index(rows), anchors, k)


def _proposing_fp(vectors: NDArray[np.float32], fps: int, k: int) -> tuple[Floats, Ints]:
    """Return for each row the cosine and number of the nearest false positive that proposes it, -1 for none."""
    best, row = np.full(len(vectors), -1.0), np.full(len(vectors), -1, dtype=np.int64)
    scores, ids = _neighbours(vectors[fps:], vectors[:fps], k)
    flat, proposed = scores.ravel(), fps + ids.ravel()
    anchors = np.repeat(np.arange(len(ids), dtype=np.int64), ids.shape[1])
    order = np.argsort(flat, kind="stable")  # the greatest is written last and stays
    best[proposed[order]], row[proposed[order]] = flat[order], anchors[order]
    return best, row


def _own_kind(index: Any, vectors: NDArray[np.float32], asked: Ints, k: int) -> Floats:
    """Return each asked row's mean cosine to its k nearest rows of the index, itself left out; -1 if it is alone."""
    scores, ids = search(index, vectors[asked], k + 1)
    other = ids != asked[:, None]
    # With many equal vectors a row may be missing from its own neighbours; then the last one is left out instead.
    other[other.all(axis=1), -1] = False
    count = other.sum(axis=1)
    total = np.where(other, scores, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), _ALONE).astype(np.float64)


# ---------------------------------------------------------------------------------------------------------------- rules


def _entries(near: _Near, config: MineConfig) -> list[tuple[str, Mask]]:
    """Return each entry rule with the rows it lets in, in the order of ENTRY_RULES."""
    close = (near.attack >= config.min_similarity) & ~near.is_fp
    masks = (
        near.is_fp,
        (near.fp >= config.fp_similarity) & (near.fp >= near.own - config.benign_margin) & ~near.is_fp,
        close & near.proposed & (near.attack >= near.own - config.proposed_margin),
        close & (near.attack >= near.own - config.benign_margin),
    )
    return list(zip(ENTRY_RULES, masks, strict=True))


def _enter(near: _Near, config: MineConfig, table: _Table) -> Ints:
    """Return the number of the rule by which each row enters, -1 for the easy rows that none lets in."""
    why = {
        "fp": "a false positive is hard by its own record",
        "fp_neighbour": f"one of the {config.fp_neighbours} benign rows nearest to an FP; dropped: cosine under "
        f"{config.fp_similarity:g} (fp_similarity), or under its own kind by {config.benign_margin:g} (benign_margin)",
        "attack_neighbour": f"one of the {config.neighbours} benign rows nearest to an attack; dropped: cosine under "
        f"{config.min_similarity:g} (min_similarity), or under its own kind by {config.proposed_margin:g} "
        "(proposed_margin)",
        "nearest_attack": f"nearest attack at {config.min_similarity:g} (min_similarity) or more; dropped: under its "
        f"own kind by {config.benign_margin:g} (benign_margin)",
    }
    dropped = {
        "fp_neighbour": near.fp >= 0,
        "attack_neighbour": near.proposed,
        "nearest_attack": (near.attack >= config.min_similarity) & ~near.is_fp & ~near.proposed,
    }
    by = np.full(len(near.attack), -1, dtype=np.int64)
    for number, (rule, mask) in enumerate(_entries(near, config)):
        fresh = mask & (by < 0)
        by[fresh] = number
        table.add(rule, fresh.sum(), (dropped[rule] & (by < 0)).sum() if rule in dropped else 0, why[rule])
    table.add("easy", (by >= 0).sum(), (by < 0).sum(), "no rule above lets it in")
    return by


@dataclass(frozen=True)
class _Suspects:
    """Rows that entered but may be attacks, each with the first guard that holds it."""

    mask: Mask
    reasons: list[tuple[str, Mask]]

    def frame(self, pool: pl.DataFrame, near: _Near, attacks: pl.DataFrame) -> pl.DataFrame:
        """Return them as review rows."""
        parts = []
        for reason, mask in self.reasons:
            rows = np.flatnonzero(mask)
            nearest = attacks[near.attack_row[rows]]
            parts.append(
                pool[rows].with_columns(
                    pl.lit(reason).alias("reason"),
                    pl.Series("score", near.attack[rows], dtype=pl.Float64),
                    nearest["id"].alias("nearest_id"),
                    nearest["text"].alias("nearest_text"),
                )
            )
        return pl.concat(parts).select(*REVIEW_COLUMNS)


def _guard(near: _Near, entered: Mask, config: MineConfig, table: _Table) -> _Suspects:
    """Return the entered rows that are as near to an attack as attacks are: false negatives of the labelling, maybe."""
    rules = (
        (
            "too_close_to_attack",
            near.attack >= config.guard_similarity,
            f"cosine to an attack >= {config.guard_similarity:g} (guard_similarity): to review",
        ),
        (
            "attack_without_kin",
            (near.attack >= config.guard_floor) & (near.attack_own < config.guard_floor - config.guard_margin),
            f"cosine >= {config.guard_floor:g} (guard_floor) to an attack that no other attack is like, the attack may "
            "be the one that is labelled wrong: to review",
        ),
        (
            "like_the_attacks_own_kind",
            (near.attack >= config.guard_floor) & (near.attack >= near.attack_own - config.guard_margin),
            f"cosine >= {config.guard_floor:g} (guard_floor) and within {config.guard_margin:g} (guard_margin) of that "
            "attack's own kind: to review",
        ),
        (
            "among_the_attacks",
            (near.attack >= near.own + config.foreign_margin)
            & (near.own > _ALONE)
            & (near.attack >= config.min_similarity)
            & ~near.is_fp,
            f"nearer to an attack than to its own kind by {config.foreign_margin:g} (foreign_margin): to review",
        ),
    )
    suspect = np.zeros(len(entered), dtype=bool)
    reasons: list[tuple[str, Mask]] = []
    for rule, mask, why in rules:
        fresh = mask & entered & ~suspect
        suspect |= fresh
        reasons.append((rule, fresh))
        table.add(rule, (entered & ~suspect).sum(), fresh.sum(), why)
    return _Suspects(suspect, reasons)


def _diversify(near: _Near, by: Ints, rows: Ints, config: MineConfig, table: _Table) -> Ints:
    """Return the rows to keep, the hardest first: no two alike, few of one neighbourhood, at most the limit."""
    hardness = near.attack[rows] - near.own[rows]
    ranked = rows[np.lexsort((rows, -hardness, ~near.is_fp[rows]))]
    kept = np.ones(len(ranked), dtype=bool)
    # A loop, for it is sequential by nature: a row stays out only for one that stayed in.
    for earlier, later in zip(
        *(part.tolist() for part in pairs_above(near.vectors[ranked], config.alike)), strict=True
    ):
        if kept[earlier]:
            kept[later] = False
    distinct = ranked[kept]
    table.add(
        "alike", len(distinct), len(ranked) - len(distinct), f"cosine above {config.alike:g} (alike) to a harder row"
    )
    # Its neighbourhood is what brought a row in: the false positive, or else its nearest attack.
    by_fp = by[distinct] == ENTRY_RULES.index("fp_neighbour")
    anchors = pl.DataFrame({"anchor": np.where(by_fp, -1 - near.fp_row[distinct], near.attack_row[distinct])})
    place = anchors.select(pl.int_range(pl.len()).over("anchor", pl.Series(near.is_fp[distinct]))).to_series()
    fits = near.is_fp[distinct] | (place.to_numpy() < config.per_neighbourhood)
    spread = distinct[fits]
    table.add(
        "per_neighbourhood",
        len(spread),
        len(distinct) - len(spread),
        f"{config.per_neighbourhood} harder rows came in by the same attack or FP (per_neighbourhood)",
    )
    if config.limit is None:
        return spread
    table.add("limit", min(len(spread), config.limit), max(len(spread) - config.limit, 0), "beyond the limit, easier")
    return spread[: config.limit]


# --------------------------------------------------------------------------------------------------------------- output


def _describe(pool: pl.DataFrame, near: _Near, by: Ints, chosen: Ints, attacks: pl.DataFrame) -> pl.DataFrame:
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
        pl.when(pl.col("_own") > _ALONE).then(pl.format("; its own kind at {}", "_own")).otherwise(pl.lit("")),
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


def _advise(selected: int, review: int, near: _Near, config: MineConfig, table: _Table) -> tuple[str, ...]:
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


def _too_few(near: _Near, config: MineConfig, table: _Table) -> Sequence[str]:
    """Return one sentence for each rule that dropped enough to matter, the greatest first."""
    reach = np.sort(near.attack[~near.is_fp])[::-1][: config.wanted]
    lower = f"to about {reach[-1]:.2f}" if len(reach) and reach[-1] < config.min_similarity else "a little"
    suggestions = {
        "attack_neighbour": f"lower min_similarity ({config.min_similarity:g}) {lower}, or raise proposed_margin "
        f"({config.proposed_margin:g}): rows next to an attack were left out",
        "fp_neighbour": f"lower fp_similarity ({config.fp_similarity:g}) or raise benign_margin "
        f"({config.benign_margin:g}): rows next to an FP were left out",
        "nearest_attack": f"raise neighbours ({config.neighbours}) or benign_margin ({config.benign_margin:g}): rows "
        "near an attack, but in the midst of their own kind, were left out",
        "alike": f"raise alike ({config.alike:g}): rows near to a selected one were left out",
        "per_neighbourhood": f"raise per_neighbourhood ({config.per_neighbourhood}): attacks had more neighbours",
        "pool": f"raise pool ({config.pool}), or leave it out: benign rows were not looked at",
        "duplicate": "give a benign set with more distinct rows: repeated ones were dropped",
    }
    dropped = sorted(((table.dropped(rule), rule) for rule in suggestions), reverse=True)
    told = [f"{suggestions[rule]} ({count} rows)" for count, rule in dropped if count]
    return told or ["give more benign rows: no rule dropped any"]
