"""What a growth leaves: the grown rows and the account of the rest, in plain values, so that it can be read back.

`Growth` is made by the engine, shown by the command line and the report, and kept by a run between its steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from .diversity import Diversity

_OPERATORS = {"operator": pl.String(), "proposed": pl.Int64(), "samples": pl.Int64()}


@dataclass(frozen=True)
class Growth:
    """What was grown, and the account of the rest.

    Attributes:
        frame: the grown rows, of both labels, as contract rows.
        drops: candidates dropped, by reason. Candidates beyond `per_fp` are no drops and stand in `stats["surplus"]`:
            candidates = samples + surplus + review + all drops.
        stats: counts of prompts, candidates and samples, and mean cosines (None where nothing was encoded).
        operators: operator, proposed, samples: how many candidates each made and how many samples they became.
        notes: what the user should know of it.
        diversity: how varied the samples are.
    """

    frame: pl.DataFrame
    drops: dict[str, int]
    stats: dict[str, int | float | None]
    operators: pl.DataFrame
    notes: tuple[str, ...]
    diversity: Diversity

    def composition(self) -> pl.DataFrame:
        """Return the rows by category and subcategory, the most frequent first, with their share."""
        counts = self.frame.group_by("category", "subcategory").agg(rows=pl.len())
        total = max(self.frame.height, 1)
        ordered = counts.sort(["rows", "category", "subcategory"], descending=[True, False, False], nulls_last=True)
        return ordered.with_columns(share=pl.col("rows") / total)

    def summary(self) -> dict[str, Any]:
        """Return all of it but the rows, as plain values: stats, composition, operators, drops, diversity, notes."""
        return {
            "stats": dict(self.stats),
            "composition": self.composition().to_dicts(),
            "operators": self.operators.to_dicts(),
            "drops": dict(self.drops),
            "diversity": self.diversity.as_dict(),
            "review": self.stats["review"],
            "notes": list(self.notes),
        }

    @classmethod
    def of(cls, frame: pl.DataFrame, summary: Mapping[str, Any]) -> "Growth":
        """Put a growth together again from its rows and its `summary`.

        Raises:
            KeyError: the summary lacks a part.
            TypeError: a part of it is of another shape.
        """
        return cls(
            frame=frame,
            drops=dict(summary["drops"]),
            stats=dict(summary["stats"]),
            operators=pl.DataFrame(summary["operators"], schema=_OPERATORS),
            notes=tuple(summary["notes"]),
            diversity=Diversity(**summary["diversity"]),
        )
