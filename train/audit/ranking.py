"""How well something ranks attacks over benign rows: AUC on rows that its estimator has not seen, with an interval.

Takes features and labels with the cluster of each row, gives `Auc`. Clusters never straddle a fold, and the interval
comes from drawing whole clusters, so that copies of a prompt count as one observation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .cells import band_edges

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
FitScore = Callable[[Ints, Ints], Floats]
"""Rows to fit on and rows to score, both as positions; gives a score for each of the latter."""

FOLDS = 5
DRAWS = 200
_SHRINK = 5.0  # rows of prior in a target encoding


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve, mean over folds, with a 95% interval; nan where a label has too few clusters."""

    value: float
    low: float
    high: float
    rows: int

    @property
    def text(self) -> str:
        """For people: '0.91 (0.90 to 0.92)'."""
        return "too few rows" if math.isnan(self.value) else f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def to_dict(self) -> dict[str, Any]:
        """For machines; nan becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {**{k: None if math.isnan(v) else v for k, v in numbers.items()}, "rows": self.rows}


@dataclass(frozen=True)
class Folds:
    """Which fold each row is in, and the draws of clusters that intervals come from; shared by all traits.

    Attributes:
        fold: by row, 0 to count - 1.
        count: number of folds; below 2 nothing can be estimated.
        malicious: by row.
        draws: (DRAWS, rows) times that each row's cluster was drawn.
    """

    fold: Ints
    count: int
    malicious: Mask
    draws: NDArray[np.uint8]


def make_folds(malicious: Mask, clusters: Ints, *, rng: np.random.Generator, folds: int = FOLDS) -> Folds:
    """Deal clusters into folds, each label's and each size's spread evenly.

    A cluster with rows of both labels is dealt with the attacks.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    cluster = cluster.reshape(-1).astype(np.int64)
    size = np.bincount(cluster)
    attacks = np.bincount(cluster, weights=malicious) > 0
    count = int(min(folds, attacks.sum(), (~attacks).sum()))
    luck = rng.random(len(size))
    order = np.lexsort((luck, -size, attacks))
    dealt = np.empty(len(size), dtype=np.int64)
    for label in (False, True):
        mine = order[attacks[order] == label]
        dealt[mine] = np.arange(len(mine)) % max(count, 1)
    drawn = rng.poisson(1.0, size=(DRAWS, len(size))).astype(np.uint8)
    return Folds(dealt[cluster], count, malicious, drawn[:, cluster])


def out_of_fold(folds: Folds, fit_score: FitScore) -> Floats:
    """Score every row by an estimator that was fitted on the other folds."""
    scores = np.zeros(len(folds.fold))
    for fold in range(folds.count):
        test = np.flatnonzero(folds.fold == fold)
        scores[test] = fit_score(np.flatnonzero(folds.fold != fold), test)
    return scores


def auc_of(folds: Folds, scores: Floats) -> Auc:
    """The AUC of out-of-fold scores.

    It is taken fold by fold and averaged: scores of two estimators are not on one scale, and pooling them would press
    the AUC of a trait that says nothing below one half.
    """
    rows = len(scores)
    if folds.count < 2:
        return Auc(math.nan, math.nan, math.nan, rows)
    values, drawn = [], []
    for fold in range(folds.count):
        at = np.flatnonzero(folds.fold == fold)
        _, code = np.unique(scores[at], return_inverse=True)
        code = code.reshape(-1)
        values.append(_auc(code, folds.malicious[at], np.ones(len(at))))
        drawn.append([_auc(code, folds.malicious[at], weights[at]) for weights in folds.draws])
    table = np.array(drawn)
    known = ~np.isnan(table).all(axis=0)  # a draw of few rows may hold one label only
    if not known.any():
        return Auc(math.nan, math.nan, math.nan, rows)
    low, high = np.percentile(np.nanmean(table[:, known], axis=0), [2.5, 97.5])
    value = float(np.mean(values))
    return Auc(value, min(float(low), value), max(float(high), value), rows)


def _auc(code: Ints, malicious: Mask, weights: NDArray[Any]) -> float:
    """Weighted AUC of ranks, a tie counting half; nan where a label has no weight."""
    size = int(code.max()) + 1
    attacks = np.bincount(code[malicious], weights=weights[malicious], minlength=size)
    benign = np.bincount(code[~malicious], weights=weights[~malicious], minlength=size)
    pairs = attacks.sum() * benign.sum()
    below = np.cumsum(benign) - benign / 2
    return float((attacks * below).sum() / pairs) if pairs else math.nan


def by_value(values: pl.Series, malicious: Mask) -> FitScore:
    """Score a row by the share of attacks among the fitted rows that have its value (target encoding)."""
    code = values.rank("dense").cast(pl.Int64).to_numpy() - 1
    size = int(code.max()) + 1

    def fit_score(fit: Ints, test: Ints) -> Floats:
        prior = malicious[fit].mean()
        rows = np.bincount(code[fit], minlength=size)
        attacks = np.bincount(code[fit], weights=malicious[fit], minlength=size)
        return np.asarray(((attacks + _SHRINK * prior) / (rows + _SHRINK))[code[test]], dtype=np.float64)

    return fit_score


_MAX_VALUES = 200
_MAX_BANDS = 50
_BAND_ROWS = 10  # of the rarer label, for each band


def by_band(values: pl.Series, malicious: Mask) -> FitScore:
    """Score a row by the share of attacks in its band of numbers, so that a telling band in the middle counts too."""
    numbers = values.cast(pl.Float64).to_numpy()

    def fit_score(fit: Ints, test: Ints) -> Floats:
        rarer = int(min(malicious[fit].sum(), (~malicious[fit]).sum()))
        edges = band_edges(numbers[fit], malicious[fit], min(max(rarer // _BAND_ROWS, 4), _MAX_BANDS))
        bands = pl.Series(np.searchsorted(edges, numbers, side="left"))
        return by_value(bands, malicious)(fit, test)

    return fit_score


def by_trees(numbers: pl.DataFrame, names: pl.DataFrame, malicious: Mask) -> FitScore:
    """Score a row by small boosted trees, for traits of several columns.

    Args:
        numbers: columns of numbers.
        names: columns of names; those beyond the commonest two hundred of a column count as one.
        malicious: by row.
    """
    parts = [numbers.cast(pl.Float64).to_numpy(), *(_codes(names[name]) for name in names.columns)]
    table = np.column_stack([part.reshape(len(malicious), -1) for part in parts])
    categorical = [numbers.width + at for at in range(names.width)]

    def fit_score(fit: Ints, test: Ints) -> Floats:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            max_iter=60,
            max_depth=4,
            learning_rate=0.15,
            early_stopping=False,
            class_weight="balanced",
            categorical_features=categorical or None,
            random_state=0,
        )
        model.fit(table[fit], malicious[fit])
        return np.asarray(model.decision_function(table[test]), dtype=np.float64)

    return fit_score


def _codes(values: pl.Series) -> Floats:
    common = values.value_counts(sort=True).sort("count", values.name, descending=[True, False])[values.name]
    codes = {value: at for at, value in enumerate(common.head(_MAX_VALUES).to_list())}
    column = values.replace_strict(codes, default=_MAX_VALUES, return_dtype=pl.Float64)
    return np.asarray(column.to_numpy(), dtype=np.float64)
