"""Measures against scikit-learn and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from crywolf.data import BadInput
from crywolf.train.measure.intervals import Rate
from crywolf.train.measure.metrics import (
    auroc,
    average_precision,
    confident_correct,
    confusion,
    expected_calibration_error,
    fp_rate_at_recall,
    highest_fp_rate,
    precision_at,
    reliability,
    threshold_curve,
)

# Scores on a coarse grid, so that ties are the rule rather than the exception.
ROWS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=80)


def arrays(rows: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([score / 12 for score, _ in rows]), np.array([truth for _, truth in rows])


@given(ROWS)
def test_ranking_measures_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(rows)
    if truth.all() or not truth.any():
        assert math.isnan(auroc(scores, truth))
    else:
        assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    if truth.any():
        assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    else:
        assert math.isnan(average_precision(scores, truth))


@given(ROWS, st.integers(0, 12))
def test_confusion_is_scikit_learns(rows: list[tuple[int, bool]], at: int) -> None:
    scores, truth = arrays(rows)
    flagged = scores >= at / 12
    cells = confusion(scores, truth, at / 12)
    tn, fp, fn, tp = confusion_matrix(truth, flagged, labels=[False, True]).ravel()
    assert (cells.tn, cells.fp, cells.fn, cells.tp) == (tn, fp, fn, tp)
    if truth.any() or flagged.any():
        assert cells.f1 == pytest.approx(f1_score(truth, flagged))
    assert cells.fp_rate == Rate(int(fp), int(fp + tn))
    assert cells.accuracy.k == int((flagged == truth).sum())


@given(ROWS)
def test_reliability_counts_every_row_once(rows: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(rows)
    table = reliability(scores, truth, bins=7)
    assert table["n"].sum() == len(rows)
    assert table["k"].sum() == truth.sum()
    for row in table.iter_rows(named=True):
        top = row["bin_high"] >= 1.0
        inside = (scores >= row["bin_low"] - 1e-12) & (scores <= row["bin_high"] if top else scores < row["bin_high"])
        assert row["low"] <= row["rate"] <= row["high"]
        assert inside.sum() >= row["n"] - 1
    error = expected_calibration_error(scores, truth, bins=7)
    assert 0.0 <= error <= 1.0


def test_calibrated_scores_have_no_calibration_error_and_inverted_ones_all_of_it() -> None:
    truth = np.array([True] * 50 + [False] * 50)
    assert expected_calibration_error(truth.astype(float), truth) == 0.0
    assert expected_calibration_error(1.0 - truth, truth) == 1.0
    assert expected_calibration_error(np.full(100, 0.5), truth) == pytest.approx(0.0)


def test_confidence_is_of_the_verdict_whichever_it_is() -> None:
    scores = np.array([0.95, 0.9, 0.5, 0.1, 0.02])
    truth = np.array([True, False, True, True, False])
    assert confident_correct(scores, truth, above=0.85) == Rate(2, 4)


@given(ROWS)
def test_threshold_curve_is_the_confusion_at_each_threshold(rows: list[tuple[int, bool]]) -> None:
    scores, truth = arrays(rows)
    for row in threshold_curve(scores, truth, points=9).iter_rows(named=True):
        cells = confusion(scores, truth, row["threshold"])
        assert (row["fp"], row["tp"]) == (cells.fp, cells.tp)
        if cells.recall.n:
            assert (row["recall_low"], row["recall_high"]) == pytest.approx((cells.recall.low, cells.recall.high))
        else:
            assert row["recall"] is None


def test_precision_at_the_samples_own_prevalence_is_its_precision() -> None:
    cells = confusion(np.array([0.9] * 30 + [0.1] * 20 + [0.9] * 5 + [0.1] * 95), np.arange(150) < 50, 0.5)
    stated = precision_at(cells.fp_rate, cells.recall, cells.prevalence)
    assert stated.value == pytest.approx(cells.precision.value)
    assert stated.low < stated.value < stated.high


@given(st.integers(0, 40), st.integers(1, 60), st.sampled_from([0.5, 0.1, 0.01, 0.001]))
def test_precision_falls_with_prevalence_and_its_interval_holds_it(fp: int, tp: int, share: float) -> None:
    wrong, right = Rate(fp, 400), Rate(tp, 60)
    found = precision_at(wrong, right, share)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert precision_at(wrong, right, share / 2).value <= found.value


@given(st.floats(0.05, 0.99), st.floats(0.05, 1.0), st.floats(0.001, 0.9))
def test_the_highest_fp_rate_gives_just_the_precision_asked_for(precision: float, recall: float, share: float) -> None:
    fp_rate = highest_fp_rate(precision, recall, share)
    assert share * recall / (share * recall + (1 - share) * fp_rate) == pytest.approx(precision)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    for bad in ([1.2], [float("nan")], [-0.1]):
        with pytest.raises(BadInput, match="row 0"):
            confusion(bad, [True], 0.5)
    with pytest.raises(BadInput, match="one length"):
        confusion([0.1, 0.2], [True], 0.5)


def test_fp_rate_at_recall_is_read_at_the_highest_threshold_that_catches_enough() -> None:
    attacks = [0.9, 0.8, 0.7, 0.2]
    benign = [0.95, 0.75, 0.7, 0.3, 0.1]
    assert fp_rate_at_recall(benign, attacks, 0.5) == Rate(1, 5)  # threshold 0.8
    assert fp_rate_at_recall(benign, attacks, 0.75) == Rate(3, 5)  # threshold 0.7, ties are flagged
    assert fp_rate_at_recall(benign, attacks, 0.76) == Rate(4, 5)  # threshold 0.2
    assert fp_rate_at_recall([], attacks, 1.0) == Rate(0, 0)


@pytest.mark.parametrize(("attacks", "recall"), [([], 0.9), ([0.5], 0.0), ([0.5], 1.1)])
def test_fp_rate_at_recall_needs_attacks_and_a_share(attacks: list[float], recall: float) -> None:
    with pytest.raises(BadInput):
        fp_rate_at_recall([0.5], attacks, recall)
