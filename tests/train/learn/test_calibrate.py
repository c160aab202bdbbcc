"""Calibration recovers known odds and bends under no data; the threshold keeps its target."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crywolf.data import BadInput
from crywolf.train.learn.calibrate import Threshold, calibrate, cheapest_threshold, choose_threshold, fit_platt
from crywolf.train.learn.model import Calibration
from crywolf.train.learn.target import Target
from crywolf.train.measure.intervals import wilson


def _sample(n: int, scale: float, bias: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 3, n)
    return margins, rng.random(n) < Calibration(scale, bias)(margins)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.3, -2.0), (4.0, 3.0)])
def test_platt_finds_the_odds_that_made_the_rows(scale: float, bias: float) -> None:
    platt = fit_platt(*_sample(40_000, scale, bias))
    assert platt.scale == pytest.approx(scale, rel=0.1)
    assert platt.bias == pytest.approx(bias, abs=0.2)
    assert platt.notes == ()


def test_platt_agrees_with_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    margins, labels = _sample(5_000, 0.7, -1.0)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(margins[:, None], labels)
    platt = fit_platt(margins, labels)
    assert platt.scale == pytest.approx(reference.coef_[0, 0], rel=5e-3)  # the corrected targets pull a little
    assert platt.bias == pytest.approx(reference.intercept_[0], abs=2e-2)


def test_scores_in_the_mean_are_the_share_of_attacks() -> None:
    margins, labels = _sample(5_000, 0.5, -3.0)
    platt = fit_platt(margins, labels)
    assert platt.calibration(margins).mean() == pytest.approx(labels.mean(), abs=2e-3)


def test_separable_rows_give_finite_scale_and_scores_short_of_certainty() -> None:
    margins = np.concatenate([np.linspace(-9, -1, 50), np.linspace(1, 9, 50)])
    labels = np.repeat([False, True], 50)
    platt = fit_platt(margins, labels)
    scores = platt.calibration(margins)
    assert 0 < platt.scale < 100
    assert scores[~labels].max() < 0.5 < scores[labels].min()
    assert scores.max() < 1


def test_all_margins_alike_give_the_prior() -> None:
    platt = fit_platt(np.zeros(100), np.arange(100) < 20)
    assert platt.calibration(np.zeros(1))[0] == pytest.approx(0.2, abs=0.02) or platt.notes


@pytest.mark.parametrize("label", [0, 1])
def test_a_missing_class_leaves_scores_raw_and_says_so(label: int) -> None:
    platt = fit_platt(np.array([1.0, 2.0]), np.array([label, label]))
    assert (platt.scale, platt.bias) == (1.0, 0.0)
    assert "calibration skipped" in platt.notes[0]


def test_margins_that_run_the_wrong_way_are_not_turned_round() -> None:
    platt = fit_platt(np.linspace(-3, 3, 200), np.arange(200) < 100)
    assert (platt.scale, platt.bias) == (1.0, 0.0)
    assert platt.notes


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadInput, match="1 of 2 scores are not finite"):
        fit_platt(np.array([np.nan, 1.0]), np.array([0, 1]))
    with pytest.raises(BadInput, match="3 scores but 2 labels"):
        choose_threshold(np.array([0.1, 0.2, 0.3]), np.array([0, 1]))


def _brute_force(scores: NDArray[np.float64], labels: NDArray[np.bool_], fp_target: float) -> float:
    """The highest recall of any threshold that keeps the target."""
    candidates = np.append(np.unique(scores), np.inf)
    kept = [t for t in candidates if (scores[~labels] >= t).mean() <= fp_target + 1e-12]
    return max(float((scores[labels] >= t).mean()) for t in kept)


rows = st.lists(st.tuples(st.integers(0, 40).map(lambda k: k / 41), st.booleans()), min_size=4, max_size=120).filter(
    lambda pairs: 0 < sum(label for _, label in pairs) < len(pairs)
)


@settings(max_examples=200, deadline=None)
@given(rows=rows, fp_target=st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_threshold_keeps_the_target_at_the_best_recall(rows: list[tuple[float, bool]], fp_target: float) -> None:
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    chosen = choose_threshold(scores, labels, fp_target=fp_target)
    assert (scores[~labels] >= chosen.value).mean() <= fp_target + 1e-12
    assert chosen.fp_rate == (scores[~labels] >= chosen.value).mean()
    assert chosen.recall == (scores[labels] >= chosen.value).mean()
    assert chosen.recall == pytest.approx(_brute_force(scores, labels, fp_target))
    assert 0 < chosen.value <= 1


def test_no_false_positive_is_spent_that_buys_no_recall() -> None:
    scores = np.concatenate([np.linspace(0.01, 0.4, 1000), np.full(50, 0.9)])
    labels = np.arange(1050) >= 1000
    chosen = choose_threshold(scores, labels, fp_target=0.05)
    assert chosen.fp_rate == 0
    assert chosen.value == pytest.approx(0.65)


def test_upper_bound_allows_fewer_false_positives_than_the_point() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.beta(1, 6, 2000), rng.beta(6, 2, 500)])
    labels = np.arange(2500) >= 2000
    point = choose_threshold(scores, labels, fp_target=0.02)
    upper = choose_threshold(scores, labels, fp_target=0.02, bound="upper")
    assert upper.value > point.value
    assert upper.fp_high <= 0.02 < point.fp_high
    assert upper.fp_high == pytest.approx(wilson(round(upper.fp_rate * 2000), 2000)[1])


def test_too_few_rows_for_the_upper_bound_fall_back_and_say_so() -> None:
    scores = np.concatenate([np.full(100, 0.1), np.full(100, 0.9)])
    chosen = choose_threshold(scores, np.arange(200) >= 100, fp_target=0.01, bound="upper")
    assert chosen.recall == 1
    assert any("too few" in note for note in chosen.notes)
    assert any("381 are needed" in note for note in chosen.notes)


def test_benign_rows_at_one_keep_the_threshold_at_one_with_a_note() -> None:
    chosen = choose_threshold(np.array([1.0, 1.0, 0.2, 1.0]), np.array([0, 0, 0, 1]))
    assert chosen.value == 1.0
    assert any("stays at" in note for note in chosen.notes)


def test_low_recall_is_told_and_min_recall_lets_the_target_give_way() -> None:
    scores = np.array([0.1] * 90 + [0.8] * 10 + [0.5] * 50 + [0.9] * 50)
    labels = np.arange(200) >= 100
    strict = choose_threshold(scores, labels, fp_target=0.01)
    assert strict.recall == 0.5
    assert any("recall at the threshold is only 50.0%" in note for note in strict.notes)
    eased = choose_threshold(scores, labels, fp_target=0.01, min_recall=0.9)
    assert eased.recall == 1.0
    assert eased.fp_rate == pytest.approx(0.1)
    assert any("gives way" in note for note in eased.notes)


def test_missing_classes_are_told() -> None:
    only_benign = choose_threshold(np.linspace(0, 0.9, 1000), np.zeros(1000), fp_target=0.01)
    assert only_benign.fp_rate <= 0.01
    assert math.isnan(only_benign.recall)
    assert any("no malicious rows" in note for note in only_benign.notes)
    only_malicious = choose_threshold(np.linspace(0.5, 0.9, 10), np.ones(10))
    assert only_malicious.value == 0.5
    assert any("no benign rows" in note for note in only_malicious.notes)
    nothing = choose_threshold(np.array([]), np.array([]))
    assert isinstance(nothing, Threshold)
    assert nothing.value == 0.5


def test_calibrate_chooses_the_threshold_on_calibrated_scores() -> None:
    margins, labels = _sample(20_000, 0.5, -3.0)
    platt, threshold = calibrate(margins, labels, fp_target=0.02)
    scores = platt.calibration(margins)
    assert (scores[~labels] >= threshold.value).mean() <= 0.02
    assert threshold.n_benign == int((~labels).sum())


@settings(max_examples=150, deadline=None)
@given(rows=rows, miss=st.sampled_from([0.5, 5.0, 200.0]), prevalence=st.sampled_from([0.01, 0.3]))
def test_no_threshold_costs_less_than_the_cheapest(
    rows: list[tuple[float, bool]], miss: float, prevalence: float
) -> None:
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    aim = Target("cost", fp_cost=1.0, miss_cost=miss, prevalence=prevalence)

    def cost(threshold: float) -> float:
        return aim.cost(float((scores[~labels] >= threshold).mean()), float((scores[labels] >= threshold).mean()))

    chosen = cheapest_threshold(scores, labels, fp_cost=1.0, miss_cost=miss, prevalence=prevalence)
    assert cost(chosen.value) <= min(cost(t) for t in [*np.unique(scores), 2.0]) + 1e-9
    assert cost(chosen.value) == pytest.approx(aim.cost(chosen.fp_rate, chosen.recall))


def test_a_dearer_miss_lowers_the_threshold() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.beta(1, 6, 2000), rng.beta(4, 2, 500)])
    labels = np.arange(2500) >= 2000
    values = [
        cheapest_threshold(scores, labels, fp_cost=1, miss_cost=miss, prevalence=0.05).value for miss in (1, 20, 400)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[2]


def test_a_recall_target_takes_the_highest_threshold_that_reaches_it() -> None:
    scores = np.array([0.1] * 50 + [0.2, 0.4, 0.6, 0.8])
    labels = np.arange(54) >= 50
    chosen = choose_threshold(scores, labels, target=Target("recall", bound=0.75))
    assert chosen.recall == 0.75
    assert 0.2 < chosen.value <= 0.4
    assert choose_threshold(scores[:50], labels[:50], target=Target("recall", bound=0.75)).value == 0.5


def test_min_recall_makes_a_cost_target_give_way() -> None:
    scores = np.array([0.1] * 90 + [0.8] * 10 + [0.5] * 50 + [0.9] * 50)
    aim = Target("cost", fp_cost=100, miss_cost=1, prevalence=0.01)
    chosen = choose_threshold(scores, np.arange(200) >= 100, target=aim, min_recall=0.9)
    assert chosen.recall == 1.0
    assert any("gives way" in note for note in chosen.notes)
