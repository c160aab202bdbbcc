"""Where an audit draws its lines; each is an option of the command or stands in the report beside what it decided."""

from __future__ import annotations

from dataclasses import dataclass

from crywolf.data import BadInput


@dataclass(frozen=True)
class AuditConfig:
    """The lines of an audit.

    Attributes:
        flag_auc: a trait is flagged when the lower end of its AUC's interval reaches this.
        flag_share: a trait is flagged when its one-sided cells hold this share of a label's rows.
        lift: a cell is one-sided when it holds surely (both 95% intervals) this many times the share of one label's
            rows that it holds of the other's.
        threshold: Jaccard similarity of near-duplicates.
        cosine: a row at least this near to a holdout row leaks it in meaning.
        duplicate_share: duplicates are flagged from this share of redundant rows.
        label_ratio: balance is flagged when one label has this many times the rows of the other.
        neighbours: neighbours that vote on a row's label.
        error_share: label errors are flagged when both witnesses accuse this share of the rows judged.
    """

    flag_auc: float = 0.65
    flag_share: float = 0.05
    lift: float = 10.0
    threshold: float = 0.8
    cosine: float = 0.95
    duplicate_share: float = 0.02
    label_ratio: float = 10.0
    neighbours: int = 20
    error_share: float = 0.005

    def __post_init__(self) -> None:
        shares = ("flag_share", "threshold", "cosine", "duplicate_share", "error_share")
        for name in shares:
            if not 0 < getattr(self, name) <= 1:
                raise BadInput(f"audit: {name} is {getattr(self, name)}; it must be above 0 and at most 1")
        if not 0.5 < self.flag_auc <= 1:
            raise BadInput(f"audit: flag_auc is {self.flag_auc}; it must be above 0.5 and at most 1")
        for name in ("lift", "label_ratio"):
            if getattr(self, name) <= 1:
                raise BadInput(f"audit: {name} is {getattr(self, name)}; it must be above 1")
        if self.neighbours < 1:
            raise BadInput(f"audit: neighbours is {self.neighbours}; it must be at least 1")
