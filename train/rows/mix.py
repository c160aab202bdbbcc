"""How often a row is seen: shares of an epoch by part, and within a part by source, so that no corpus drowns another.

Takes training rows and a `Mix`, gives each row's expected number of draws an epoch. What decides is where a row comes
from, not how many of it there are: 23,000 short requests of one corpus would otherwise teach that short means benign.
Languages can be evened out between the labels, so that "not English" does not come to mean malicious.
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
_POWERS = ("source_power", "language_power")


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
        language_power: The odds between the labels that a language gives are raised to this power: 1 leaves them as
            they are, 0 gives both labels the languages that both have in the same proportions. See `evened`.
    """

    original_benign: float = 0.16
    original_malicious: float = 0.12
    grown_benign: float = 0.18
    grown_malicious: float = 0.07
    hard: float = 0.04
    embedded_benign: float = 0.25
    embedded_malicious: float = 0.18
    source_power: float = 0.5
    language_power: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise BadInput(f"mix: {name} is {value!r}; it must be a number from 0 to 1")
        if not sum(self.shares.values()) > 0:
            raise BadInput("mix: every share is 0; at least one must not be")

    @property
    def shares(self) -> dict[str, float]:
        """The shares by part."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _POWERS}


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
    their weights. Where `language_power` is below 1, rows are then weighed by their language (`evened`), which is
    guessed: some 10,000 rows a second.

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
    found = np.array(np.nan_to_num(expected, nan=0.0), dtype=np.float64)
    if mix.language_power == 1:
        return found
    from crywolf.data.language import languages

    seen = rows.filter(pl.Series(found > 0))  # the others need no guess
    found[found > 0] = evened(
        found[found > 0], seen.select(_MALICIOUS).to_series(), languages(seen["text"]), mix.language_power
    )
    return found


def evened(
    expected: NDArray[np.float64], malicious: pl.Series, languages: pl.Series, power: float
) -> NDArray[np.float64]:
    """Expected draws, shape (n,), such that a row's language tells less of its label; each label keeps its sum.

    Of a label's draws, a language with the share s gets in proportion to s ** power * m ** (1 - power), m being the
    mean of its shares of both labels: the odds that a language gives are raised to `power`, but for one factor common
    to all languages, which is what those of one label only make up.

    This looks at whole labels, as these are what the model tells apart, and at both at once. A weight of n ** power
    within each source or part, blind to the other label, makes languages a better mark wherever the two labels have
    different ones: on 150,000 rows at power 0.5, language alone told the labels apart with an AUC of 0.62 (within
    sources) or 0.69 (within parts) and 0.62 before it, with this 0.56. What it costs: a part whose languages are rare
    in the other label loses a little of its share to the other parts of its own; and where a label has few rows of a
    language that is frequent in the other, these few are drawn again and again, the more the lower the power.

    Args:
        expected: Draws of each row, above 0.
        malicious: Whether it is an attack.
        languages: Its language, or `und`.
        power: From 0 to 1.
    """
    table = pl.DataFrame({"draws": expected, "malicious": malicious, "language": languages})
    shares = table.group_by("malicious", "language").agg(share=pl.col("draws").sum())
    shares = shares.with_columns(pl.col("share") / pl.col("share").sum().over("malicious"))
    shares = shares.with_columns(mean=pl.col("share").sum().over("language") / 2)
    joined = table.join(shares, on=["malicious", "language"], how="left", maintain_order="left")
    weighed = joined.with_columns(weight=pl.col("draws") * (pl.col("mean") / pl.col("share")) ** (1 - power))
    label = pl.col("draws").sum().over("malicious") / pl.col("weight").sum().over("malicious")
    return weighed.select(pl.col("weight") * label).to_series().to_numpy()


def drawn(expected: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `n` rows, each about as often as expected: whole draws surely, the rest by systematic sampling.

    Systematic sampling (Madow 1949) walks a shuffled row of intervals with one step: no row is drawn more than once
    beyond its whole number, and none less.
    """
    order = rng.permutation(len(expected))
    ends = np.cumsum(expected[order])
    points = (np.arange(n) + rng.random()) * (ends[-1] / n)
    return np.asarray(order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)], dtype=np.int64)
