"""How well a detector names threats, apart from how well it finds them: precision and recall by type.

Takes the rows of an `Evaluation` (label, threat_type, flagged, taken_for) and gives a `ThreatNaming`: a table by type
and the whole confusion. `unknown` is an answer that claims nothing: it counts against recall, never for precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from crywolf.data import THREAT_TYPES, BadInput

from .intervals import Rate, wilson_arrays

UNKNOWN = "unknown"
MISSED = "(missed)"
"""Where an attack was not flagged, so that nothing was named."""
KNOWN = tuple(name for name in THREAT_TYPES if name != UNKNOWN)
_NEEDED = ("label", "threat_type", "flagged", "taken_for")


@dataclass(frozen=True)
class ThreatNaming:
    """The naming of threats.

    Attributes:
        types: One row a type: threat_type; attacks (of that type), flagged, unknown (flagged, but not named), recall
            with recall_k, recall_low, recall_high (flagged and named so, of all attacks of the type); named (flagged
            attacks of a known type that were named so), precision with precision_k, precision_low, precision_high (that
            are of the type); unjudged (attacks of no known type named so) and benign (false positives named so), which
            precision leaves out: the former have no answer, the latter depend on the sample's mix.
        confusion: threat_type, taken_for and n for all attacks: rows of no known type are `unknown`, attacks that were
            not flagged are "(missed)".
        named_right: Flagged attacks of a known type that were named rightly, of those that were named at all.
        answered_unknown: Flagged attacks of a known type that were not named.
        without_type: Attacks whose type nobody knows; nothing can be said of how they are named.
    """

    types: pl.DataFrame
    confusion: pl.DataFrame
    named_right: Rate
    answered_unknown: Rate
    without_type: int

    @property
    def text(self) -> str:
        """For people, in one line."""
        return (
            f"threat named rightly {self.named_right.text}; answered unknown {self.answered_unknown.text}; "
            f"{self.without_type:,} attacks have no known type"
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        rates = ("recall", "precision")
        types = self.types.with_columns(pl.col(rates).fill_nan(None))
        return {
            "types": types.to_dicts(),
            "confusion": self.confusion.to_dicts(),
            "named_right": self.named_right.to_dict(),
            "answered_unknown": self.answered_unknown.to_dict(),
            "without_type": self.without_type,
        }


def threat_naming(rows: pl.DataFrame) -> ThreatNaming:
    """Count how attacks were named.

    Args:
        rows: Of an `Evaluation`: its `select()`, or one suite's.

    Raises:
        BadInput: A column is missing.
    """
    if missing := [name for name in _NEEDED if name not in rows.columns]:
        raise BadInput(f"naming threats: the rows lack {', '.join(missing)}; take those of an evaluation")
    known = pl.col("threat_type").is_in(KNOWN)
    named = pl.when(~pl.col("flagged")).then(pl.lit(MISSED)).otherwise(pl.col("taken_for").fill_null(UNKNOWN))
    seen = rows.select(
        pl.col("label").cast(pl.String) == "MALICIOUS",
        pl.col("threat_type").cast(pl.String).fill_null(UNKNOWN),
        pl.col("flagged"),
        named.alias("taken_for"),
    ).with_columns(pl.when(known).then("threat_type").otherwise(pl.lit(UNKNOWN)).alias("threat_type"))
    attacks, benign = seen.filter("label"), seen.filter(~pl.col("label") & pl.col("flagged"))
    confusion = attacks.group_by("threat_type", "taken_for").agg(pl.len().cast(pl.Int64).alias("n"))
    judged = attacks.filter(known & pl.col("flagged"))
    answered = judged.filter(pl.col("taken_for") != UNKNOWN)
    right = answered.filter(pl.col("threat_type") == pl.col("taken_for")).height
    return ThreatNaming(
        types=_by_type(attacks, benign),
        confusion=confusion.sort(["threat_type", "n", "taken_for"], descending=[False, True, False]),
        named_right=Rate(right, answered.height),
        answered_unknown=Rate(judged.height - answered.height, judged.height),
        without_type=attacks.filter(~known).height,
    )


def _by_type(attacks: pl.DataFrame, benign: pl.DataFrame) -> pl.DataFrame:
    counts = []
    for name in KNOWN:  # a handful, each whole columns
        is_it, called_it = pl.col("threat_type") == name, pl.col("taken_for") == name
        counted = attacks.select(
            pl.lit(name).alias("threat_type"),
            is_it.sum().alias("attacks"),
            (is_it & pl.col("flagged")).sum().alias("flagged"),
            (is_it & (pl.col("taken_for") == UNKNOWN)).sum().alias("unknown"),
            (is_it & called_it).sum().alias("recall_k"),
            (called_it & (pl.col("threat_type") != UNKNOWN)).sum().alias("named"),
            (is_it & called_it).sum().alias("precision_k"),
            (called_it & (pl.col("threat_type") == UNKNOWN)).sum().alias("unjudged"),
            pl.lit(benign.filter(called_it).height).alias("benign"),
        )
        counts.append(counted.with_columns(pl.exclude("threat_type").cast(pl.Int64)))
    table = pl.concat(counts)
    for rate, of in (("recall", "attacks"), ("precision", "named")):
        k, n = table[f"{rate}_k"].to_numpy(), table[of].to_numpy()
        low, high = wilson_arrays(k, n)
        table = table.with_columns(
            (pl.col(f"{rate}_k") / pl.col(of)).alias(rate),
            pl.Series(f"{rate}_low", low),
            pl.Series(f"{rate}_high", high),
        )
    order = ["threat_type", "attacks", "flagged", "unknown"]
    order += [f"recall{end}" for end in ("", "_k", "_low", "_high")]
    order += ["named", *(f"precision{end}" for end in ("", "_k", "_low", "_high")), "unjudged", "benign"]
    return table.select(order)
