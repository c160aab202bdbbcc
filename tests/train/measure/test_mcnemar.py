"""McNemar's exact test against scipy's binomial test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crywolf.data import BadInput
from crywolf.train.measure.mcnemar import McNemar, mcnemar_arrays, p_text

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS)
def test_it_is_the_binomial_test_of_the_discordant_rows(dropped: int, added: int) -> None:
    found = McNemar(dropped, added).p_value
    expected = binomtest(dropped, dropped + added).pvalue if dropped + added else 1.0
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert found == McNemar(added, dropped).p_value


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=20))
def test_whole_columns_are_one_pair_at_a_time(pairs: list[tuple[int, int]]) -> None:
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    assert mcnemar_arrays(columns[:, 0], columns[:, 1]).tolist() == [McNemar(*pair).p_value for pair in pairs]


def test_nothing_changed_proves_nothing_and_negative_counts_are_refused() -> None:
    assert McNemar(0, 0).p_value == 1.0
    assert McNemar(12, 3).text == "12 dropped, 3 added, p = 0.035"
    assert McNemar(12, 3).to_dict() == {"dropped": 12, "added": 3, "p_value": pytest.approx(0.03515625)}
    assert p_text(1e-9) == "p < 0.0001"
    with pytest.raises(BadInput, match="negative"):
        mcnemar_arrays([-1], [2])
