"""The mix: shares are kept whatever the numbers of rows, and no source drowns another."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus
from crywolf.train import Recipe
from crywolf.train.rows.mix import Mix, drawn, draws, part_of


def rows(*groups: tuple[int, str, str, str | None, str | None]) -> pl.DataFrame:
    """Rows of (number, label, source, category, origin)."""
    return make_corpus(
        [
            {"text": f"{place} {i} {label}", "label": label, "source": source, "category": kind, "origin_id": origin}
            for place, (n, label, source, kind, origin) in enumerate(groups)
            for i in range(n)
        ]
    )


EVERY = (
    (2, "BENIGN", "tickets", None, None),
    (2, "MALICIOUS", "games", None, None),
    (2, "BENIGN", "augmented", "generic_variation", "a" * 16),
    (2, "MALICIOUS", "augmented", None, "b" * 16),
    (2, "BENIGN", "curated", "hard_negative", "c" * 16),
    (2, "BENIGN", "breadth", "creative", None),
    (2, "MALICIOUS", "seed", None, None),
)


def test_each_row_has_its_part() -> None:
    frame = rows(*EVERY)
    found = frame.select(part_of()).to_series().unique(maintain_order=True).to_list()
    assert set(found) == set(Mix().shares)


def test_parts_get_their_shares_whatever_their_sizes() -> None:
    frame = rows((900, "BENIGN", "tickets", None, None), (9, "MALICIOUS", "games", None, None))
    mix = Mix(original_benign=0.5, original_malicious=0.25)
    expected = draws(frame, mix, 300)
    malicious = (frame["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    assert expected.sum() == pytest.approx(300)
    assert expected[malicious].sum() == pytest.approx(100)


def test_sources_weigh_by_the_power_of_their_size() -> None:
    frame = rows((100, "BENIGN", "large", None, None), (4, "BENIGN", "small", None, None))
    large = (frame["source"] == "large").to_numpy()
    for power, share in ((1.0, 100 / 104), (0.5, 10 / 12), (0.0, 0.5)):
        assert draws(frame, Mix(source_power=power), 60)[large].sum() == pytest.approx(60 * share)


def test_a_row_of_double_weight_is_drawn_twice_as_often() -> None:
    frame = rows((2, "BENIGN", "tickets", None, None)).with_columns(weight=pl.Series([1.0, 2.0], dtype=pl.Float32))
    one, other = draws(frame, Mix(), 30)
    assert other == pytest.approx(2 * one)


def test_shares_that_are_all_zero_for_the_rows_there_are_are_refused() -> None:
    with pytest.raises(BadInput, match="original_benign"):
        draws(rows((2, "BENIGN", "tickets", None, None)), Mix(original_benign=0.0), 10)


@pytest.mark.parametrize("shares", [{"hard": -0.1}, {"hard": 1.5}, {"hard": "much"}, {"source_power": 2.0}])
def test_a_share_that_cannot_be_used_is_refused(shares: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(shares))):
        Mix(**shares)


def test_a_recipe_names_a_part_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="original_benign"):
        Recipe.from_mapping({"mix": {"orignal_benign": 0.5}})
    assert Recipe.from_mapping({"mix": {"hard": 0.2}}).mix == Mix(hard=0.2)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_whole_draws_are_sure_and_the_rest_comes_at_most_once(expected: Sequence[float], seed: int) -> None:
    weights = np.array(expected)
    n = int(weights.sum())
    if not n:
        return
    scaled = weights * n / weights.sum()
    counts = np.bincount(drawn(scaled, n, np.random.default_rng(seed)), minlength=len(scaled))
    assert counts.sum() == n
    assert (counts >= np.floor(scaled - 1e-6)).all()
    assert (counts <= np.ceil(scaled + 1e-6)).all()
