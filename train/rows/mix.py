"""How often a row is seen: shares of an epoch by part, and within a part by source, so that no corpus drowns another.

Takes training rows and a `Mix`, gives each row's expected number of draws an epoch. What decides is where a row comes
from, not how many of it there are: 23,000 short requests of one corpus would otherwise teach that short means benign.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput

EMBEDDED = ("seed", "breadth")
"""Sources of the rows that come with this package."""
GROWN = "augmented"
_MALICIOUS = pl.col("label").cast(pl.String) == "MALICIOUS"


@dataclass(frozen=True)
class Mix:
    """Shares of an epoch by part; parts without rows give theirs to the others.

    Attributes:
        original_benign: The user's benign rows.
        original_malicious: The user's attacks.
        grown_benign: Benign rows grown from false positives.
        grown_malicious: Attacks grown beside them.
        hard: Mined hard negatives and near-miss twins.
        embedded_benign: Benign rows that come with the package.
        embedded_malicious: Attacks that come with the package.
        source_power: A source of n rows weighs n ** source_power within its part: 1 draws every row alike, 0 every
            source alike.
    """

    original_benign: float = 0.16
    original_malicious: float = 0.12
    grown_benign: float = 0.18
    grown_malicious: float = 0.07
    hard: float = 0.04
    embedded_benign: float = 0.25
    embedded_malicious: float = 0.18
    source_power: float = 0.5

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise BadInput(f"mix: {name} is {value!r}; it must be a number from 0 to 1")
        if not sum(self.shares.values()) > 0:
            raise BadInput("mix: every share is 0; at least one must not be")

    @property
    def shares(self) -> dict[str, float]:
        """The shares by part."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "source_power"}


def part_of() -> pl.Expr:
    """The part of the mix that a contract row belongs to."""
    side = pl.when(_MALICIOUS).then(pl.lit("_malicious")).otherwise(pl.lit("_benign"))
    grown = (pl.col("source") == GROWN).fill_null(value=False) | pl.col("origin_id").is_not_null()
    embedded = pl.col("source").is_in(list(EMBEDDED)).fill_null(value=False)
    kind = (
        pl.when(embedded).then(pl.lit("embedded")).when(grown).then(pl.lit("grown")).otherwise(pl.lit("original"))
        + side
    )
    hard = (pl.col("category").cast(pl.String) == "hard_negative").fill_null(value=False) & ~_MALICIOUS
    return pl.when(hard).then(pl.lit("hard")).otherwise(kind).alias("part")


def draws(rows: pl.DataFrame, mix: Mix, epoch_rows: int) -> NDArray[np.float64]:
    """Expected draws of each row in an epoch, shape (n,), summing to `epoch_rows`.

    A part's share is divided among its sources by their size to the power `source_power`, a source's among its rows by
    their weights.

    Raises:
        BadInput: No row is in a part whose share is above 0.
    """
    table = rows.select(
        part_of(), source=pl.col("source").fill_null(""), weight=pl.col("weight").cast(pl.Float64).fill_null(1.0)
    )
    present = {part: mix.shares[part] for part in table["part"].unique().to_list()}
    total = sum(present.values())
    if total <= 0:
        raise BadInput(f"mix: all shares of the parts that have rows ({', '.join(sorted(present))}) are 0")
    sized = table.with_columns(
        size=pl.len().over("part", "source") ** mix.source_power,
        within=pl.col("weight") / pl.col("weight").sum().over("part", "source"),
        first=pl.int_range(pl.len()).over("part", "source") == 0,
    )
    sizes = pl.when("first").then("size").otherwise(0.0).sum().over("part")
    share = pl.col("part").replace_strict(present, return_dtype=pl.Float64) / total
    expected = sized.select(share * pl.col("size") / sizes * pl.col("within") * epoch_rows).to_series().to_numpy()
    return np.asarray(np.nan_to_num(expected, nan=0.0), dtype=np.float64)


def drawn(expected: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `n` rows, each about as often as expected: whole draws surely, the rest by systematic sampling.

    Systematic sampling (Madow 1949) walks a shuffled row of intervals with one step: no row is drawn more than once
    beyond its whole number, and none less.
    """
    order = rng.permutation(len(expected))
    ends = np.cumsum(expected[order])
    points = (np.arange(n) + rng.random()) * (ends[-1] / n)
    return np.asarray(order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)], dtype=np.int64)
