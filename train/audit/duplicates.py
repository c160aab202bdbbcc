"""What a corpus says twice, what it says under both labels, and what of it stands in a holdout.

Takes contract rows with their near-duplicate clusters, gives counts and the rows to act on by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from crywolf.data import BENIGN, MALICIOUS

from .ranking import Ints

SAME_TEXT, NEAR_TEXT = "same text", "near-duplicate"
CONFLICT_COLUMNS: dict[str, pl.DataType] = {
    "cluster": pl.Int64(),
    "kind": pl.String(),
    "id": pl.String(),
    "label": pl.String(),
    "source": pl.String(),
}


@dataclass(frozen=True)
class Duplicates:
    """Copies within the corpus.

    Attributes:
        rows: in all.
        by_label: label, rows, exact (rows whose text an earlier row of the label has), near (rows beyond the first of
            each near-duplicate cluster of the label, exact ones included).
        largest: rows of the largest cluster.
        conflicts: the rows of clusters that hold both labels, cluster by cluster; `same text` where one text has both.
    """

    rows: int
    by_label: pl.DataFrame
    largest: int
    conflicts: pl.DataFrame

    @property
    def redundant(self) -> int:
        """Rows that deduplication within each label would drop."""
        return int(self.by_label["near"].sum())

    def conflicting(self, kind: str) -> int:
        """Clusters with both labels of a kind."""
        return int(self.conflicts.filter(pl.col("kind") == kind)["cluster"].n_unique())

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "rows": self.rows,
            "by_label": self.by_label.to_dicts(),
            "redundant": self.redundant,
            "largest_cluster": self.largest,
            "conflicts": {kind: self.conflicting(kind) for kind in (SAME_TEXT, NEAR_TEXT)},
            "conflict_rows": self.conflicts.to_dicts(),
        }


def find_duplicates(frame: pl.DataFrame, clusters: Ints) -> Duplicates:
    """Count copies within labels and list those between them.

    Args:
        frame: contract rows.
        clusters: near-duplicate cluster of each row.
    """
    rows = frame.select("id", pl.col("label").cast(pl.String), "source", cluster=pl.Series(clusters))
    by_label = (
        rows.group_by("label")
        .agg(
            rows=pl.len().cast(pl.Int64),
            exact=(pl.len() - pl.col("id").n_unique()).cast(pl.Int64),
            near=(pl.len() - pl.col("cluster").n_unique()).cast(pl.Int64),
        )
        .sort("label")
    )
    both = (pl.col("label").n_unique() > 1).over("cluster")
    same = (pl.col("label").n_unique() > 1).over("id").any().over("cluster")
    kind = pl.when(same).then(pl.lit(SAME_TEXT)).otherwise(pl.lit(NEAR_TEXT))
    conflicts = (
        rows.filter(both)
        .with_columns(kind=kind)
        .sort("kind", "cluster", "label", "id", descending=[True, *[False] * 3])
    )
    largest = int(np.bincount(clusters).max()) if len(clusters) else 0
    return Duplicates(frame.height, by_label, largest, conflicts.select(*CONFLICT_COLUMNS))


def balance(frame: pl.DataFrame, languages: pl.Series) -> pl.DataFrame:
    """Rows by source, category and language, a column for each label; the largest first.

    Args:
        frame: contract rows.
        languages: of each row.
    """
    rows = frame.select("source", "category", pl.col("label").cast(pl.String), language=languages)
    return (
        rows.group_by("source", "category", "language")
        .agg(
            benign=(pl.col("label") == BENIGN).sum().cast(pl.Int64),
            malicious=(pl.col("label") == MALICIOUS).sum().cast(pl.Int64),
        )
        .sort(
            pl.col("benign") + pl.col("malicious"),
            "source",
            "category",
            "language",
            descending=[True, *[False] * 3],
            nulls_last=True,
        )
    )
