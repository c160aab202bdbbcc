"""The audit: duplicates, leakage, balance, label errors and shortcuts of a training corpus, before it trains anything.

Takes contract rows, holdouts and an encoder; gives an `Audit` with tables, findings and a review queue, and its page.
"""

from .audit import Audit, Finding, audit
from .config import AuditConfig
from .label_errors import LabelErrors, find_label_errors
from .ranking import Auc
from .report import write_audit_report
from .shortcuts import Shortcut, find_shortcuts
from .traits import TRAITS, Trait, traits

__all__ = [
    "TRAITS",
    "Auc",
    "Audit",
    "AuditConfig",
    "Finding",
    "LabelErrors",
    "Shortcut",
    "Trait",
    "audit",
    "find_label_errors",
    "find_shortcuts",
    "traits",
    "write_audit_report",
]
