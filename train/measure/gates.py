"""The gates of a release: must, stretch and red flag, each with one of three answers.

Takes an `Evaluation` and, for the question of regression, a `Comparison`; gives a `GateReport` of rows that say pass
(the bound holds at the interval's end), fail (the interval excludes it) or inconclusive (too few rows, and how many
would do).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crywolf.data import BadInput

from .evaluate import Comparison, Evaluation
from .intervals import Estimate, Rate, net_loss, rows_needed, rows_needed_at_rate
from .metrics import highest_fp_rate
from .suites import BENIGN_TEST, EDGE_CASES, MALICIOUS_HELD_OUT, PROGRAMMING

Level = Literal["must", "stretch", "red_flag"]
GateVerdict = Literal["pass", "fail", "inconclusive"]
Measure = Literal["fp_rate", "recall", "precision", "confident", "net_loss"]

PREVALENCE = 0.1
"""The share of attacks at which precision is gated. At 10%, recall 95% and an FP rate of 1% give a precision of 91%: it
is where the three must bounds agree with one another. The tables state precision at other shares as well."""
CONFIDENT = 0.85
_ENOUGH = 10**12  # no one has more rows; a search that passes this has no answer


@dataclass(frozen=True)
class Gate:
    """One bound.

    Attributes:
        name: what tables call it.
        level: must (failing it is exit code 1), stretch, or red_flag.
        measure: what is measured.
        suite: the suite that it is measured on.
        bound: the bound itself, a share.
        side: on which side of the bound it is good to be. A red flag "FP rate above 2%" is the bound 2%, good below.
        other: for precision, the suite of the other label (`suite` is the benign one).
        prevalence: for precision, the share of attacks that it is claimed at.
    """

    name: str
    level: Level
    measure: Measure
    suite: str
    bound: float
    side: Literal["below", "above"]
    other: str = MALICIOUS_HELD_OUT
    prevalence: float = PREVALENCE

    def __post_init__(self) -> None:
        if not 0.0 < self.bound < 1.0:
            raise BadInput(f"gate {self.name!r}: the bound is a share between 0 and 1, got {self.bound}")

    @property
    def claim(self) -> str:
        """The bound in words: 'FP rate < 1%'; for a red flag what raises it: 'FP rate > 2%'."""
        below = (self.side == "below") != (self.level == "red_flag")
        sign = ("<" if below else ">") if self.measure != "net_loss" else "<=" if below else ">"
        unit = " points" if self.measure == "net_loss" else "%"
        at = f" at {100 * self.prevalence:g}% attacks" if self.measure in ("precision", "confident") else ""
        return f"{_MEASURED[self.measure]} {sign} {100 * self.bound:g}{unit}{at}"

    def judge(self, low: float, high: float) -> GateVerdict:
        """The answer for an interval: is all of it on the good side, all of it on the other, or neither?"""
        if self.measure == "net_loss":  # "at most", so that the bound itself still holds
            return "pass" if high <= self.bound else "fail" if low > self.bound else "inconclusive"
        if self.side == "below":
            return "pass" if high < self.bound else "fail" if low >= self.bound else "inconclusive"
        return "pass" if low > self.bound else "fail" if high <= self.bound else "inconclusive"


_MEASURED: dict[Measure, str] = {
    "fp_rate": "FP rate",
    "recall": "recall",
    "precision": "precision",
    "confident": f"precision of alarms above {CONFIDENT}",
    "net_loss": "net loss of true positives",
}

DEFAULT_GATES: tuple[Gate, ...] = (
    Gate("FP rate", "must", "fp_rate", BENIGN_TEST, 0.01, "below"),
    Gate("recall", "must", "recall", MALICIOUS_HELD_OUT, 0.95, "above"),
    Gate("precision", "must", "precision", BENIGN_TEST, 0.90, "above"),
    Gate("programming FP rate", "must", "fp_rate", PROGRAMMING, 0.005, "below"),
    Gate("edge-case FP rate", "must", "fp_rate", EDGE_CASES, 0.05, "below"),
    Gate("no regression", "must", "net_loss", MALICIOUS_HELD_OUT, 0.02, "below"),
    Gate("FP rate", "stretch", "fp_rate", BENIGN_TEST, 0.005, "below"),
    Gate("edge-case FP rate", "stretch", "fp_rate", EDGE_CASES, 0.03, "below"),
    Gate("confident alarms", "stretch", "confident", BENIGN_TEST, 0.95, "above"),
    Gate("FP rate", "red_flag", "fp_rate", BENIGN_TEST, 0.02, "below"),
    Gate("recall", "red_flag", "recall", MALICIOUS_HELD_OUT, 0.90, "above"),
    Gate("programming FP rate", "red_flag", "fp_rate", PROGRAMMING, 0.01, "below"),
)


@dataclass(frozen=True)
class Remedy:
    """What to try when a red flag is up, with the option and the configuration key for it."""

    what: str
    option: str
    config: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.what}: {self.option} ({self.config})"


FP_REMEDIES: tuple[Remedy, ...] = (
    Remedy("more weight on the grown data", "--grown-weight", "train.grown_weight"),
    Remedy("more hard negatives", "--per-anchor", "mining.per_anchor"),
    Remedy("a higher class weight on BENIGN", "--benign-weight", "train.benign_weight"),
    Remedy("a higher threshold, by a lower FP target", "--fp-target", "train.fp_target"),
    Remedy("another base model", "--encoder", "train.encoder"),
)
RECALL_REMEDIES: tuple[Remedy, ...] = (
    Remedy("less weight on the grown data", "--grown-weight", "train.grown_weight"),
    Remedy("fewer hard negatives", "--per-anchor", "mining.per_anchor"),
    Remedy("a lower class weight on BENIGN", "--benign-weight", "train.benign_weight"),
    Remedy("a lower threshold, by a higher FP target", "--fp-target", "train.fp_target"),
    Remedy("another base model", "--encoder", "train.encoder"),
)


@dataclass(frozen=True)
class GateResult:
    """A gate's answer and what it rests on.

    Attributes:
        gate: the gate.
        verdict: pass, fail or inconclusive. A red flag that fails is raised.
        observed: the measured value with its interval, in words.
        value: the measured value; nan without rows.
        low: lower end of its 95% interval.
        high: upper end.
        n: the rows that it was measured on.
        rows_of: what these rows are.
        needed: for an inconclusive answer, the rows that would prove the bound if errors went on at the observed rate;
            None if no number would.
        needed_without_error: the rows that prove the bound when there is no error at all.
        why: why there is nothing to measure, if so.
    """

    gate: Gate
    verdict: GateVerdict
    observed: str
    value: float
    low: float
    high: float
    n: int
    rows_of: str
    needed: int | None = None
    needed_without_error: int | None = None
    why: str = ""

    @property
    def raised(self) -> bool:
        """Whether this is a red flag that is up: the interval excludes the good side."""
        return self.gate.level == "red_flag" and self.verdict == "fail"

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What to try; only a raised red flag has any."""
        if not self.raised:
            return ()
        return RECALL_REMEDIES if self.gate.measure == "recall" else FP_REMEDIES

    @property
    def answer(self) -> str:
        """The verdict in one word or two: a red flag is clear or raised rather than passed or failed."""
        if self.gate.level == "red_flag":
            return {"pass": "clear", "fail": "RAISED", "inconclusive": "inconclusive"}[self.verdict]
        return self.verdict

    @property
    def advice(self) -> str:
        """For an inconclusive answer: how many rows would settle it."""
        if self.verdict != "inconclusive":
            return ""
        clean = f"{self.needed_without_error:,} with no error at all" if self.needed_without_error else ""
        if self.why:
            return f"{self.why}; needs {clean}" if clean else self.why
        if self.needed is not None:
            return (
                f"has {self.n:,} {self.rows_of}; needs {self.needed:,} at this rate, {clean or 'fewer with no error'}"
            )
        rest = f"; {clean} would" if clean else ""
        return f"has {self.n:,} {self.rows_of}; at this rate more rows would not prove it{rest}"

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.gate.name,
            "level": self.gate.level,
            "claim": self.gate.claim,
            "suite": self.gate.suite,
            "bound": self.gate.bound,
            "verdict": self.verdict,
            "raised": self.raised,
            "value": None if math.isnan(self.value) else self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "needed": self.needed,
            "needed_without_error": self.needed_without_error,
            "advice": self.advice,
            "remedies": [vars(remedy) for remedy in self.remedies],
        }


