"""Calibration and threshold: from margins on validation rows to probabilities and a decision.

Takes margins or scores and labels in natural proportions, gives Platt's scale and bias and the threshold that keeps an
FP or recall bound, or costs least. Every result carries the counts that it rests on and notes in plain words where
those are too few.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crywolf.data import LABELS, BadInput

from .model import Calibration, TrainedModel, sigmoid, update_meta
from .target import Target

if TYPE_CHECKING:
    import polars as pl

    from .operating import OperatingPoint


STRICT = "recall 98%"
"""What the operating point `strict` reaches unless a recipe says otherwise."""
LENIENT = "fp 0.1%"
"""What the operating point `lenient` keeps unless a recipe says otherwise."""


@dataclass(frozen=True)
class Platt:
    """Scale and bias fitted to margins; `calibration` applies them."""

    scale: float
    bias: float
    n_benign: int
    n_malicious: int
    notes: tuple[str, ...] = ()

    @property
    def calibration(self) -> Calibration:
        """The function from margin to score."""
        return Calibration(scale=self.scale, bias=self.bias)


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it does to the rows it was chosen on.

    Attributes:
        value: A row is flagged if its score is at least this; never above 1.
        fp_rate: Share of benign rows flagged; NaN without benign rows.
        fp_high: Upper end of the 95% Wilson interval of `fp_rate`.
        recall: Share of malicious rows flagged; NaN without malicious rows.
        precision: At the proportions of these rows; NaN if nothing is flagged.
        n_benign: Benign rows that it rests on.
        n_malicious: Malicious rows that it rests on.
        notes: What a reader must know before trusting it.
    """

    value: float
    fp_rate: float
    fp_high: float
    recall: float
    precision: float
    n_benign: int
    n_malicious: int
    notes: tuple[str, ...] = ()


