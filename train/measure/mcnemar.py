"""Whether a change of verdicts on the same rows is more than chance: McNemar's exact test.

Takes the two discordant counts of a paired table (flagged only before, flagged only after) and gives a p-value. Whole
columns of counts go through `mcnemar_arrays`; one pair is a `McNemar`, which says itself in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crywolf.data import BadInput


def mcnemar_arrays(dropped: ArrayLike, added: ArrayLike) -> NDArray[np.float64]:
    """Two-sided exact p-values of McNemar's (1947) test for whole columns of discordant counts.

    If nothing but chance moved verdicts, each of the `dropped + added` rows whose verdict changed went either way with
    probability one half: a binomial test, as `scipy.stats.binomtest(dropped, dropped + added)` does it for one pair.
    Rows whose verdict is the same say nothing. No changed row gives 1.

    Args:
        dropped: rows flagged only before, shape (n,).
        added: rows flagged only after, shape (n,).

    Raises:
        BadInput: a count is negative.
    """
    from scipy.stats import binom

    first, second = np.asarray(dropped, dtype=np.int64), np.asarray(added, dtype=np.int64)
    if np.any(first < 0) or np.any(second < 0):
        raise BadInput("discordant rows are counts, none may be negative")
    # The null distribution is symmetric, so that the two-sided value is twice the smaller tail.
    tail = binom.cdf(np.minimum(first, second), first + second, 0.5)
    return np.asarray(np.minimum(1.0, 2.0 * tail), dtype=np.float64)


@dataclass(frozen=True)
class McNemar:
    """One paired comparison by its discordant rows.

    Attributes:
        dropped: rows flagged only before.
        added: rows flagged only after.
    """

    dropped: int
    added: int

    @property
    def p_value(self) -> float:
        """How often chance alone would part the changed verdicts at least this unevenly."""
        return float(mcnemar_arrays(self.dropped, self.added))

    @property
    def text(self) -> str:
        """For people: '12 dropped, 3 added, p = 0.035'."""
        return f"{self.dropped:,} dropped, {self.added:,} added, {p_text(self.p_value)}"

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {"dropped": self.dropped, "added": self.added, "p_value": self.p_value}


def p_text(p_value: float) -> str:
    """A p-value for people: 'p = 0.035', 'p < 0.0001'."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"
