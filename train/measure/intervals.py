"""Counts into claims: every rate of this project carries its n and its 95% interval.

Takes counts (k of n, or the four cells of a paired table) and gives Wilson intervals, paired differences, and the
number of rows that a bound needs before it can be claimed. Plain arithmetic; arrays go through `wilson_arrays`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crywolf.data import BadInput

Z95 = 1.959963984540054
"""The normal quantile of a two-sided 95% interval."""


def wilson_arrays(k: ArrayLike, n: ArrayLike, z: float = Z95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's (1927) score interval for whole columns of counts; no rows give (0, 1)."""
    hits = np.asarray(k, dtype=np.float64)
    rows = np.asarray(n, dtype=np.float64)
    if np.any(hits < 0) or np.any(hits > rows):
        raise BadInput("a count of hits lies outside 0..n; pass k <= n")
    safe = np.maximum(rows, 1.0)
    rate = hits / safe
    scale = 1.0 + z * z / safe
    centre = (rate + z * z / (2.0 * safe)) / scale
    half = z * np.sqrt(rate * (1.0 - rate) / safe + z * z / (4.0 * safe * safe)) / scale
    # The ends are exact in theory; rounding must not turn "no error seen" into 1e-19.
    low = np.where(hits == 0, 0.0, np.clip(centre - half, 0.0, 1.0))
    high = np.where(hits == rows, 1.0, np.clip(centre + half, 0.0, 1.0))
    empty = rows == 0
    return np.where(empty, 0.0, low), np.where(empty, 1.0, high)


