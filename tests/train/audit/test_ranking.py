"""AUC on unseen clusters: it agrees with scikit-learn, finds bands as well as trends, and says nothing of noise."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from crywolf.train.audit.ranking import _auc, auc_of, by_band, by_trees, by_value, make_folds, out_of_fold


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=60))
def test_a_weighted_auc_is_scikit_learn_s(rows: list[tuple[int, bool, int]]) -> None:
    code, malicious, weight = (np.array(column) for column in zip(*rows, strict=True))
    ours = _auc(code, malicious, weight)
    if weight[malicious].sum() == 0 or weight[~malicious].sum() == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(roc_auc_score(malicious, code, sample_weight=weight))


@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=1, max_size=80), st.integers(0, 5))
def test_no_cluster_is_in_two_folds(rows: list[tuple[int, bool]], seed: int) -> None:
    clusters, malicious = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    folds = make_folds(malicious, clusters, rng=np.random.default_rng(seed))
    for cluster in np.unique(clusters):
        assert len(set(folds.fold[clusters == cluster])) == 1
        assert len({tuple(column) for column in folds.draws[:, clusters == cluster].T}) == 1


def planted(seed: int = 0, rows: int = 1200) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.random(rows) < 0.3, np.arange(rows), rng


def test_each_fold_has_rows_of_both_labels() -> None:
    malicious, clusters, rng = planted()
    folds = make_folds(malicious, clusters, rng=rng)
    assert folds.count == 5
    shares = [malicious[folds.fold == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.01


def test_a_band_in_the_middle_is_found_where_a_trend_says_nothing() -> None:
    malicious, clusters, rng = planted()
    values = np.where(malicious, rng.uniform(0.4, 0.6, len(malicious)), rng.uniform(0, 1, len(malicious)))
    folds = make_folds(malicious, clusters, rng=rng)
    assert abs(auc_of(folds, values).value - 0.5) < 0.06
    found = auc_of(folds, out_of_fold(folds, by_band(pl.Series(values), malicious)))
    assert found.low > 0.85


def test_noise_ranks_nothing_however_many_values_it_has() -> None:
    malicious, clusters, rng = planted()
    folds = make_folds(malicious, clusters, rng=rng)
    names = pl.Series([f"w{value}" for value in rng.integers(0, 400, len(malicious))])
    numbers = pl.DataFrame({"a": rng.random(len(malicious)), "b": rng.random(len(malicious))})
    for estimator in (
        by_value(names, malicious),
        by_band(numbers["a"], malicious),
        by_trees(numbers, pl.DataFrame({"n": names}), malicious),
    ):
        auc = auc_of(folds, out_of_fold(folds, estimator))
        assert auc.low < 0.5 < auc.high


def test_copies_of_a_prompt_do_not_narrow_the_interval() -> None:
    malicious, clusters, rng = planted(rows=300)
    values = np.where(malicious, 0.5, 0.0) + rng.random(300)
    alone = auc_of(make_folds(malicious, clusters, rng=np.random.default_rng(1)), values)
    ten = [np.repeat(column, 10) for column in (malicious, clusters, values)]
    copied = auc_of(make_folds(ten[0], ten[1], rng=np.random.default_rng(1)), ten[2])
    assert copied.high - copied.low > 0.8 * (alone.high - alone.low)


def test_one_attack_is_too_few_to_rank() -> None:
    malicious = np.array([True, False, False, False])
    auc = auc_of(make_folds(malicious, np.arange(4), rng=np.random.default_rng(0)), np.arange(4.0))
    assert math.isnan(auc.value)
    assert auc.text == "too few rows"
    assert auc.to_dict()["value"] is None
