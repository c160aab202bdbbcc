"""Feedback: the store of reported false positives, their ingestion from logs, and the rounds run on them.

Takes logs and contract frames; keeps them in one SQLite file; gives frames to grow and folders with a new package.
"""

from .ingest import Ingestion, ingest
from .rounds import Before, NothingNewError, RoundResult, quarantine, run_round
from .store import GROWABLE, STATUSES, Store

__all__ = [
    "GROWABLE",
    "STATUSES",
    "Before",
    "Ingestion",
    "NothingNewError",
    "RoundResult",
    "Store",
    "ingest",
    "quarantine",
    "run_round",
]
