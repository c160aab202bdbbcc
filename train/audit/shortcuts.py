"""Shortcuts: how well the label is known from length, language, case, punctuation or source alone.

Takes contract rows with their traits and clusters, gives for each trait its AUC with an interval, the cells that belong
to one label, whether that is more than a detector should be able to lean on, and what to do about it. A detector that
is trained on such rows learns the shortcut first, because it is the easier lesson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BENIGN, MALICIOUS, Progress

from .advice import advise
from .cells import CELL_COLUMNS, cells_of
from .config import AuditConfig
from .ranking import Auc, FitScore, Folds, auc_of, by_band, by_trees, by_value, out_of_fold
from .traits import TRAITS, Trait

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shortcut:
    """What one trait says about the label.

    Attributes:
        trait: which.
        auc: of the trait alone, on clusters that its estimator has not seen.
        cells: counts by value or band, the most telling first (see `cells_of`).
        flagged: whether it passes one of the lines.
        by_construction: the trait names the label by how the contract fills it (a category that no other label may
            have), so its AUC is no finding.
        advice: what to do, in one sentence; empty where nothing is flagged.
    """

    trait: Trait
    auc: Auc
    cells: pl.DataFrame
    flagged: bool
    by_construction: bool
    advice: str

    def one_sided(self, label: str) -> float:
        """Share of the label's rows in cells that belong to that label."""
        column = "malicious_share" if label == MALICIOUS else "benign_share"
        return float(self.cells.filter(pl.col("side") == label)[column].sum())

    @property
    def verdict(self) -> str:
        """For the table: flagged, by construction, or ok."""
        return "flagged" if self.flagged else "by construction" if self.by_construction else "ok"

    def to_dict(self) -> dict[str, Any]:
        """For machines; cells that hold neither a thousandth of a label nor tell anything are left out."""
        shown = self.cells.filter(
            pl.col("side").is_not_null() | (pl.max_horizontal("benign_share", "malicious_share") >= 0.001)
        )
        return {
            "trait": self.trait.name,
            "kind": self.trait.kind,
            "auc": self.auc.to_dict(),
            "one_sided": {label: self.one_sided(label) for label in (BENIGN, MALICIOUS)},
            "verdict": self.verdict,
            "advice": self.advice,
            "cells": shown.to_dicts(),
        }


def find_shortcuts(
    table: pl.DataFrame, folds: Folds, *, config: AuditConfig, progress: Progress | None = None
) -> tuple[Shortcut, ...]:
    """Measure every trait.

    Args:
        table: what `traits` gave.
        folds: of the same rows.
        config: the lines.
        progress: told about traits.
    """
    found = []
    for at, trait in enumerate(TRAITS):
        found.append(_measure(trait, table, folds, config))
        if progress is not None:
            progress(at + 1, len(TRAITS))
    return tuple(found)


def _measure(trait: Trait, table: pl.DataFrame, folds: Folds, config: AuditConfig) -> Shortcut:
    columns = table.select(*trait.numeric, *trait.labels)
    if max(columns[name].n_unique() for name in columns.columns) == 1:
        # One value for all rows ranks nothing.
        auc = Auc(0.5, 0.5, 0.5, table.height)
    elif folds.count < 2:
        auc = auc_of(folds, np.zeros(table.height))
    else:
        auc = auc_of(folds, out_of_fold(folds, _estimator(trait, table, folds.malicious)))
    cells = pl.DataFrame(schema=CELL_COLUMNS)
    if trait.cells:
        # Where a trait has names, those are what a reader can act on.
        cells = cells_of(table[(*trait.labels, *trait.numeric)[0]], folds.malicious, lift=config.lift)
    by_construction = (
        trait.name == "category" and not cells.filter((pl.col("benign") > 0) & (pl.col("malicious") > 0)).height
    )
    shortcut = Shortcut(trait, auc, cells, False, by_construction, "")
    if by_construction or not _is_flagged(shortcut, config):
        return shortcut
    said = advise(trait, cells, table, folds.malicious)
    return Shortcut(trait, auc, cells, True, False, said)


def _is_flagged(shortcut: Shortcut, config: AuditConfig) -> bool:
    one_sided = max(shortcut.one_sided(label) for label in (BENIGN, MALICIOUS))
    return shortcut.auc.low >= config.flag_auc or one_sided >= config.flag_share


def _estimator(trait: Trait, table: pl.DataFrame, malicious: Mask) -> FitScore:
    if not trait.numeric and len(trait.labels) == 1:
        return by_value(table[trait.labels[0]], malicious)
    if not trait.labels and len(trait.numeric) == 1:
        return by_band(table[trait.numeric[0]], malicious)
    return by_trees(table.select(trait.numeric), table.select(trait.labels), malicious)
