"""A score is checked against what happened: in all, by language, and above 0.85 at a stated prevalence."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from crywolf.data import BadInput
from crywolf.train.learn.check import calibration_check
from crywolf.train.measure.intervals import Rate
from crywolf.train.measure.metrics import expected_calibration_error, precision_at


def _honest(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.5, 2, n)
    return scores, rng.random(n) < scores


def test_honest_scores_agree_and_shifted_ones_are_told_by_language() -> None:
    scores, labels = _honest(6000)
    languages = ["en"] * 3000 + ["de"] * 2000 + ["fr"] * 960 + ["ja"] * 40
    shifted = scores.copy()
    shifted[3000:5000] = np.minimum(scores[3000:5000] + 0.3, 1.0)
    shifted[5000:5960] *= 0.3
    check = calibration_check(shifted, labels, languages, 0.01)
    verdicts = dict(zip(check.languages["language"], check.languages["verdict"], strict=True))
    assert verdicts == {"en": "agrees", "de": "too high", "fr": "too low", "ja": "too few rows"}
    assert check.languages["n"].to_list() == [3000, 2000, 960, 40]
    assert check.languages["attacks"].sum() == labels.sum() == check.share.k
    assert check.ece == pytest.approx(expected_calibration_error(shifted, labels))
    json.dumps(check.to_dict())


def test_sure_alarms_are_judged_at_the_stated_prevalence() -> None:
    scores = np.array([0.9] * 95 + [0.1] * 5 + [0.9] * 1 + [0.86] * 1 + [0.85] * 10 + [0.2] * 1988)
    labels = np.arange(2100) < 100
    even, rare = (calibration_check(scores, labels, ["en"] * 2100, share) for share in (0.5, 0.001))
    assert (even.right, even.wrong) == (Rate(95, 100), Rate(2, 2000)), "a score of 0.85 is not above it"
    assert even.precision == precision_at(Rate(2, 2000), Rate(95, 100), 0.5)
    assert even.verdict == "pass"
    assert rare.verdict == "fail"
    assert rare.precision.high < 0.95
    assert "0.1% of the traffic" in rare.text


def test_few_rows_are_inconclusive_and_none_are_no_error() -> None:
    few = calibration_check(np.array([0.9, 0.1]), np.array([1, 0]), ["en", "en"], 0.5)
    assert few.verdict == "inconclusive"
    none = calibration_check(np.array([]), np.array([]), [], 0.5)
    assert none.languages.is_empty()
    assert none.to_dict()["ece"] is None


def test_columns_of_unlike_length_are_refused() -> None:
    with pytest.raises(BadInput, match="2 scores, 2 labels, 1 languages"):
        calibration_check(np.array([0.1, 0.2]), np.array([0, 1]), ["en"], 0.5)