def fit_platt(margins: NDArray[np.floating[Any]], labels: NDArray[Any]) -> Platt:
    """Platt's sigmoid by maximum likelihood, with his prior-corrected targets.

    The targets are (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0, so the fit stays finite on separable rows.
    With one class only, or margins that run the wrong way, nothing can be fitted: scale 1 (and bias 0) come back with
    a note.

    Args:
        margins: logit(MALICIOUS) - logit(BENIGN) of rows in natural proportions.
        labels: True or 1 for malicious.
    """
    x, y = _checked(margins, labels)
    n1 = int(y.sum())
    n0 = len(y) - n1
    if not n0 or not n1:
        note = f"calibration skipped: no {LABELS[0] if not n0 else LABELS[1]} rows among {len(y)}; scores are raw"
        return Platt(1.0, 0.0, n0, n1, (note,))
    targets = np.where(y, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    scale, bias = _newton(x, targets)
    if not (math.isfinite(scale) and math.isfinite(bias)) or scale <= 0:
        note = "calibration skipped: margins do not rise with maliciousness on these rows; scores are raw"
        return Platt(1.0, 0.0, n0, n1, (note,))
    notes = () if min(n0, n1) >= 30 else (f"calibrated on few rows: {n0} benign, {n1} malicious",)
    return Platt(scale, bias, n0, n1, notes)


def choose_threshold(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    *,
    fp_target: float = 0.01,
    bound: Literal["point", "upper"] = "point",
    min_recall: float | None = None,
    target: Target | None = None,
) -> Threshold:
    """The threshold with the highest recall that keeps the FP target on these rows, or reaches another target.

    Of all thresholds whose FP rate is at most `fp_target`, the lowest one catches most attacks. From there the
    threshold is raised as far as no caught attack is lost (which can only save FPs), and set midway in the gap between
    two scores, so that rounding decides nothing. For a recall target it is the highest threshold that reaches it, for a
    cost target see `cheapest_threshold`.

    Args:
        scores: Calibrated scores of rows in natural proportions.
        labels: True or 1 for malicious.
        fp_target: The largest FP rate on benign rows.
        bound: `point` holds the measured rate to the target; `upper` the worse end of its 95% Wilson interval, which
            needs rows (381 without a single FP for 1%); with fewer, `point` is used and a note says so.
        min_recall: If the threshold found has less recall, the highest one that reaches it is taken instead, the
            target gives way, and a note says so.
        target: Takes the place of `fp_target`.
    """
    aim = target or Target("fp", bound=fp_target)
    s, y = _checked(scores, labels)
    benign, malicious = np.sort(s[~y]), np.sort(s[y])
    if not len(s):
        return Threshold(0.5, math.nan, math.nan, math.nan, math.nan, 0, 0, ("threshold 0.5: no rows to choose it on",))
    notes: list[str] = []
    value = _aimed(aim, benign, malicious, bound, notes)
    if min_recall is not None and len(malicious) and _share_at(malicious, value) < min_recall:
        value = _reach_recall(benign, malicious, min_recall)
        notes.append(
            f"threshold lowered to {value:.4f} to reach recall {min_recall:.0%}; the target ({aim.text}) "
            f"gives way: FP rate {_share_at(benign, value):.2%}"
        )
    return _describe(value, benign, malicious, aim, notes)


def cheapest_threshold(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    *,
    fp_cost: float,
    miss_cost: float,
    prevalence: float,
) -> Threshold:
    """The threshold at which mistakes cost least, where so large a share of the traffic is attacks.

    The cost of a prompt is, in the mean, (1 - prevalence) x fp_cost x FP rate + prevalence x miss_cost x (1 - recall),
    with both rates as these rows give them; of equally cheap thresholds the highest is taken. The rows' own share of
    attacks plays no part.
    """
    aim = Target("cost", fp_cost=fp_cost, miss_cost=miss_cost, prevalence=prevalence)
    return choose_threshold(scores, labels, target=aim)


def describe_threshold(value: float, scores: NDArray[np.floating[Any]], labels: NDArray[Any]) -> Threshold:
    """What a threshold that is given does to these rows."""
    s, y = _checked(scores, labels)
    return _describe(value, np.sort(s[~y]), np.sort(s[y]), None, ())


def calibrate(
    margins: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    *,
    fp_target: float = 0.01,
    bound: Literal["point", "upper"] = "point",
    min_recall: float | None = None,
    target: Target | None = None,
) -> tuple[Platt, Threshold]:
    """`fit_platt`, then `choose_threshold` on the calibrated scores of the same rows."""
    platt = fit_platt(margins, labels)
    scores = platt.calibration(np.asarray(margins))
    chosen = choose_threshold(scores, labels, fp_target=fp_target, bound=bound, min_recall=min_recall, target=target)
    return platt, chosen


def recalibrate(
    model_dir: str | Path,
    rows: "pl.DataFrame",
    *,
    fp_target: float = 0.01,
    bound: Literal["point", "upper"] = "point",
    min_recall: float | None = None,
    strict: str = STRICT,
    balanced: str | None = None,
    lenient: str = LENIENT,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Platt, Threshold]:
    """Calibrate a trained model anew on contract rows in natural proportions, and write the result into its folder.

    The weights stay as they are. Use it when production's mix of benign and malicious differs from validation's. The
    three operating points are chosen anew too; see `operating.operating_points`.
    """
    from .operating import operating_points

    aims = Target.parse(strict), Target.parse(lenient)
    target = None if balanced is None else Target.parse(balanced)
    model = TrainedModel.load(model_dir)
    margins, labels = model.margins(rows["text"].to_list(), progress=progress), malicious_mask(rows)
    platt, threshold = calibrate(
        margins, labels, fp_target=fp_target, bound=bound, min_recall=min_recall, target=target
    )
    points = operating_points(
        platt.calibration(margins),
        labels,
        threshold,
        strict=aims[0],
        balanced=target or Target("fp", bound=fp_target),
        lenient=aims[1],
        bound=bound,
    )
    update_meta(Path(model_dir), calibration_fields(platt, threshold, points))
    return platt, threshold


def calibration_fields(platt: Platt, threshold: Threshold, points: "Sequence[OperatingPoint]" = ()) -> dict[str, Any]:
    """The part of crywolf.json that calibration decides."""
    numbers = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in vars(threshold).items()
        if name != "notes"
    }
    return {
        "calibration": {"scale": platt.scale, "bias": platt.bias},
        "threshold": threshold.value,
        "threshold_on_validation": numbers,
        "calibration_notes": list(platt.notes),
        "threshold_notes": list(threshold.notes),
        "operating_points": {point.name: point.to_dict() for point in points},
    }


def malicious_mask(rows: "pl.DataFrame") -> NDArray[np.bool_]:
    """True where a contract row is malicious."""
    import polars as pl

    return np.asarray((rows["label"].cast(pl.String) == LABELS[1]).to_numpy(), dtype=np.bool_)


