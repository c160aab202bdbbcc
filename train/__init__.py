"""Assemble, split, fit, calibrate, evaluate, gates, report: from contract rows to a detector that is proven or refused.

Torch and transformers are imported when training starts, not when this package is.
"""

# Eager, and in this form: `fit`, `assemble` and `evaluate` are modules too, and a lazy attribute would lose to them.
from .learn.calibrate import Platt, Threshold, calibrate, choose_threshold, fit_platt, recalibrate
from .learn.fit import FitResult, fit
from .learn.model import KNOWN_THREATS, Calibration, TrainedModel
from .learn.recipes import FULL, QUICK, RECIPES, Recipe, find_recipe
from .measure.evaluate import Comparison, Evaluation, compare, evaluate, false_positives, write_harness
from .measure.gates import DEFAULT_GATES, Gate, GateReport, check_gates
from .measure.intervals import Estimate, Rate, rows_needed, wilson
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
from .report.report import ReportData, Table, build_report, table_from, write_report
from .rows.assemble import Assembly, assemble
from .rows.split import Split, split_originals

__all__ = [
    "BENIGN_TEST",
    "DEFAULT_GATES",
    "EDGE_CASES",
    "FULL",
    "KNOWN_THREATS",
    "MALICIOUS_HELD_OUT",
    "PROGRAMMING",
    "QUICK",
    "RECIPES",
    "WHOLE",
    "Assembly",
    "Calibration",
    "Comparison",
    "Estimate",
    "Evaluation",
    "FitResult",
    "Gate",
    "GateReport",
    "Platt",
    "Rate",
    "Recipe",
    "ReportData",
    "Split",
    "Suite",
    "Table",
    "Threshold",
    "TrainedModel",
    "assemble",
    "build_report",
    "calibrate",
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
    "rows_needed",
    "split_held_out",
    "split_originals",
    "standard_suites",
    "suite_of",
    "table_from",
    "wilson",
    "write_harness",
    "write_report",
]
