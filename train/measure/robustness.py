"""Robustness: what a detector still catches, and what it begins to flag, when texts look otherwise than they did.

Takes a `score` callable, a threshold, attacks and benign rows; scores them plain and under each perturbation of
`perturbations.py`, and gives a `Robustness`: recall beside the plain recall on the same attacks, and the false-positive
rate of benign rows under the same change. A detector that flags every Base64 text is not robust, it cries wolf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress, Score

from .evaluate import MEASURES, Measure, score_all
from .intervals import Estimate, Rate, paired_difference, wilson_arrays
from .mcnemar import McNemar, mcnemar_arrays
from .perturbations import PERTURBATIONS, Perturbation, padding

MOST = 1000
"""Attacks, and benign rows, that are perturbed: enough to know a recall of 95% to 1.4 points."""
FEW_ATTACKS, FEW_BENIGN = 200, 75
"""Rows of `robustness_change`, which is part of every retraining: with the texts as they came and six changes of them a
detector scores at most 1,925 texts, and a recall of 95% is known to 3.2 points."""
BRIEF = ("typos", "upper_case", "look_alikes", "zero_width", "base64")
"""Its changes beside padding: one or two of every family."""
COLUMNS: dict[str, pl.DataType] = {
    "perturbation": pl.String(),
    "id": pl.String(),
    "measure": pl.String(),
    "score_plain": pl.Float64(),
    "score": pl.Float64(),
    "flagged_plain": pl.Boolean(),
    "flagged": pl.Boolean(),
}
STANDS, LOSES, CRIES, BOTH = "no change seen", "loses attacks", "cries wolf", "loses attacks, cries wolf"
NOT_TAKEN = "no text takes it"


@dataclass(frozen=True, eq=False)
class Robustness:
    """One detector on the same rows, plain and under each perturbation.

    Attributes:
        name: the detector.
        threshold: a text is flagged when its score is at or above it.
        perturbations: what was done to the texts, in order.
        rows: one row for each perturbation and text that took it, with the columns of `COLUMNS` (`measure` is recall
            for attacks and fp_rate for benign rows); no texts.
        plain: id, measure, score and flagged of every text as it came.
    """

    name: str
    threshold: float
    perturbations: tuple[Perturbation, ...]
    rows: pl.DataFrame
    plain: pl.DataFrame

    def recall(self, perturbation: str | None = None) -> Rate:
        """Attacks flagged under a perturbation, of those that take it; None: as they came, of all."""
        return self._rate("recall", perturbation)

    def fp_rate(self, perturbation: str | None = None) -> Rate:
        """Benign rows flagged under a perturbation, of those that take it; None: as they came, of all."""
        return self._rate("fp_rate", perturbation)

    def plain_recall(self, perturbation: str) -> Rate:
        """The same attacks as in `recall`, as they came."""
        return _count(self.select(perturbation, "recall")["flagged_plain"])

    def plain_fp_rate(self, perturbation: str) -> Rate:
        """The same benign rows as in `fp_rate`, as they came."""
        return _count(self.select(perturbation, "fp_rate")["flagged_plain"])

    def change(self, perturbation: str, measure: Measure = "recall") -> Estimate:
        """How far a rate moves from plain to perturbed, with its interval for paired rows."""
        rows = self.select(perturbation, measure)
        old, new = rows["flagged_plain"].to_numpy(), rows["flagged"].to_numpy()
        cells = (old & new, old & ~new, ~old & new, ~old & ~new)
        return paired_difference(*(int(cell.sum()) for cell in cells))

    def mcnemar(self, perturbation: str, measure: Measure = "recall") -> McNemar:
        """McNemar's (1947) exact test of that change."""
        rows = self.select(perturbation, measure)
        old, new = rows["flagged_plain"], rows["flagged"]
        return McNemar(int((old & ~new).sum()), int((new & ~old).sum()))

    def verdict(self, perturbation: str) -> str:
        """What the 95% intervals of the two changes say.

        Returns:
            `loses attacks`, `cries wolf`, both, or `no change seen`, which proves nothing where rows are few;
            `no text takes it` where there are none.
        """
        if self.select(perturbation).is_empty():
            return NOT_TAKEN
        loses = self.change(perturbation, "recall").high < 0
        cries = self.change(perturbation, "fp_rate").low > 0
        return (BOTH if loses else CRIES) if cries else (LOSES if loses else STANDS)

    def select(self, perturbation: str, measure: Measure | None = None) -> pl.DataFrame:
        """The rows of a perturbation, of attacks or benign ones alone if asked.

        Raises:
            BadInput: there is no such perturbation.
        """
        names = [one.name for one in self.perturbations]
        if perturbation not in names:
            raise BadInput(f"no perturbation {perturbation!r} was measured; there are: {', '.join(names)}")
        found = self.rows.filter(pl.col("perturbation") == perturbation)
        return found if measure is None else found.filter(pl.col("measure") == measure)

    def lost(self, perturbation: str) -> pl.DataFrame:
        """Attacks that are caught as they came and missed under the perturbation, the deepest falls first."""
        rows = self.select(perturbation, "recall").filter(pl.col("flagged_plain") & ~pl.col("flagged"))
        return rows.sort(pl.col("score_plain") - pl.col("score"), pl.col("id"), descending=[True, False])

    def new_fps(self, perturbation: str) -> pl.DataFrame:
        """Benign rows that are flagged under the perturbation alone, the highest scores first."""
        rows = self.select(perturbation, "fp_rate").filter(pl.col("flagged") & ~pl.col("flagged_plain"))
        return rows.sort("score", "id", descending=[True, False])

    def table(self) -> pl.DataFrame:
        """Every perturbation and measure in a row, in the order of `perturbations`, recall first.

        Returns:
            Columns perturbation, family, measure (recall or fp_rate), n, then k, value, low, high with the endings
            _plain and _perturbed, `dropped` and `added` (flagged only plain, only perturbed), `p_value` (McNemar);
            where no text takes a change n is 0 and the values are null.
        """
        old, new = pl.col("flagged_plain"), pl.col("flagged")
        keys = ["perturbation", "measure"]
        every = pl.DataFrame(
            [(one.name, measure) for one in self.perturbations for measure in MEASURES], schema=keys, orient="row"
        )
        counted = self.rows.group_by(keys).agg(
            pl.len().cast(pl.Int64).alias("n"),
            old.sum().cast(pl.Int64).alias("k_plain"),
            new.sum().cast(pl.Int64).alias("k_perturbed"),
            (old & ~new).sum().cast(pl.Int64).alias("dropped"),
            (new & ~old).sum().cast(pl.Int64).alias("added"),
        )
        table = every.join(counted, on=keys, how="left").with_columns(pl.col(pl.Int64).fill_null(0))
        n = table["n"].to_numpy()
        for ending in ("_plain", "_perturbed"):
            low, high = wilson_arrays(table[f"k{ending}"].to_numpy(), n)
            table = table.with_columns(
                pl.when(pl.col("n") > 0).then(pl.col(f"k{ending}") / pl.col("n")).alias(f"value{ending}"),
                pl.Series(f"low{ending}", low, dtype=pl.Float64),
                pl.Series(f"high{ending}", high, dtype=pl.Float64),
            )
        p_values = mcnemar_arrays(table["dropped"].to_numpy(), table["added"].to_numpy())
        table = table.with_columns(pl.Series("p_value", p_values, dtype=pl.Float64))
        place = {one.name: at for at, one in enumerate(self.perturbations)}
        family = {one.name: one.family for one in self.perturbations}
        order = pl.col("perturbation").replace_strict(place, return_dtype=pl.Int64)
        cells = [f"{name}{ending}" for ending in ("_plain", "_perturbed") for name in ("k", "value", "low", "high")]
        named = table.with_columns(
            pl.col("perturbation").replace_strict(family, return_dtype=pl.String).alias("family")
        )
        ordered = named.sort(order, "measure", descending=[False, True])
        return ordered.select("perturbation", "family", "measure", "n", *cells, "dropped", "added", "p_value")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the plain rates, and for each perturbation rates, changes, tests, verdict and the ids that changed.

        No text is in it.
        """
        return {
            "name": self.name,
            "threshold": self.threshold,
            "recall": self.recall().to_dict(),
            "fp_rate": self.fp_rate().to_dict(),
            "perturbations": [
                {
                    "name": one.name,
                    "family": one.family,
                    "meaning": one.meaning,
                    "verdict": self.verdict(one.name),
                    "plain_recall": self.plain_recall(one.name).to_dict(),
                    "recall": self.recall(one.name).to_dict(),
                    "plain_fp_rate": self.plain_fp_rate(one.name).to_dict(),
                    "fp_rate": self.fp_rate(one.name).to_dict(),
                    "change": {name: self.change(one.name, name).to_dict() for name in MEASURES},
                    "mcnemar": {name: self.mcnemar(one.name, name).to_dict() for name in MEASURES},
                    "lost": self.lost(one.name)["id"].to_list(),
                    "new_fps": self.new_fps(one.name)["id"].to_list(),
                }
                for one in self.perturbations
            ],
        }

    def _rate(self, measure: Measure, perturbation: str | None) -> Rate:
        if perturbation is None:
            return _count(self.plain.filter(pl.col("measure") == measure)["flagged"])
        return _count(self.select(perturbation, measure)["flagged"])


def _count(flagged: pl.Series) -> Rate:
    return Rate(int(flagged.sum()), len(flagged))


def robustness(
    score: Score,
    threshold: float,
    attacks: pl.DataFrame,
    benign: pl.DataFrame,
    rng: np.random.Generator,
    *,
    perturbations: Sequence[Perturbation] | None = None,
    most: int = MOST,
    most_benign: int | None = None,
    name: str = "detector",
    progress: Progress | None = None,
) -> Robustness:
    """Score attacks and benign rows plain and under each perturbation.

    Args:
        score: texts to P(malicious) in [0, 1].
        threshold: flag a score at or above it.
        attacks: frame with id and text; a repeated id counts once.
        benign: the same for harmless rows. Those that the detector does not flag are what attacks are padded with, so
            that padding brings in no alarm of its own.
        rng: draws rows, and everything inside the perturbations.
        perturbations: what to do; None takes `PERTURBATIONS` and, where two benign rows go unflagged, `padding`.
        most: at most so many attacks and so many benign rows, drawn.
        most_benign: at most so many benign rows, where there are to be fewer or more of them than attacks.
        name: the detector's name in tables and files.
        progress: called with (texts scored, texts).

    Raises:
        BadInput: there are no attacks or no benign rows, a column is missing, two perturbations share a name, the
            threshold or a score cannot be used.
    """
    if not 0.0 <= threshold <= 1.0:
        raise BadInput(f"threshold {threshold} is not in [0, 1]")
    most_benign = most if most_benign is None else most_benign
    plain = pl.concat([_drawn(attacks, "recall", most, rng), _drawn(benign, "fp_rate", most_benign, rng)])
    texts = plain["text"].to_list()
    # Some texts will not take some change: the bar's total is the most that there can be.
    steps = len(PERTURBATIONS) + 3 if perturbations is None else len(perturbations)
    total = len(texts) * (1 + steps)
    scores = score_all(score, texts, _part(progress, 0, total), name)
    plain = plain.with_columns(pl.Series("score", scores), pl.Series("flagged", scores >= threshold))
    asked = _with_padding(plain) if perturbations is None else tuple(perturbations)
    if not asked or len({one.name for one in asked}) != len(asked):
        raise BadInput(f"give perturbations, each a name of its own; got {[one.name for one in asked]}")
    parts = []
    for at, one in enumerate(asked):
        changed = [one.change(text, rng) for text in texts]
        took = np.array([text is not None for text in changed], dtype=bool)
        new = score_all(
            score, [t for t in changed if t is not None], _part(progress, (at + 1) * len(texts), total), name
        )
        parts.append(_measured(plain.filter(took), one.name, new, threshold))
    if progress is not None:
        progress(total, total)
    return Robustness(name, threshold, asked, pl.concat(parts), plain.drop("text"))


class Scorer(Protocol):
    """What is measured: a detector as `crywolf.export.load_detector` gives it."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def score(self) -> Score:
        """Texts to P(malicious)."""

    @property
    def threshold(self) -> float:
        """Scores at or above it are flagged."""


