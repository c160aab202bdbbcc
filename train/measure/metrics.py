"""What a detector's scores are worth: whole columns of scores and labels in, counts, rates and curves out.

Takes `scores` (P(malicious), n floats) and `malicious` (n booleans) and gives confusion counts, ranking measures,
reliability bins, the threshold curve, and precision at a prevalence that is stated rather than an accident of the
sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from crywolf.data import BadInput

from .intervals import Estimate, Rate, wilson_arrays

PREVALENCES = (0.5, 0.1, 0.01, 0.001)
"""The shares of attacks in the traffic at which the tables state precision."""


@dataclass(frozen=True)
class Confusion:
    """The four cells at one threshold."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def fp_rate(self) -> Rate:
        """Benign rows flagged, of all benign rows."""
        return Rate(self.fp, self.fp + self.tn)

    @property
    def recall(self) -> Rate:
        """Attacks flagged, of all attacks."""
        return Rate(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> Rate:
        """Attacks, of all flagged rows, at this sample's own mix of benign and malicious."""
        return Rate(self.tp, self.tp + self.fp)

    @property
    def accuracy(self) -> Rate:
        """Right verdicts, of all rows."""
        return Rate(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan where there is neither an attack nor a flag."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def prevalence(self) -> float:
        """The share of attacks in this sample; nan without rows."""
        rows = self.tp + self.fp + self.tn + self.fn
        return (self.tp + self.fn) / rows if rows else math.nan

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "tp": self.tp,
            "fp": self.fp,
            "tn": self.tn,
            "fn": self.fn,
            "f1": _none_if_nan(self.f1),
            **{name: getattr(self, name).to_dict() for name in ("fp_rate", "recall", "precision", "accuracy")},
        }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def columns(scores: ArrayLike, malicious: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The two arrays, checked: as long as one another, scores finite and in [0, 1]."""
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(malicious, dtype=bool)
    if values.ndim != 1 or values.shape != truth.shape:
        raise BadInput(f"scores {values.shape} and labels {truth.shape} must be two columns of one length")
    wrong = ~((values >= 0.0) & (values <= 1.0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise BadInput(f"score {values[at]} of row {at} is not in [0, 1]; a detector must give P(malicious)")
    return values, truth


def confusion(scores: ArrayLike, malicious: ArrayLike, threshold: float) -> Confusion:
    """The counts when every score at or above the threshold is flagged."""
    values, truth = columns(scores, malicious)
    flagged = values >= threshold
    tp, flags, attacks = int((flagged & truth).sum()), int(flagged.sum()), int(truth.sum())
    return Confusion(tp=tp, fp=flags - tp, tn=len(values) - flags - attacks + tp, fn=attacks - tp)


def _cumulative(
    values: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct scores from high to low, with the attacks and the benign rows at or above each."""
    order = np.argsort(-values, kind="stable")
    ordered, hits = values[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    tp = np.cumsum(hits, dtype=np.int64)[last]
    return ordered[last], tp, last.astype(np.int64) + 1 - tp


def auroc(scores: ArrayLike, malicious: ArrayLike) -> float:
    """Chance that an attack outscores a benign row, ties counted half; nan when a class is missing."""
    values, truth = columns(scores, malicious)
    attacks = int(truth.sum())
    benign = len(truth) - attacks
    if not attacks or not benign:
        return math.nan
    _, tp, fp = _cumulative(values, truth)
    widths = np.diff(fp, prepend=0)
    heights = (tp + np.concatenate(([0], tp[:-1]))) / 2.0
    return float(np.sum(widths * heights) / (attacks * benign))


def average_precision(scores: ArrayLike, malicious: ArrayLike) -> float:
    """Precision averaged over the recall steps, without interpolation; nan when there is no attack."""
    values, truth = columns(scores, malicious)
    attacks = int(truth.sum())
    if not attacks:
        return math.nan
    _, tp, fp = _cumulative(values, truth)
    return float(np.sum(np.diff(tp, prepend=0) / attacks * (tp / (tp + fp))))


def reliability(scores: ArrayLike, malicious: ArrayLike, bins: int = 10) -> pl.DataFrame:
    """How often a score of 0.7 is an attack: equal-width bins with counts and intervals; empty bins are left out.

    Returns:
        Columns bin_low, bin_high, n, k (attacks), mean_score, rate, low, high. Both the rate and any error computed
        from it hold at the sample's own prevalence.
    """
    values, truth = columns(scores, malicious)
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    n = np.bincount(index, minlength=bins)
    k = np.bincount(index, weights=truth, minlength=bins).astype(np.int64)
    total = np.bincount(index, weights=values, minlength=bins)
    low, high = wilson_arrays(k, n)
    safe = np.maximum(n, 1)
    edges = np.arange(bins + 1) / bins
    frame = pl.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "n": n,
            "k": k,
            "mean_score": total / safe,
            "rate": k / safe,
            "low": low,
            "high": high,
        }
    )
    return frame.filter(pl.col("n") > 0)


def expected_calibration_error(scores: ArrayLike, malicious: ArrayLike, bins: int = 10) -> float:
    """Mean distance of score and outcome over the reliability bins, weighted by rows; nan without rows."""
    table = reliability(scores, malicious, bins)
    if table.is_empty():
        return math.nan
    n = table["n"].to_numpy()
    return float(np.sum(n * np.abs(table["mean_score"].to_numpy() - table["rate"].to_numpy())) / n.sum())


def confident_correct(scores: ArrayLike, malicious: ArrayLike, above: float = 0.85) -> Rate:
    """Of the predictions of either class with a confidence above the bound, those that are right, on this sample.

    The confidence of a verdict is the score of what it says: the score itself for malicious, one minus it for benign.
    On a mostly benign sample this is mostly about the easy benign rows; `Evaluation.confident_precision` asks about
    alarms alone.
    """
    values, truth = columns(scores, malicious)
    says_malicious, says_benign = values > above, (1.0 - values) > above
    right = (says_malicious & truth) | (says_benign & ~truth)
    return Rate(int(right.sum()), int((says_malicious | says_benign).sum()))


def fp_rate_at_recall(benign: ArrayLike, attacks: ArrayLike, recall: float) -> Rate:
    """FP rate at the highest threshold that catches this share of the attacks: how well the scores part the two.

    Two detectors can be compared by it whatever their thresholds are. As the threshold is set on the very attacks that
    are measured, it is no operating point.

    Args:
        benign: scores of benign rows, shape (n,).
        attacks: scores of attacks, shape (m,).
        recall: from above 0 to 1.

    Raises:
        BadInput: there are no attacks, or the recall is out of range.
    """
    caught = np.sort(np.asarray(attacks, dtype=np.float64))[::-1]
    if not len(caught) or not 0 < recall <= 1:
        raise BadInput(f"FP rate at recall {recall:g} of {len(caught)} attacks: give attacks, and a share above 0")
    threshold = caught[max(math.ceil(recall * len(caught) - 1e-9), 1) - 1]
    scores = np.asarray(benign, dtype=np.float64)
    return Rate(int((scores >= threshold).sum()), len(scores))


def precision_at(fp_rate: Rate, recall: Rate, prevalence: float) -> Estimate:
    """Precision when this share of the traffic is attacks, from the two rates, their intervals carried through.

    Precision rises with recall and falls with the FP rate, so its ends are taken at the opposite corners of the two 95%
    intervals. That is wider than need be, and errs on the safe side.
    """
    if not 0.0 < prevalence < 1.0:
        raise BadInput(f"a prevalence is a share between 0 and 1, got {prevalence}")
    note = f"at {100 * prevalence:g}% attacks"
    low = _precision(fp_rate.high, recall.low, prevalence, empty=0.0)
    high = _precision(fp_rate.low, recall.high, prevalence, empty=1.0)
    if not fp_rate.n or not recall.n:
        return Estimate(math.nan, 0.0, 1.0, note)
    return Estimate(_precision(fp_rate.value, recall.value, prevalence, empty=math.nan), low, high, note)


def _precision(fp_rate: float, recall: float, prevalence: float, *, empty: float) -> float:
    right, wrong = prevalence * recall, (1.0 - prevalence) * fp_rate
    return right / (right + wrong) if right + wrong > 0 else empty


def highest_fp_rate(precision: float, recall: float, prevalence: float) -> float:
    """The FP rate at which this recall still gives this precision at this prevalence: `precision_at` solved for it."""
    return prevalence * recall * (1.0 - precision) / (precision * (1.0 - prevalence))


def threshold_curve(scores: ArrayLike, malicious: ArrayLike, points: int = 201) -> pl.DataFrame:
    """FP rate and recall at evenly spaced thresholds, with counts and intervals.

    Returns:
        Columns threshold, fp, benign, fp_rate, fp_low, fp_high, tp, attacks, recall, recall_low, recall_high. A rate of
        a class that has no rows is null.
    """
    values, truth = columns(scores, malicious)
    thresholds = np.linspace(0.0, 1.0, points)
    frame: dict[str, Any] = {"threshold": thresholds}
    for mask, hits, rows, rate in ((~truth, "fp", "benign", "fp_rate"), (truth, "tp", "attacks", "recall")):
        ordered = np.sort(values[mask])
        n = len(ordered)
        k = n - np.searchsorted(ordered, thresholds, side="left")
        low, high = wilson_arrays(k, n)
        prefix = "fp" if hits == "fp" else "recall"
        frame |= {hits: k, rows: np.full(points, n), rate: k / n if n else pl.Series([None] * points, dtype=pl.Float64)}
        frame |= {f"{prefix}_low": low, f"{prefix}_high": high}
    return pl.DataFrame(frame)
