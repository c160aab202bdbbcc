"""What a retraining did to robustness, as tables of the report.

Takes a `RobustnessChange` and gives two tables, attacks and benign rows, and a sentence that says what it comes to.
"""

from __future__ import annotations

from ..measure.evaluate import Measure
from ..measure.intervals import Rate
from ..measure.robustness import NOT_TAKEN, STANDS, Robustness, RobustnessChange
from .report import Table


def robustness_tables(found: RobustnessChange) -> tuple[Table, ...]:
    """Recall, and the FP rate, of both detectors on texts as they came and changed."""
    return (
        _table(found, "recall", "Attacks caught when their texts look otherwise"),
        _table(found, "fp_rate", "Benign prompts flagged under the same changes"),
    )


def robustness_text(found: RobustnessChange) -> str:
    """What is lost by changing a text, before and after, and how many rows say so."""
    said = [f"{when}: {_verdicts(one)}" for when, one in (("Before", found.before), ("After", found.after))]
    rows = f"{found.after.recall().n:,} attacks and {found.after.fp_rate().n:,} benign prompts of the test fold"
    return (
        f"{rows}, drawn by the seed, as they came and changed; both detectors were given the same texts. "
        f"{'. '.join(said)}. What begins to flag harmless texts as well is not robust: it cries wolf."
    )


def _verdicts(one: Robustness) -> str:
    """The changes under which a detector is clearly worse than on the texts as they came."""
    verdicts = {change.name.replace("_", " "): one.verdict(change.name) for change in one.perturbations}
    worse = [f"{name}: {said}" for name, said in verdicts.items() if said not in (STANDS, NOT_TAKEN)]
    return "; ".join(worse) or "no change of the text makes a difference that these rows can show"


def _table(found: RobustnessChange, measure: Measure, caption: str) -> Table:
    meanings = {change.name: change.meaning for change in found.after.perturbations}
    rows = []
    for name in found.names:
        old, new = (_rate(one, measure, name) for one in (found.before, found.after))
        shown = "as they came" if name is None else f"{name.replace('_', ' ')}: {meanings[name]}"
        rows.append((shown, new.n, old, new, found.change(name, measure)))
    return Table(caption, ("texts", "n", "before", "after", "change"), tuple(rows))


def _rate(one: Robustness, measure: Measure, name: str | None) -> Rate:
    return one.recall(name) if measure == "recall" else one.fp_rate(name)
