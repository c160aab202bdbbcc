"""Operating points: one detector, three places to stand between false positives and missed attacks.

Takes calibrated scores with their labels and a target for each point, and gives `strict` (the lowest threshold: most
attacks caught), `balanced` (the detector's own) and `lenient` (the fewest false positives), each with what it does to
the rows, with its counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..measure.intervals import Rate
from .calibrate import Threshold, choose_threshold, describe_threshold
from .target import Target

POINTS = ("strict", "balanced", "lenient")
"""The points by rising threshold."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold by name, and what it does to some rows.

    Attributes:
        name: One of `POINTS`.
        threshold: Scores at or above it are flagged.
        target: What it was chosen by, in words; empty where it was only measured.
        fp: Benign rows flagged.
        recall: Attacks flagged.
        notes: What a reader must know before trusting it.
    """

    name: str
    threshold: float
    target: str
    fp: Rate
    recall: Rate
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For machines: as it stands in crywolf.json and in a package's metadata."""
        return {
            "threshold": self.threshold,
            "target": self.target,
            "fp": self.fp.to_dict(),
            "recall": self.recall.to_dict(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> "OperatingPoint":
        """The point that `to_dict` wrote."""
        rates = Rate.from_dict(data["fp"]), Rate.from_dict(data["recall"])
        return cls(name, float(data["threshold"]), str(data["target"]), *rates, tuple(data["notes"]))


def operating_points(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    chosen: Threshold,
    *,
    strict: Target,
    balanced: Target,
    lenient: Target,
    bound: Literal["point", "upper"] = "point",
) -> tuple[OperatingPoint, ...]:
    """The three points of a detector on the rows that its threshold was chosen on.

    A point that would pass `balanced` the wrong way is put where that stands, with a note. As the points are chosen on
    these very rows, what they do to them is a little kinder than what they will do to others.

    Args:
        scores: Calibrated scores of rows in natural proportions.
        labels: True or 1 for malicious.
        chosen: The detector's own threshold, which is `balanced`.
        strict: What `strict` must reach.
        balanced: What `chosen` was chosen by; it is only told.
        lenient: What `lenient` must reach.
        bound: See `choose_threshold`.
    """
    low = choose_threshold(scores, labels, target=strict, bound=bound)
    high = choose_threshold(scores, labels, target=lenient, bound=bound)
    strictly, leniently = list(low.notes), list(high.notes)
    if low.value > chosen.value:
        low, strictly = chosen, ["balanced catches no less than that already: strict is the same"]
    if high.value < chosen.value:
        high, leniently = chosen, ["balanced flags no more than that already: lenient is the same"]
    return (
        _point("strict", low, strict.text, strictly),
        _point("balanced", chosen, balanced.text, list(chosen.notes)),
        _point("lenient", high, lenient.text, leniently),
    )


def measure_points(
    scores: NDArray[np.floating[Any]], labels: NDArray[Any], thresholds: Mapping[str, float]
) -> tuple[OperatingPoint, ...]:
    """What thresholds that are given do to other rows: held-out ones, say.

    Args:
        scores: Scores of the rows.
        labels: True or 1 for malicious.
        thresholds: By name; a package's own may be given as they are (`default` is left out where `balanced` is there).
    """
    known = {name: thresholds[name] for name in POINTS if name in thresholds} or dict(thresholds)
    return tuple(_point(name, describe_threshold(value, scores, labels), "", []) for name, value in known.items())


def _point(name: str, threshold: Threshold, target: str, notes: Sequence[str]) -> OperatingPoint:
    fp = _rate(threshold.fp_rate, threshold.n_benign)
    return OperatingPoint(
        name, threshold.value, target, fp, _rate(threshold.recall, threshold.n_malicious), tuple(notes)
    )


def _rate(share: float, n: int) -> Rate:
    return Rate(round(share * n) if n else 0, n)