def _checked(values: NDArray[np.floating[Any]], labels: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    y = np.asarray(labels).reshape(-1).astype(np.bool_)
    if len(x) != len(y):
        raise BadInput(f"calibration: {len(x)} scores but {len(y)} labels")
    if not np.isfinite(x).all():
        raise BadInput(f"calibration: {int((~np.isfinite(x)).sum())} of {len(x)} scores are not finite numbers")
    return x, y


def _newton(x: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float]:
    """Minimize the cross-entropy of sigmoid(a x + b): Newton with backtracking (Lin, Lin and Weng 2007)."""
    spread = float(x.std()) or 1.0
    centre = float(x.mean())
    z = (x - centre) / spread  # standardized, so that one set of tolerances serves margins of any size
    prior = float(targets.mean())
    a, b = 0.0, math.log(prior / (1 - prior))
    best = _cross_entropy(z, targets, a, b)
    for _ in range(100):
        f = a * z + b
        p = sigmoid(f)
        gap, w = p - targets, p * (1 - p)
        ga, gb = float(gap @ z), float(gap.sum())
        if max(abs(ga), abs(gb)) < 1e-9 * len(z):
            break
        haa, hbb, hab = float(w @ (z * z)) + 1e-12, float(w.sum()) + 1e-12, float(w @ z)
        det = haa * hbb - hab * hab
        if det <= 0:
            break
        da, db = -(hbb * ga - hab * gb) / det, -(haa * gb - hab * ga) / det
        step = 1.0
        while step > 1e-10:
            trial = _cross_entropy(z, targets, a + step * da, b + step * db)
            if trial < best + 1e-4 * step * (ga * da + gb * db):
                a, b, best = a + step * da, b + step * db, trial
                break
            step /= 2
        else:
            break
    return a / spread, b - a * centre / spread


def _cross_entropy(z: NDArray[np.float64], targets: NDArray[np.float64], a: float, b: float) -> float:
    f = a * z + b
    return float((np.logaddexp(0.0, f) - targets * f).sum())


def _aimed(
    aim: Target, benign: NDArray[np.float64], malicious: NDArray[np.float64], bound: str, notes: list[str]
) -> float:
    """The threshold that a target asks for; 0.5 and a note where there are no rows to choose it on."""
    missing = {"fp": not len(benign), "recall": not len(malicious), "cost": not (len(benign) and len(malicious))}
    if missing[aim.kind]:
        lacking = LABELS[0].lower() if not len(benign) else LABELS[1].lower()
        notes.append(f"threshold 0.5: no {lacking} rows to choose it on")
        return 0.5
    if aim.kind == "fp":
        return _place(benign, malicious, _allowed_fps(len(benign), aim.bound, bound, notes))
    if aim.kind == "recall":
        return _reach_recall(benign, malicious, _needed_share(len(malicious), aim.bound, bound, notes))
    return _cheapest(benign, malicious, aim)


def _needed_share(n_malicious: int, recall: float, bound: str, notes: list[str]) -> float:
    """The share of attacks to catch, so that the measured recall or the lower end of its interval reaches `recall`."""
    from ..measure.intervals import wilson

    if bound == "point":
        return recall
    if wilson(n_malicious, n_malicious)[0] < recall:
        notes.append(
            f"{n_malicious} attacks are too few to bound a recall by {recall:.1%}; "
            "the threshold holds the measured recall to it instead"
        )
        return recall
    low, high = math.ceil(recall * n_malicious), n_malicious  # the bound rises with the count: bisect
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wilson(middle, n_malicious)[0] >= recall else (middle + 1, high)
    return low / n_malicious


def _cheapest(benign: NDArray[np.float64], malicious: NDArray[np.float64], aim: Target) -> float:
    """The highest of the thresholds whose mistakes cost least."""
    every = np.unique(np.concatenate([benign, malicious]))[::-1]
    flagged = 1 - np.searchsorted(benign, every, side="left") / len(benign)
    missed = np.searchsorted(malicious, every, side="left") / len(malicious)
    costs = (1 - aim.prevalence) * aim.fp_cost * flagged + aim.prevalence * aim.miss_cost * missed
    at = int(np.argmin(np.round(costs, 15)))
    if costs[at] < aim.prevalence * aim.miss_cost - 1e-15:
        return _midway(float(every[at]), benign, malicious)
    # To flag nothing at all is cheaper still.
    return min(1.0, float(np.nextafter(max(float(every[0]), 0.5), math.inf)))


def _allowed_fps(n_benign: int, fp_target: float, bound: str, notes: list[str]) -> int:
    """How many benign rows may be flagged."""
    from ..measure.intervals import wilson

    point = min(math.floor(fp_target * n_benign + 1e-9), n_benign - 1)
    if bound == "point":
        return point
    if wilson(0, n_benign)[1] > fp_target:
        notes.append(
            f"{n_benign} benign rows are too few to bound an FP rate by {fp_target:.2%}; "
            "the threshold holds the measured rate to it instead"
        )
        return point
    low, high = 0, point  # the bound rises with the count: bisect
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wilson(middle, n_benign)[1] <= fp_target else (low, middle - 1)
    return low


def _place(benign: NDArray[np.float64], malicious: NDArray[np.float64], allowed: int) -> float:
    """The threshold of highest recall that flags at most `allowed` benign rows; see `choose_threshold`."""
    barred = float(benign[-1 - allowed])  # the threshold must pass over this; a target under 1 leaves at least one
    caught = malicious[malicious > barred]
    if len(caught):
        return _midway(float(caught[0]), benign, malicious)
    # No attack can be caught within the target: just over the barred score, or over the highest malicious one.
    above = benign[benign > barred]
    return min(1.0, (barred + float(above[0])) / 2 if len(above) else float(np.nextafter(max(barred, 0.5), math.inf)))


def _reach_recall(benign: NDArray[np.float64], malicious: NDArray[np.float64], min_recall: float) -> float:
    """The highest threshold that catches `min_recall` of the malicious rows."""
    needed = max(1, math.ceil(min_recall * len(malicious) - 1e-9))
    return _midway(float(malicious[-needed]), benign, malicious)


def _midway(caught: float, benign: NDArray[np.float64], malicious: NDArray[np.float64]) -> float:
    """A threshold at or under `caught`, midway to the next lower score of either class."""
    below = [float(part[part < caught][-1]) for part in (benign, malicious) if (part < caught).any()]
    middle = (caught + max(below)) / 2 if below else caught / 2
    # Two neighbouring floats have no middle: the midpoint may round down onto the lower one.
    return caught if below and middle <= max(below) else middle


def _share_at(ordered: NDArray[np.float64], threshold: float) -> float:
    return float((ordered >= threshold).mean()) if len(ordered) else math.nan


def _describe(
    value: float,
    benign: NDArray[np.float64],
    malicious: NDArray[np.float64],
    aim: Target | None,
    notes: Sequence[str],
) -> Threshold:
    from ..measure.intervals import wilson

    false, true = int((benign >= value).sum()), int((malicious >= value).sum())
    fp_rate, recall = _share_at(benign, value), _share_at(malicious, value)
    told = list(notes)
    if aim is not None and aim.kind == "fp":
        told += _fp_notes(fp_rate, len(benign), aim.bound, told)
    if not len(malicious):
        told.append("no malicious rows: recall at the threshold is unknown")
    elif recall < 0.9:
        told.append(f"recall at the threshold is only {recall:.1%} of {len(malicious)} malicious rows")
    return Threshold(
        value=value,
        fp_rate=fp_rate,
        fp_high=wilson(false, len(benign))[1] if len(benign) else math.nan,
        recall=recall,
        precision=true / (true + false) if true + false else math.nan,
        n_benign=len(benign),
        n_malicious=len(malicious),
        notes=tuple(told),
    )


def _fp_notes(fp_rate: float, n_benign: int, fp_target: float, told: Sequence[str]) -> list[str]:
    """What to say where the rows cannot show the target, or no threshold reaches it."""
    from ..measure.intervals import rows_needed

    notes = []
    needed = rows_needed(fp_target) if 0 < fp_target < 1 else 0
    if n_benign < needed:
        notes.append(f"{n_benign} benign rows cannot show an FP rate under {fp_target:.2%}: {needed} are needed")
    if fp_rate > fp_target + 1e-12 and not any("gives way" in note for note in told):
        notes.append(f"benign rows score as high as 1: the FP rate stays at {fp_rate:.2%}, target {fp_target:.2%}")
    return notes