@dataclass(frozen=True, eq=False)
class RobustnessChange:
    """Two detectors on the same rows, plain and under the same changes of them."""

    before: Robustness
    after: Robustness

    @property
    def names(self) -> tuple[str | None, ...]:
        """None, which stands for the texts as they came, and every perturbation."""
        return (None, *(one.name for one in self.after.perturbations))

    def change(self, perturbation: str | None, measure: Measure = "recall") -> Estimate:
        """How far a rate moves from the old detector to the new one, with its interval for paired rows."""
        old, new = (_flags(one, perturbation, measure) for one in (self.before, self.after))
        paired = old.join(new, on="id", suffix="_new", validate="1:1")
        was, now = paired["flagged"].to_numpy(), paired["flagged_new"].to_numpy()
        return paired_difference(*(int(cell.sum()) for cell in (was & now, was & ~now, ~was & now, ~was & ~now)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: both detectors (see `Robustness.to_dict`) and the changes between them; no text is in it."""
        changes = [
            {"name": name or "plain", **{measure: self.change(name, measure).to_dict() for measure in MEASURES}}
            for name in self.names
        ]
        return {"before": self.before.to_dict(), "after": self.after.to_dict(), "changes": changes}


def robustness_change(
    before: Scorer,
    after: Scorer,
    attacks: pl.DataFrame,
    benign: pl.DataFrame,
    seed: Sequence[int],
    *,
    most_attacks: int = FEW_ATTACKS,
    most_benign: int = FEW_BENIGN,
    progress: Progress | None = None,
) -> RobustnessChange:
    """Score the same few rows, plain and under `BRIEF` and padding, with two detectors.

    Attacks are padded with benign rows that neither detector flags, so that both are given the very same texts; where
    there are not two such rows, padding is left out.

    Args:
        before: the old detector.
        after: the new one.
        attacks: frame with id and text; a repeated id counts once.
        benign: the same for harmless rows.
        seed: draws rows, and everything inside the perturbations.
        most_attacks: at most so many attacks, drawn.
        most_benign: at most so many benign rows, drawn.
        progress: called with (texts scored, texts); the look at the benign rows before is not counted.

    Raises:
        BadInput: as `robustness`.
    """
    rng = np.random.default_rng(seed)
    attacks, benign = _drawn(attacks, "recall", most_attacks, rng), _drawn(benign, "fp_rate", most_benign, rng)
    texts = benign["text"].to_list()
    quiet = np.ones(len(texts), dtype=bool)
    for one in (before, after):
        quiet &= score_all(one.score, texts, None, one.name) < one.threshold
    pool = benign.filter(pl.Series(quiet))["text"].to_list()
    pads = padding(pool) if len({text.strip() for text in pool} - {""}) > 1 else ()
    changes = (
        *(one for one in PERTURBATIONS if one.name in BRIEF),
        *(one for one in pads if one.name == "padded_around"),
    )
    total = 2 * (1 + len(changes)) * (len(attacks) + len(texts))
    measured = [
        robustness(
            one.score,
            one.threshold,
            attacks,
            benign,
            np.random.default_rng([*seed, 1]),
            perturbations=changes,
            most=most_attacks,
            most_benign=most_benign,
            name=one.name,
            progress=_part(progress, at * total // 2, total),
        )
        for at, one in enumerate((before, after))
    ]
    return RobustnessChange(*measured)


def _flags(found: Robustness, perturbation: str | None, measure: Measure) -> pl.DataFrame:
    if perturbation is None:
        return found.plain.filter(pl.col("measure") == measure).select("id", "flagged")
    return found.select(perturbation, measure).select("id", "flagged")


def _drawn(frame: pl.DataFrame, measure: Measure, most: int, rng: np.random.Generator) -> pl.DataFrame:
    what = "attacks" if measure == "recall" else "benign rows"
    missing = [column for column in ("id", "text") if column not in frame.columns]
    if missing:
        raise BadInput(f"robustness: the {what} have no column {missing[0]!r}; pass a contract frame (make_corpus)")
    rows = frame.select("id", "text").unique(subset="id", keep="first", maintain_order=True)
    if rows["text"].null_count():
        raise BadInput(f"robustness: {what} come without their texts; an evaluation saved without prompts has none")
    if rows.is_empty() or most < 1:
        raise BadInput(f"robustness needs {what}; give at least one")
    if rows.height > most:
        rows = rows[np.sort(rng.permutation(rows.height)[:most])]
    return rows.with_columns(pl.lit(measure).alias("measure"))


def _with_padding(plain: pl.DataFrame) -> tuple[Perturbation, ...]:
    pool = plain.filter((pl.col("measure") == "fp_rate") & ~pl.col("flagged"))["text"].to_list()
    return (*PERTURBATIONS, *(padding(pool) if len({text.strip() for text in pool} - {""}) > 1 else ()))


def _measured(plain: pl.DataFrame, name: str, scores: NDArray[np.float64], threshold: float) -> pl.DataFrame:
    return plain.select(
        pl.lit(name).alias("perturbation"),
        "id",
        "measure",
        pl.col("score").alias("score_plain"),
        pl.Series("score", scores, dtype=pl.Float64),
        pl.col("flagged").alias("flagged_plain"),
        pl.Series("flagged", scores >= threshold, dtype=pl.Boolean),
    )


def _part(progress: Progress | None, done: int, total: int) -> Progress | None:
    """The bar of one part of the work, within the bar of the whole."""
    return None if progress is None else lambda part, _: progress(done + part, total)
