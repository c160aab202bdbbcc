"""Measures how varied grown samples are: distinct words and word pairs, samples per prompt, closeness to the prompt.

Takes texts (and the ids of the prompts they came from) and gives plain numbers; works in columns over the whole output.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

FEW = 5
"""A prompt with fewer samples than this is reported: it is hardly represented in the training data."""


@dataclass(frozen=True)
class Diversity:
    """How varied an output is.

    distinct_1 and distinct_2 are distinct words and word pairs over all of them in the whole output (they fall as it
    grows); the per-FP values are the same within the samples of one prompt, averaged over prompts. `per_fp` is the mean
    number of samples a prompt, `few` the share of prompts with fewer than five.
    """

    samples: int
    fps: int
    distinct_1: float
    distinct_2: float
    distinct_1_per_fp: float
    distinct_2_per_fp: float
    per_fp: float
    few: float
    mean_cosine: float | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the numbers by name."""
        return asdict(self)


def distinct_n(texts: Sequence[str] | pl.Series, n: int) -> float:
    """Return distinct n-grams of lower-cased words over all of them, 0.0 where there are none."""
    grams = _grams(pl.Series("text", texts, dtype=pl.String()), pl.Series("group", [0] * len(texts)), n)
    return float(grams["gram"].n_unique() / grams.height) if grams.height else 0.0


def _grams(texts: pl.Series, groups: pl.Series, n: int) -> pl.DataFrame:
    """Return all n-grams as (group, gram), one row each."""
    words = (
        pl.DataFrame({"text": texts, "group": groups})
        .with_row_index("row")
        .select("row", "group", word=pl.col("text").str.to_lowercase().str.extract_all(r"\w+"))
        .filter(pl.col("word").list.len() >= n)
        .explode("word")
    )
    following = [pl.col("word").shift(-i).over("row") for i in range(n)]
    return words.select("group", gram=pl.concat_str(following, separator=" ")).drop_nulls("gram")


def _mean_distinct(texts: pl.Series, groups: pl.Series, n: int) -> float:
    grams = _grams(texts, groups, n)
    if not grams.height:
        return 0.0
    shares = grams.group_by("group").agg(share=pl.col("gram").n_unique() / pl.len())
    return float(shares["share"].sum() / shares.height)


def diversity(texts: pl.Series, origins: pl.Series, *, fps: int, mean_cosine: float | None = None) -> Diversity:
    """Measure an output.

    Args:
        texts: the samples.
        origins: the id of the prompt each was grown from; null for samples without one, which count for the whole
            output but for no prompt.
        fps: how many prompts there were, with those that no sample was grown from.
        mean_cosine: the mean cosine of samples to their prompts, where it was measured.
    """
    own = origins.is_not_null()
    counts = origins.filter(own).value_counts()["count"]
    enough = int((counts >= FEW).sum())
    return Diversity(
        samples=len(texts),
        fps=fps,
        distinct_1=distinct_n(texts, 1),
        distinct_2=distinct_n(texts, 2),
        distinct_1_per_fp=_mean_distinct(texts.filter(own), origins.filter(own), 1),
        distinct_2_per_fp=_mean_distinct(texts.filter(own), origins.filter(own), 2),
        per_fp=float(counts.sum() / fps) if fps else 0.0,
        few=float(1.0 - enough / fps) if fps else 0.0,
        mean_cosine=mean_cosine,
    )
