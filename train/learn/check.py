"""Whether a calibrated score means what it says: overall, language by language, and where it is most sure of an attack.

Takes scores, labels and the language of each row; gives a `CalibrationCheck`. The measures are those of
`measure.metrics`; every share carries its n and 95% interval, and a language with too few rows says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput

from ..measure.intervals import Estimate, Rate
from ..measure.metrics import expected_calibration_error, precision_at

CONFIDENT = 0.85
"""A score above it is a sure alarm."""
WANTED = 0.95
"""The share of sure alarms that must be attacks."""
MIN_ROWS = 100
"""Rows of a language under which nothing is said of its calibration."""


@dataclass(frozen=True)
class CalibrationCheck:
    """What a detector's scores are worth.

    Attributes:
        n: Rows.
        ece: Expected calibration error over ten bins, at the rows' own share of attacks; NaN without rows.
        mean_score: The mean score of all rows.
        share: Attacks among all rows; a calibrated detector's mean score lies in its interval.
        languages: One row a language, the most frequent first: language, n, attacks, mean_score, share, low, high (of
            `share`), ece, verdict (`agrees`, `too high`, `too low` or `too few rows`).
        above: What makes an alarm sure.
        prevalence: The share of attacks in the traffic for which `precision` holds.
        precision: Attacks among sure alarms at that prevalence.
        wrong: Benign rows with a sure alarm.
        right: Attacks with a sure alarm.
    """

    n: int
    ece: float
    mean_score: float
    share: Rate
    languages: pl.DataFrame
    above: float
    prevalence: float
    precision: Estimate
    wrong: Rate
    right: Rate

    @property
    def verdict(self) -> str:
        """Whether sure alarms are right 95% of the time: pass, fail, or inconclusive with too few rows to tell."""
        if self.precision.low >= WANTED:
            return "pass"
        return "fail" if self.precision.high < WANTED else "inconclusive"

    @property
    def text(self) -> str:
        """For people, in one line."""
        return (
            f"{self.precision.text} of the alarms above {self.above:g} are attacks where {100 * self.prevalence:g}% of "
            f"the traffic is ({self.verdict}, wanted {WANTED:.0%}); calibration error {self.ece:.3f} on {self.n:,} rows"
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "n": self.n,
            "ece": None if math.isnan(self.ece) else self.ece,
            "mean_score": None if math.isnan(self.mean_score) else self.mean_score,
            "share": self.share.to_dict(),
            "languages": self.languages.to_dicts(),
            "above": self.above,
            "prevalence": self.prevalence,
            "precision": self.precision.to_dict(),
            "wrong": self.wrong.to_dict(),
            "right": self.right.to_dict(),
            "verdict": self.verdict,
        }


def calibration_check(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    languages: Sequence[str],
    prevalence: float,
    *,
    above: float = CONFIDENT,
    min_rows: int = MIN_ROWS,
) -> CalibrationCheck:
    """Check scores against outcomes.

    Args:
        scores: Calibrated scores of rows that the calibration has not seen.
        labels: True or 1 for malicious.
        languages: The language code of each row; see `crywolf.data.language`.
        prevalence: The share of attacks in the traffic for which the precision of sure alarms is stated.
        above: A score above it is a sure alarm.
        min_rows: Rows of a language under which its verdict is `too few rows`.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    truth = np.asarray(labels).reshape(-1).astype(np.bool_)
    if not len(values) == len(truth) == len(languages):
        raise BadInput(
            f"calibration check: {len(values)} scores, {len(truth)} labels, {len(languages)} languages; give one each"
        )
    ece = expected_calibration_error(values, truth)
    sure, attacks = values > above, int(truth.sum())
    wrong = Rate(int((sure & ~truth).sum()), len(truth) - attacks)
    right = Rate(int((sure & truth).sum()), attacks)
    return CalibrationCheck(
        n=len(values),
        ece=ece,
        mean_score=float(values.mean()) if len(values) else math.nan,
        share=Rate(attacks, len(truth)),
        languages=_by_language(values, truth, np.asarray(languages, dtype=object), min_rows),
        above=above,
        prevalence=prevalence,
        precision=precision_at(wrong, right, prevalence),
        wrong=wrong,
        right=right,
    )


_SCHEMA = {
    "language": pl.String(),
    "n": pl.Int64(),
    "attacks": pl.Int64(),
    "mean_score": pl.Float64(),
    "share": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "ece": pl.Float64(),
    "verdict": pl.String(),
}


def _by_language(
    values: NDArray[np.float64], truth: NDArray[np.bool_], languages: NDArray[np.object_], min_rows: int
) -> pl.DataFrame:
    rows = []
    for language in sorted(set(languages.tolist())):  # some dozens, each whole columns
        own = languages == language
        share, mean = Rate(int(truth[own].sum()), int(own.sum())), float(values[own].mean())
        rows.append(
            {
                "language": language,
                "n": share.n,
                "attacks": share.k,
                "mean_score": mean,
                "share": share.value,
                "low": share.low,
                "high": share.high,
                "ece": expected_calibration_error(values[own], truth[own]),
                "verdict": "too few rows" if share.n < min_rows else _verdict(mean, share),
            }
        )
    return pl.DataFrame(rows, schema=_SCHEMA).sort(["n", "language"], descending=[True, False])


def _verdict(mean: float, share: Rate) -> str:
    if share.low <= mean <= share.high:
        return "agrees"
    return "too high" if mean > share.high else "too low"
