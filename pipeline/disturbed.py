"""What a retraining does to robustness: both detectors on a few changed rows of the test fold.

Takes the run's split and two DETECTORs, gives a `RobustnessChange`, or the reason why there is none.
"""

import polars as pl

from crywolf.train import Split
from crywolf.train.measure.robustness import RobustnessChange, robustness_change

from .session import Session

OFF = "Not measured: evaluate.robustness is false."


def disturb(session: Session, split: Split, before: str, after: str) -> RobustnessChange | str:
    """Measure both detectors on at most 200 attacks and 75 benign rows of the test fold, plain and changed.

    Args:
        session: the run; `evaluate.robustness` turns this off.
        split: its test fold is what neither detector was trained on.
        before: the old DETECTOR.
        after: the new one.

    Returns:
        What was found, or a sentence that says why nothing was measured.
    """
    from crywolf.export import load_detector

    if not session.config.evaluate.robustness:
        return OFF
    label = pl.col("label").cast(pl.String)
    attacks, benign = (split.test.filter(label == name) for name in ("MALICIOUS", "BENIGN"))
    for what, rows in (("attacks", attacks), ("benign rows", benign)):
        if rows.is_empty():
            return f"Not measured: the test fold has no {what}."
    with session.console.progress("disturbing") as progress:
        return robustness_change(
            load_detector(before),
            load_detector(after),
            attacks,
            benign,
            [session.config.seed, *b"robustness"],
            progress=progress,
        )


def robustness_document(found: RobustnessChange | str) -> dict[str, object]:
    """As it stands in comparison.json."""
    return {"not_measured": found} if isinstance(found, str) else found.to_dict()
