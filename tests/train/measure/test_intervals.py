"""Intervals against independent references: scipy's Wilson, Newcombe's published example, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crywolf.data import BadInput
from crywolf.train.measure.intervals import (
    Estimate,
    Rate,
    difference_arrays,
    net_loss,
    paired_difference,
    rows_needed,
    rows_needed_at_rate,
    wilson,
    wilson_arrays,
)

COUNTS = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    reference = binomtest(k, n).proportion_ci(method="wilson")
    low, high = wilson(k, n)
    assert low == pytest.approx(reference.low, abs=1e-12)
    assert high == pytest.approx(reference.high, abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).text == "no rows"
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).to_dict()["value"] is None


def test_wilson_ends_are_exact_without_errors_and_without_hits() -> None:
    low, high = wilson_arrays([0, 7], [7, 7])
    assert low[0] == 0.0
    assert high[1] == 1.0
    assert 0.0 < high[0] < 1.0


def test_a_count_outside_its_rows_is_refused() -> None:
    with pytest.raises(BadInput):
        wilson(3, 2)
    with pytest.raises(BadInput):
        Rate(-1, 2)


def test_a_rate_says_its_counts_and_interval() -> None:
    assert Rate(12, 1431).text == "0.84% (12/1,431; 95% CI 0.48-1.46%)"
    assert Rate(1, 100_000).text.startswith("0.001% (1/100,000;")
    assert Rate.from_dict(Rate(3, 9).to_dict()) == Rate(3, 9)


@pytest.mark.parametrize(("bound", "rows"), [(0.01, 381), (0.005, 765), (0.05, 73)])
def test_rows_needed_without_error(bound: float, rows: int) -> None:
    assert rows_needed(bound) == rows


@given(st.floats(0.002, 0.6), st.integers(0, 60))
def test_rows_needed_is_the_first_n_that_proves_the_bound(bound: float, k: int) -> None:
    n = rows_needed(bound, k)
    assert wilson(k, n)[1] < bound
    assert n == max(k, 1) or wilson(k, n - 1)[1] >= bound


@given(st.floats(0.005, 0.5), st.floats(0.0, 0.95))
def test_rows_needed_at_a_rate_prove_the_bound_and_one_fewer_does_not(bound: float, share: float) -> None:
    n = rows_needed_at_rate(bound, share * bound)
    assert n is not None
    assert wilson(share * bound * n, n)[1] < bound
    assert n == 1 or wilson(share * bound * (n - 1), n - 1)[1] >= bound


def test_no_number_of_rows_proves_a_bound_that_the_rate_breaks() -> None:
    assert rows_needed_at_rate(0.01, 0.01) is None
    with pytest.raises(BadInput):
        rows_needed(0.0)


def test_paired_difference_gives_newcombes_published_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:2635), table II: cells 36, 12, 2, 0, method 10 with corrected phi.
    found = paired_difference(36, 12, 2, 0)
    assert -found.value == pytest.approx(0.2)
    assert -found.high == pytest.approx(0.0569, abs=5e-4)
    assert -found.low == pytest.approx(0.3404, abs=5e-4)


CELLS = st.tuples(*[st.integers(0, 300)] * 4).filter(lambda cells: sum(cells) > 0)


@given(CELLS)
def test_paired_difference_holds_its_value_and_mirrors(cells: tuple[int, int, int, int]) -> None:
    both, first, second, neither = cells
    there, back = paired_difference(*cells), paired_difference(both, second, first, neither)
    assert -1.0 <= there.low <= there.value + 1e-12
    assert there.value - 1e-12 <= there.high <= 1.0
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)


def test_paired_difference_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.80, 0.12, 0.04, 0.04])
    draws = rng.multinomial(150, shares, size=1_500)
    truth = shares[2] - shares[1]
    found = [paired_difference(*map(int, cells)) for cells in draws]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.93 <= covered <= 0.985


@given(st.integers(1, 2_000), st.integers(0, 500), st.data())
def test_net_loss_holds_its_value(caught: int, missed: int, data: st.DataObject) -> None:
    lost, gained = data.draw(st.integers(0, caught)), data.draw(st.integers(0, missed))
    found = net_loss(caught, missed, lost, gained)
    assert found.value == pytest.approx((lost - gained) / caught)
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12


def test_net_loss_without_misses_is_wilsons_interval_of_the_losses() -> None:
    found = net_loss(500, 0, 4, 0)
    assert (found.low, found.high) == pytest.approx(wilson(4, 500))


def test_net_loss_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(11)
    caught, missed, loss, gain = 600, 120, 0.015, 0.05
    truth = loss - gain * missed / caught
    lost, gained = rng.binomial(caught, loss, 1_500), rng.binomial(missed, gain, 1_500)
    found = [net_loss(caught, missed, int(a), int(b)) for a, b in zip(lost, gained, strict=True)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.92 <= covered <= 0.99


def test_net_loss_of_a_model_that_caught_nothing_is_unknown() -> None:
    found = net_loss(0, 10, 0, 3)
    assert math.isnan(found.value)
    assert found.to_dict()["value"] is None
    with pytest.raises(BadInput):
        net_loss(3, 0, 4, 0)


def test_an_estimate_speaks_in_points() -> None:
    assert Estimate(-0.0481, -0.051, -0.0455).points == "-4.81 points (95% CI -5.10 to -4.55)"


def test_the_difference_of_two_rates_is_newcombes_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873-890, table II, method 10: 56/70 against 48/80.
    value, low, high = difference_arrays([56], [70], [48], [80])
    assert value[0] == pytest.approx(0.2)
    assert (round(low[0], 4), round(high[0], 4)) == (0.0524, 0.3339)


@given(COUNTS, COUNTS)
def test_a_difference_turns_round_with_its_sides_and_holds_its_value(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    value, low, high = (float(part[0]) for part in difference_arrays([one[0]], [one[1]], [other[0]], [other[1]]))
    back = [float(part[0]) for part in difference_arrays([other[0]], [other[1]], [one[0]], [one[1]])]
    assert back == pytest.approx([-value, -high, -low])
    assert -1.0 <= low <= value <= high <= 1.0


def test_a_difference_from_nothing_is_not_known() -> None:
    value, low, high = difference_arrays([0, 1], [0, 4], [1, 0], [4, 0])
    assert np.isnan(value).all()
    assert (low.tolist(), high.tolist()) == ([-1.0, -1.0], [1.0, 1.0])
