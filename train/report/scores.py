"""What the scores are worth, as tables of the report: operating points, calibration, the naming of threats.

Takes an `Evaluation` and thresholds by name and gives tables; the measures come from `learn` and `measure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ..learn.check import CalibrationCheck, calibration_check
from ..learn.operating import measure_points
from ..measure.evaluate import Evaluation
from ..measure.intervals import Rate
from ..measure.threats import ThreatNaming, threat_naming
from .report import FEW, Table, few_name

PREVALENCE = 0.01
"""The share of attacks in the traffic for which the precision of sure alarms is stated."""


def score_tables(evaluation: Evaluation, thresholds: Mapping[str, float]) -> tuple[Table, ...]:
    """Tables over all held-out rows: operating points, calibration, and the naming of threats where any was named."""
    rows = evaluation.select(by="language")
    if rows.is_empty():
        return ()
    scores = rows["score"].to_numpy()
    malicious = (rows["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    check = calibration_check(scores, malicious, rows["language"].fill_null("?").to_list(), PREVALENCE)
    tables = [_points_table(scores, malicious, thresholds), _calibration_table(check)]
    if malicious.any() and rows["taken_for"].is_not_null().any():
        tables.append(_threats_table(threat_naming(rows)))
    return tuple(table for table in tables if table.rows)


def _points_table(scores: object, malicious: object, thresholds: Mapping[str, float]) -> Table:
    points = measure_points(scores, malicious, thresholds)  # type: ignore[arg-type]  # arrays, as the caller has them
    rows = tuple((point.name, round(point.threshold, 4), point.fp, point.recall) for point in points)
    note = "Over all held-out rows; what each point was chosen by is in the model card."
    return Table("Operating points", ("point", "threshold", "FP rate", "recall"), rows, note)


def _calibration_table(check: CalibrationCheck) -> Table:
    columns = ("language", "n", "mean score", "attacks", "calibration error", "verdict")
    rows = tuple(
        (
            row["language"],
            row["n"],
            round(row["mean_score"], 4),
            Rate(row["attacks"], row["n"]),
            None if row["ece"] is None else round(row["ece"], 4),
            row["verdict"],
        )
        for row in _few_together(check.languages)
    )
    return Table("Calibration by language", columns, rows, check.text)


def _few_together(languages: pl.DataFrame) -> list[dict[str, Any]]:
    """Languages of fewer than `FEW` rows as one, at the end; its calibration is not told."""
    few = languages.filter(pl.col("n") < FEW)
    if few.height < 2:
        return languages.to_dicts()
    together = {
        "language": few_name(few.height),
        "n": few["n"].sum(),
        "mean_score": float(np.average(few["mean_score"].to_numpy(), weights=few["n"].to_numpy())),
        "attacks": few["attacks"].sum(),
        "ece": None,
        "verdict": "too few rows",
    }
    return [*languages.filter(pl.col("n") >= FEW).to_dicts(), together]


def _threats_table(naming: ThreatNaming) -> Table:
    columns = ("threat type", "attacks", "flagged", "flagged, answered unknown", "named so and right", "recall")
    rows = tuple(
        (
            row["threat_type"],
            row["attacks"],
            row["flagged"],
            row["unknown"],
            Rate(row["precision_k"], row["named"]),
            Rate(row["recall_k"], row["attacks"]),
        )
        for row in naming.types.iter_rows(named=True)
    )
    return Table("Threat types", columns, rows, naming.text)
