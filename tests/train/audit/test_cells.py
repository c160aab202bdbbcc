"""Cells that one label has to itself are found at any balance of the labels, and chance does not make one."""

from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from crywolf.train.audit.cells import cells_of


def counted(cells: list[tuple[str, int, int]], lift: float = 10.0) -> dict[str, dict[str, object]]:
    names = [name for name, benign, attacks in cells for _ in range(benign + attacks)]
    malicious = np.array([at >= benign for _, benign, attacks in cells for at in range(benign + attacks)])
    return {row["cell"]: row for row in cells_of(pl.Series(names), malicious, lift=lift).to_dicts()}


def test_a_language_of_attacks_alone_has_no_counterpart() -> None:
    found = counted([("en", 8000, 300), ("ru", 0, 40), ("de", 3, 40), ("nl", 30, 0)])
    assert found["ru"]["side"] == "MALICIOUS"
    assert found["ru"]["without_counterpart"] is True
    assert found["de"]["side"] == "MALICIOUS"
    assert found["de"]["without_counterpart"] is False
    # Of 340 attacks one or two would be expected there: none is no wonder.
    assert found["nl"]["side"] is None
    assert found["en"]["side"] is None


def test_cells_are_counted_against_the_label_s_rows_not_against_each_other() -> None:
    found = counted([("a", 2000, 20), ("b", 2000, 20)])
    assert all(row["side"] is None and row["lift"] == 0 for row in found.values())


@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=200))
def test_bands_hold_every_row_once_and_never_part_equal_numbers(rows: list[tuple[int, bool]]) -> None:
    values, malicious = pl.Series([row[0] for row in rows]), np.array([row[1] for row in rows])
    cells = cells_of(values, malicious, lift=10)
    assert cells["benign"].sum() + cells["malicious"].sum() == len(rows)
    assert cells["malicious"].sum() == malicious.sum()
    spans = sorted((int(cell.split(" to ")[0]), int(cell.split(" to ")[-1])) for cell in cells["cell"])
    assert all(high < low for (_, high), (low, _) in pairwise(spans))
    assert len(spans) <= 10


def test_the_band_of_the_long_attacks_is_named_by_its_ends() -> None:
    values = pl.Series([*range(20, 420), *range(1000, 1200)])
    malicious = np.array([False] * 400 + [True] * 200)
    found = cells_of(values, malicious, lift=10).filter(pl.col("side") == "MALICIOUS")
    assert found["malicious"].sum() == 200
    assert min(int(cell.split(" to ")[0]) for cell in found["cell"]) == 1000
