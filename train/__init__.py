"""Assemble, split, fit, calibrate, evaluate, gates, report: from contract rows to a detector that is proven or refused.

Torch and transformers are imported when training starts, not when this package is.
"""

# Eager, and in this form: `fit`, `assemble` and `evaluate` are modules too, and a lazy attribute would lose to them.
from .learn.calibrate import Platt, Threshold, calibrate, choose_threshold, fit_platt, recalibrate
from .learn.check import CalibrationCheck, calibration_check
from .learn.fit import FitResult, fit
from .learn.model import KNOWN_THREATS, Calibration, TrainedModel
from .learn.recipes import BROAD, FULL, INCREMENTAL, QUICK, RECIPES, Recipe, find_recipe
from .measure.errors import ErrorAnalysis, analyse_errors
from .measure.evaluate import Comparison, Evaluation, compare, evaluate, false_positives, write_harness
from .measure.gates import DEFAULT_GATES, Gate, GateReport, check_gates
from .measure.intervals import Estimate, Rate, rows_needed, wilson
from .measure.robustness import Robustness, robustness
from .measure.suites import (
    BENIGN_TEST,
    EDGE_CASES,
    MALICIOUS_HELD_OUT,
    PROGRAMMING,
    WHOLE,
    Suite,
    held_out_suites,
    split_held_out,
    standard_suites,
    suite_of,
)
from .measure.threats import ThreatNaming, threat_naming
from .report.report import ReportData, Table, build_report, table_from, write_report
from .report.scores import score_tables
from .rows.assemble import Assembly, assemble
from .rows.mix import Mix
from .rows.split import Split, split_originals

__all__ = [
    "BENIGN_TEST",
    "BROAD",
    "DEFAULT_GATES",
    "EDGE_CASES",
    "FULL",
    "INCREMENTAL",
    "KNOWN_THREATS",
    "MALICIOUS_HELD_OUT",
    "PROGRAMMING",
    "QUICK",
    "RECIPES",
    "WHOLE",
    "Assembly",
    "Calibration",
    "CalibrationCheck",
    "Comparison",
    "ErrorAnalysis",
    "Estimate",
    "Evaluation",
    "FitResult",
    "Gate",
    "GateReport",
    "Mix",
    "Platt",
    "Rate",
    "Recipe",
    "ReportData",
    "Robustness",
    "Split",
    "Suite",
    "Table",
    "ThreatNaming",
    "Threshold",
    "TrainedModel",
    "analyse_errors",
    "assemble",
    "build_report",
    "calibrate",
    "calibration_check",
    "check_gates",
    "choose_threshold",
    "compare",
    "evaluate",
    "false_positives",
    "find_recipe",
    "fit",
    "fit_platt",
    "held_out_suites",
    "recalibrate",
    "robustness",
    "rows_needed",
    "score_tables",
    "split_held_out",
    "split_originals",
    "standard_suites",
    "suite_of",
    "table_from",
    "threat_naming",
    "wilson",
    "write_harness",
    "write_report",
]
