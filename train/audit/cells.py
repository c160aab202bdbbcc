"""Which values or bands of a trait belong to one label: cells with attacks and hardly a benign row, or none at all.

Takes a column and the labels, gives a frame with a row for each cell: its counts, the share of each label's rows that
it holds, and whether it surely tells the label.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BENIGN, MALICIOUS

from ..measure.intervals import wilson_arrays

BANDS = 10
CELL_COLUMNS: dict[str, pl.DataType] = {
    "cell": pl.String(),
    "benign": pl.Int64(),
    "malicious": pl.Int64(),
    "benign_share": pl.Float64(),
    "malicious_share": pl.Float64(),
    "lift": pl.Float64(),
    "side": pl.String(),
    "without_counterpart": pl.Boolean(),
}


def cells_of(values: pl.Series, malicious: NDArray[np.bool_], *, lift: float) -> pl.DataFrame:
    """Count labels by cell, the most telling cells first.

    Columns: cell, benign, malicious (rows); benign_share, malicious_share (of the label's rows); lift (how many times
    the one share exceeds the other at least, by the near ends of their 95% intervals; 0 where they overlap); side (the
    label that a cell of enough lift belongs to, else null); without_counterpart (a telling cell with no row at all of
    the other label).

    Args:
        values: names, or numbers that are cut into bands of equal weight.
        malicious: by row.
        lift: from which a cell is telling.
    """
    numeric = values.dtype.is_numeric()
    frame = pl.DataFrame({"cell": _bands(values, malicious) if numeric else values, "malicious": malicious})
    counts = frame.group_by("cell").agg(
        benign=(~pl.col("malicious")).sum().cast(pl.Int64), malicious=pl.col("malicious").sum().cast(pl.Int64)
    )
    if numeric:
        spans = pl.DataFrame({"cell": frame["cell"], "value": values}).group_by("cell")
        ends = spans.agg(low=pl.col("value").min(), high=pl.col("value").max())
        counts = counts.join(ends, on="cell").with_columns(cell=_span(values.dtype.is_integer()))
    counts = counts.with_columns(cell=pl.col("cell").cast(pl.String))
    return _judged(counts, int((~malicious).sum()), int(malicious.sum()), lift)


def _judged(counts: pl.DataFrame, all_benign: int, all_malicious: int, lift: float) -> pl.DataFrame:
    benign, attacks = counts["benign"].to_numpy(), counts["malicious"].to_numpy()
    benign_low, benign_high = wilson_arrays(benign, np.full(len(benign), all_benign))
    attack_low, attack_high = wilson_arrays(attacks, np.full(len(attacks), all_malicious))
    of_attacks, of_benign = attack_low / benign_high, benign_low / attack_high
    most = np.maximum(of_attacks, of_benign)
    side = np.select([most < lift, of_attacks >= of_benign], ["", MALICIOUS], default=BENIGN)
    return (
        counts.with_columns(
            benign_share=pl.col("benign") / max(all_benign, 1),
            malicious_share=pl.col("malicious") / max(all_malicious, 1),
            lift=pl.Series(np.where(most > 1, most, 0.0)),
            side=pl.Series(side.tolist(), dtype=pl.String).replace("", None),
        )
        .with_columns(
            without_counterpart=pl.col("side").is_not_null() & (pl.min_horizontal("benign", "malicious") == 0)
        )
        .with_columns(_own=pl.max_horizontal("benign_share", "malicious_share"))
        .sort(pl.col("side").is_null(), "_own", "cell", descending=[False, True, False])
        .select(*CELL_COLUMNS)
    )


def band_edges(numbers: NDArray[np.float64], malicious: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Upper edges of bands that hold like parts of the rows, both labels weighing the same."""
    weights = np.where(malicious, 0.5 / max(malicious.sum(), 1), 0.5 / max((~malicious).sum(), 1))
    order = np.argsort(numbers, kind="stable")
    reached = np.cumsum(weights[order])
    # Less a rounding error: two halves must part where the labels do, not one row later.
    places = np.searchsorted(reached, np.arange(1, count) / count - 1e-9)
    return np.asarray(np.unique(numbers[order][np.minimum(places, len(numbers) - 1)]), dtype=np.float64)


def _bands(values: pl.Series, malicious: NDArray[np.bool_]) -> pl.Series:
    """The band of each row; equal values are never parted."""
    numbers = values.cast(pl.Float64).to_numpy()
    return pl.Series(np.searchsorted(band_edges(numbers, malicious, BANDS), numbers, side="left"), dtype=pl.Int64)


def _span(whole: bool) -> pl.Expr:
    """A band by its least and greatest value; what is no whole number is a percentage."""
    if whole:
        low, high = pl.col("low").cast(pl.String), pl.col("high").cast(pl.String)
    else:
        rounded = (pl.col(name).round(2).cast(pl.String) for name in ("low", "high"))
        low, high = (pl.format("{}%", number.str.strip_suffix(".0")) for number in rounded)
    return pl.when(low == high).then(low).otherwise(pl.format("{} to {}", low, high))