def wilson(k: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's (1927) two-sided score interval for k hits in n rows; (0, 1) when there are no rows."""
    low, high = wilson_arrays(k, n, z)
    return float(low), float(high)


def _percent(share: float) -> str:
    """A percentage with two decimals, three or four where two would say 0.00 of something that is not nothing."""
    points = 100.0 * share
    for digits in (2, 3, 4):
        if points == 0.0 or abs(points) >= 0.5 * 10.0**-digits:
            return f"{points:.{digits}f}"
    return f"{points:.1e}"


@dataclass(frozen=True)
class Rate:
    """k of n, with its Wilson 95% interval."""

    k: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise BadInput(f"a rate needs 0 <= k <= n, got k={self.k}, n={self.n}")

    @property
    def value(self) -> float:
        """The share k / n; nan without rows."""
        return self.k / self.n if self.n else math.nan

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return wilson(self.k, self.n)[0]

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return wilson(self.k, self.n)[1]

    @property
    def complement(self) -> Rate:
        """The same rows counted the other way round: recall becomes the miss rate."""
        return Rate(self.n - self.k, self.n)

    @property
    def text(self) -> str:
        """For people: '0.84% (12/1,431; 95% CI 0.48-1.46%)'."""
        if not self.n:
            return "no rows"
        low, high = wilson(self.k, self.n)
        return f"{_percent(self.value)}% ({self.k:,}/{self.n:,}; 95% CI {_percent(low)}-{_percent(high)}%)"

    def to_dict(self) -> dict[str, Any]:
        """For machines; a rate over no rows has the value None, since JSON knows no nan."""
        low, high = wilson(self.k, self.n)
        return {"k": self.k, "n": self.n, "value": self.value if self.n else None, "low": low, "high": high}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rate:
        """The rate that `to_dict` wrote."""
        return cls(int(data["k"]), int(data["n"]))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Estimate:
    """A derived number with its interval, where it is not simply k of n: a difference, a precision at a prevalence."""

    value: float
    low: float
    high: float
    note: str = ""

    @property
    def text(self) -> str:
        """For people, in per cent: '-4.81% (95% CI -5.10 to -4.55%)'."""
        if math.isnan(self.value):
            return "no rows"
        return f"{_percent(self.value)}% (95% CI {_percent(self.low)} to {_percent(self.high)}%)"

    @property
    def points(self) -> str:
        """For people, as a difference of rates: '-4.81 points (95% CI -5.10 to -4.55)'."""
        if math.isnan(self.value):
            return "no rows"
        ends = f"{_percent(self.low)} to {_percent(self.high)}"
        return f"{100 * self.value:+.2f} points (95% CI {ends})"

    def to_dict(self) -> dict[str, Any]:
        """For machines; nan becomes None."""
        data: dict[str, Any] = {
            name: None if math.isnan(number) else number
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return {**data, "note": self.note} if self.note else data


def rows_needed(bound: float, k: int = 0, z: float = Z95) -> int:
    """The fewest rows with which k errors still prove an error rate below the bound: 381 for 1% with none at all.

    The Wilson interval inverts the score test, so its upper end lies under the bound b exactly when
    b - k/n > z * sqrt(b (1 - b) / n), a quadratic in sqrt(n).
    """
    _check_bound(bound)
    spread = z * math.sqrt(bound * (1.0 - bound))
    root = (spread + math.sqrt(spread * spread + 4.0 * bound * k)) / (2.0 * bound)
    return _smallest(max(k, 1, math.floor(root * root) - 2), lambda n: wilson(k, n, z)[1] < bound)


def rows_needed_at_rate(bound: float, rate: float, z: float = Z95) -> int | None:
    """The rows that prove an error rate below the bound if errors go on at this rate; None if none do."""
    _check_bound(bound)
    if rate >= bound:
        return None
    rows = math.floor(z * z * bound * (1.0 - bound) / (bound - rate) ** 2) - 2
    return _smallest(max(rows, 1), lambda n: wilson(rate * n, n, z)[1] < bound)


def _check_bound(bound: float) -> None:
    if not 0.0 < bound < 1.0:
        raise BadInput(f"a bound is a share between 0 and 1, got {bound}")


def _smallest(start: int, holds: Callable[[int], bool]) -> int:
    """The first n from start on that holds; start is the closed form less its rounding, so this takes a few steps."""
    n = start
    while not holds(n):
        n += 1
    return n


def paired_difference(both: int, first_only: int, second_only: int, neither: int, z: float = Z95) -> Estimate:
    """The change of a rate (second minus first) on the same rows, by Newcombe's (1998) paired method 10.

    It squares and adds the Wilson intervals of the two margins, less their correlation, with the continuity correction
    of the phi coefficient that Newcombe recommends.

    Args:
        both: rows that hit under both.
        first_only: rows that hit under the first alone.
        second_only: rows that hit under the second alone.
        neither: rows that hit under none.
        z: normal quantile.
    """
    n = both + first_only + second_only + neither
    if min(both, first_only, second_only, neither) < 0:
        raise BadInput("the cells of a paired table are counts, none may be negative")
    if n == 0:
        return Estimate(math.nan, -1.0, 1.0)
    first, second = (both + first_only) / n, (both + second_only) / n
    low_1, high_1 = wilson(both + first_only, n, z)
    low_2, high_2 = wilson(both + second_only, n, z)
    phi = _phi(both, first_only, second_only, neither)
    value = second - first
    down = _combine(second - low_2, high_1 - first, phi)
    up = _combine(high_2 - second, first - low_1, phi)
    return Estimate(value, max(-1.0, value - down), min(1.0, value + up))


def difference_arrays(
    k_in: ArrayLike, n_in: ArrayLike, k_out: ArrayLike, n_out: ArrayLike, z: float = Z95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The difference of two rates over different rows (inside minus outside), by Newcombe's (1998) method 10.

    It squares and adds the Wilson intervals of the two rates.

    Args:
        k_in: hits inside, shape (m,).
        n_in: rows inside.
        k_out: hits outside.
        n_out: rows outside.
        z: normal quantile.

    Returns:
        Value, low and high, shape (m,) each; nan, -1 and 1 where one side has no rows.
    """
    low_in, high_in = wilson_arrays(k_in, n_in, z)
    low_out, high_out = wilson_arrays(k_out, n_out, z)
    rows_in, rows_out = np.asarray(n_in, dtype=np.float64), np.asarray(n_out, dtype=np.float64)
    inside = np.asarray(k_in, dtype=np.float64) / np.maximum(rows_in, 1.0)
    outside = np.asarray(k_out, dtype=np.float64) / np.maximum(rows_out, 1.0)
    value = inside - outside
    low = value - np.hypot(inside - low_in, high_out - outside)
    high = value + np.hypot(high_in - inside, outside - low_out)
    empty = (rows_in == 0) | (rows_out == 0)
    return np.where(empty, np.nan, value), np.where(empty, -1.0, low), np.where(empty, 1.0, high)


def _combine(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2.0 * phi * one * other + other * other))


def _phi(both: int, first_only: int, second_only: int, neither: int) -> float:
    """Newcombe's corrected phi: a positive numerator is shrunk by n/2, to no less than nothing."""
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - first_only * second_only)
    if cross > 0:
        cross = max(0.0, cross - (both + first_only + second_only + neither) / 2.0)
    return cross / math.sqrt(margins)


def net_loss(caught: float, missed: float, lost: float, gained: float, z: float = Z95) -> Estimate:
    """What a new model loses of the old model's true positives, less what it gains, as a share of those true positives.

    Given the old model's verdicts, losses are drawn among the rows that it caught and gains among those that it missed:
    two independent samples. Their difference is bounded by the square-and-add method on Wilson intervals (Newcombe
    1998, method 10 for independent samples, with the gains' share rescaled to the caught rows; Zou and Donner 2008).

    Args:
        caught: attacks that the old model caught.
        missed: attacks that it missed.
        lost: of the caught, those that the new model misses.
        gained: of the missed, those that the new model catches.
        z: normal quantile.
    """
    if not (0 <= lost <= caught and 0 <= gained <= missed):
        raise BadInput(f"cannot lose {lost} of {caught} or gain {gained} of {missed}")
    if caught == 0:
        return Estimate(math.nan, -1.0, 1.0, "the old model caught nothing here")
    weight = missed / caught
    loss, gain = lost / caught, gained / missed if missed else 0.0
    loss_low, loss_high = wilson(lost, caught, z)
    gain_low, gain_high = wilson(gained, missed, z) if missed else (0.0, 0.0)
    value = loss - weight * gain
    low = value - math.hypot(loss - loss_low, weight * (gain_high - gain))
    high = value + math.hypot(loss_high - loss, weight * (gain - gain_low))
    return Estimate(value, low, high)
