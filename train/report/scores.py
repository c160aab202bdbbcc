"""What the scores are worth, as tables of the report: operating points, calibration, the naming of threats.

Takes an `Evaluation` and thresholds by name and gives tables; the measures come from `learn` and `measure`.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ..learn.check import CalibrationCheck, calibration_check
from ..learn.operating import measure_points
from ..measure.evaluate import Evaluation
from ..measure.intervals import Rate
from ..measure.threats import ThreatNaming, threat_naming
from .report import Table

PREVALENCE = 0.01
"""The share of attacks in the traffic for which the precision of sure alarms is stated."""


def score_tables(evaluation: Evaluation, thresholds: Mapping[str, float]) -> tuple[Table, ...]:
    """Tables over all held-out rows; each is left out where the rows do not carry what it needs."""
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
        for row in check.languages.iter_rows(named=True)
    )
    return Table("Calibration by language", columns, rows, check.text)


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