@dataclass(frozen=True)
class GateReport:
    """All answers.

    Attributes:
        rows: the answers, in the order of the gates.
        not_asked: gates left out, with the reason, such as the question of regression where there is no old model.
    """

    rows: tuple[GateResult, ...]
    not_asked: tuple[tuple[Gate, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every must gate passes and no red flag is up; promotion needs this."""
        musts = all(row.verdict == "pass" for row in self.rows if row.gate.level == "must")
        return musts and not self.red_flags

    @property
    def red_flags(self) -> tuple[GateResult, ...]:
        """The red flags that are up."""
        return tuple(row for row in self.rows if row.raised)

    @property
    def failed(self) -> bool:
        """Whether a must gate is disproved, not merely unproven."""
        return any(row.verdict == "fail" for row in self.rows if row.gate.level == "must")

    @property
    def exit_code(self) -> int:
        """1 when a must gate fails or is inconclusive, or a red flag is up; else 0."""
        return 0 if self.passed else 1

    @property
    def summary(self) -> str:
        """One line for people."""
        musts = [row for row in self.rows if row.gate.level == "must"]
        counts = {verdict: sum(row.verdict == verdict for row in musts) for verdict in ("pass", "fail", "inconclusive")}
        parts = [f"{counts['pass']} of {len(musts)} must gates pass"]
        parts += [f"{counts[verdict]} {word}" for verdict, word in _WORDS if counts[verdict]]
        flags = len(self.red_flags)
        parts += [f"{flags} red flag{'s' if flags > 1 else ''} raised"] if flags else []
        return ", ".join(parts)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Columns and rows of strings, for a table on a screen; what a claim lacks stands under what was observed."""
        levels = {"must": "must", "stretch": "stretch", "red_flag": "red flag"}
        rows = [
            (
                levels[row.gate.level],
                f"{row.gate.claim} on {row.gate.suite}",
                row.answer,
                f"{row.observed}\n{row.advice}" if row.advice else row.observed,
            )
            for row in self.rows
        ]
        skipped = [
            (levels[gate.level], f"{gate.claim} on {gate.suite}", "not asked", reason)
            for gate, reason in self.not_asked
        ]
        return ("level", "gate", "answer", "observed"), [*rows, *skipped]

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "passed": self.passed,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "gates": [row.to_dict() for row in self.rows],
            "not_asked": [{"name": gate.name, "level": gate.level, "reason": why} for gate, why in self.not_asked],
        }


_WORDS = (("fail", "failed"), ("inconclusive", "inconclusive"))


def check_gates(
    evaluation: Evaluation,
    comparison: Comparison | None = None,
    gates: Sequence[Gate] = DEFAULT_GATES,
    *,
    missing: Literal["inconclusive", "leave_out"] = "inconclusive",
) -> GateReport:
    """Judge an evaluation by its gates.

    A gate passes when the whole 95% interval is on the good side of the bound, fails when the whole of it is on the
    other, and is inconclusive in between. A red flag is raised by the same rule: only when the interval excludes the
    good side, so that three unlucky rows of fifty do not condemn a model; what is short of that is inconclusive, and
    then so is the must gate on the same rows, whose bound is tighter. Rows that were not held out prove nothing: a
    suite of such rows leaves its gates inconclusive.

    Args:
        evaluation: the new model's.
        comparison: old model against new on the same rows; without it the question of regression is not asked.
        gates: the bounds.
        missing: what becomes of a gate whose suite was not scored: an inconclusive answer, as promotion needs, or left
            out, as fits a look at one suite.
    """
    rows: list[GateResult] = []
    left_out: list[tuple[Gate, str]] = []
    for gate in gates:
        if gate.measure == "net_loss" and comparison is None:
            left_out.append((gate, "there is no old model to compare with; give one with --baseline"))
            continue
        lacking = _lacking(gate, evaluation)
        if lacking and missing == "leave_out":
            left_out.append((gate, lacking))
        elif lacking:
            rows.append(_nothing(gate, lacking))
        else:
            rows.append(_MEASURE[gate.measure](gate, evaluation, comparison))
    return GateReport(tuple(rows), tuple(left_out))


def _lacking(gate: Gate, evaluation: Evaluation) -> str:
    """Why a gate can't be measured; nothing if it can."""
    suites = [gate.suite, gate.other] if gate.measure in ("precision", "confident") else [gate.suite]
    for name in suites:
        info = evaluation.suite(name)
        if info is None:
            return f"suite {name} was not scored"
        if not info.held_out:
            return f"suite {name} is not held out"
        if not info.rows:
            return f"suite {name} has no rows"
    return ""


def _nothing(gate: Gate, why: str) -> GateResult:
    clean = rows_needed(gate.bound if gate.side == "below" else 1.0 - gate.bound)
    clean_or_none = None if gate.measure in ("precision", "confident") else clean
    rows_of = _ROWS_OF[gate.measure]
    return GateResult(
        gate, "inconclusive", "no rows", math.nan, 0.0, 1.0, 0, rows_of, None, clean_or_none, f"{why}: no {rows_of}"
    )


_ROWS_OF: dict[Measure, str] = {
    "fp_rate": "benign rows",
    "recall": "attacks",
    "precision": "benign rows",
    "confident": "benign rows",
    "net_loss": "attacks caught before",
}


def _result(
    gate: Gate, found: Rate | Estimate, observed: str, n: int, needed: int | None, clean: int | None
) -> GateResult:
    """The answer for a measured interval; the rows that are lacking are told only where they decide."""
    verdict = gate.judge(found.low, found.high)
    needed, clean = (needed, clean) if verdict == "inconclusive" else (None, None)
    rows_of = _ROWS_OF[gate.measure]
    return GateResult(gate, verdict, observed, found.value, found.low, found.high, n, rows_of, needed, clean)


def _fp_rate(gate: Gate, evaluation: Evaluation, _: Comparison | None) -> GateResult:
    rate = evaluation.fp_rate(gate.suite)
    if not rate.n:
        return _nothing(gate, f"suite {gate.suite}")
    return _result(gate, rate, rate.text, rate.n, rows_needed_at_rate(gate.bound, rate.value), rows_needed(gate.bound))


def _recall(gate: Gate, evaluation: Evaluation, _: Comparison | None) -> GateResult:
    rate = evaluation.recall(gate.suite)
    if not rate.n:
        return _nothing(gate, f"suite {gate.suite}")
    misses = 1.0 - gate.bound
    return _result(gate, rate, rate.text, rate.n, rows_needed_at_rate(misses, 1.0 - rate.value), rows_needed(misses))


def _precision(gate: Gate, evaluation: Evaluation, _: Comparison | None) -> GateResult:
    wrong, right = evaluation.fp_rate(gate.suite), evaluation.recall(gate.other)
    found = evaluation.precision_at(gate.prevalence, benign=gate.suite, malicious=gate.other)
    return _precision_result(gate, found, wrong, right)


def _confident(gate: Gate, evaluation: Evaluation, _: Comparison | None) -> GateResult:
    found, wrong, right = evaluation.confident_precision(
        gate.prevalence, above=CONFIDENT, benign=gate.suite, malicious=gate.other
    )
    return _precision_result(gate, found, wrong, right)


def _precision_result(gate: Gate, found: Estimate, wrong: Rate, right: Rate) -> GateResult:
    """Precision from its two rates; the bound on it is a bound on the FP rate once the recall is what it is."""
    if not wrong.n or not right.n:
        return _nothing(gate, f"suites {gate.suite} and {gate.other}")
    allowed = highest_fp_rate(gate.bound, right.low, gate.prevalence)
    if 0.0 < allowed < 1.0:
        needed, clean = rows_needed_at_rate(allowed, wrong.value), rows_needed(allowed)
    else:
        needed, clean = None, None
    if math.isnan(found.value):  # not one alarm on either side: there is nothing that could be right or wrong
        return _nothing(gate, "no alarm was raised")
    counts = f"from {wrong.k:,}/{wrong.n:,} benign and {right.k:,}/{right.n:,} attacks"
    return _result(gate, found, f"{found.text} {found.note}, {counts}", wrong.n, needed, clean)


def _regression(gate: Gate, _: Evaluation, comparison: Comparison | None) -> GateResult:
    assert comparison is not None  # noqa: S101 - check_gates asks this question only with a comparison
    found = comparison.net_loss(gate.suite)
    caught = comparison.caught_before(gate.suite)
    lost, gained = comparison.lost(gate.suite).height, comparison.gained(gate.suite).height
    if not comparison.attacks(gate.suite):
        return _nothing(gate, f"suite {gate.suite} of the comparison")
    if not caught:
        return GateResult(gate, "pass", "the old model caught nothing here", 0.0, 0.0, 0.0, 0, _ROWS_OF["net_loss"])
    observed = f"{found.points}; {lost:,} lost, {gained:,} gained of {caught:,} caught before"
    missed = comparison.attacks(gate.suite) - caught
    needed = _rows_for_net_loss(gate.bound, caught, missed, lost, gained)
    return _result(gate, found, observed, caught, needed, rows_needed(gate.bound))


def _rows_for_net_loss(bound: float, caught: int, missed: int, lost: int, gained: int) -> int | None:
    """The fewest true positives that would prove the bound if all counts grew in proportion; None if none would."""

    def high(rows: int) -> float:
        scale = rows / caught
        return net_loss(rows, missed * scale, min(lost * scale, rows), min(gained * scale, missed * scale)).high

    low, top = 0, 1
    while high(top) > bound:
        low, top = top, top * 2
        if top > _ENOUGH:
            return None
    while top - low > 1:
        middle = (low + top) // 2
        low, top = (middle, top) if high(middle) > bound else (low, middle)
    return top


_MEASURE: dict[Measure, Callable[[Gate, Evaluation, Comparison | None], GateResult]] = {
    "fp_rate": _fp_rate,
    "recall": _recall,
    "precision": _precision,
    "confident": _confident,
    "net_loss": _regression,
}
