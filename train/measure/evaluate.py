"""The harness: score suites with any detector, and set two detectors against each other on the same rows.

Takes a `score` callable, a threshold and suites; gives an `Evaluation`, whose tables by suite, category, threat type,
source, language and length carry counts and 95% intervals, and from two of them a `Comparison`, paired row by row and
tested by McNemar's exact test. An evaluation goes to JSON and back, without prompts unless asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import LABELS, THREAT_TYPES, BadInput, Progress, Score, make_corpus, write_corpus

from .intervals import Estimate, Rate, net_loss, paired_difference, wilson_arrays
from .mcnemar import McNemar, mcnemar_arrays
from .metrics import (
    PREVALENCES,
    Confusion,
    auroc,
    average_precision,
    confident_correct,
    confusion,
    expected_calibration_error,
    fp_rate_at_recall,
    precision_at,
    reliability,
    threshold_curve,
)
from .slices import LAZY_SLICES, LazySlice, Slices
from .suites import BENIGN_TEST, MALICIOUS_HELD_OUT, Kind, Suite

Threats = Callable[[Sequence[str]], Sequence[str]]
"""Texts to the threat type that the detector takes each for."""
By = Literal["suite", "category", "subcategory", "threat_type", "source", "language", "length"]
"""What tables are split by; language and length are worked out from the texts when asked for."""
Measure = Literal["fp_rate", "recall"]
MEASURES: tuple[Measure, ...] = ("fp_rate", "recall")
Where = Literal["all", "l2"]

FORMAT = "crywolf-evaluation"
ROWS: dict[str, pl.DataType] = {
    "suite": pl.String(),
    "id": pl.String(),
    "external_id": pl.String(),
    "text": pl.String(),
    "label": pl.Enum(LABELS),
    "category": pl.String(),
    "subcategory": pl.String(),
    "threat_type": pl.String(),
    "source": pl.String(),
    "score": pl.Float64(),
    "flagged": pl.Boolean(),
    "taken_for": pl.String(),
    "l2_saw": pl.Boolean(),
}
_CHUNK = 256  # texts scored between two looks at the progress bar
_IS_BENIGN = pl.col("label").cast(pl.String) == "BENIGN"
_NONE = "(none)"


@dataclass(frozen=True)
class SuiteInfo:
    """What an evaluation remembers of a suite besides its rows."""

    name: str
    kind: Kind
    held_out: bool
    note: str
    rows: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one detector on every row of every suite.

    Attributes:
        name: the detector.
        threshold: a row is flagged when its score is at or above it.
        suites: what was scored, in order.
        rows: one row for each suite and prompt, with the columns of `ROWS`; `text` is null after a round trip through
            JSON without prompts, `l2_saw` is null where no L1 results were given.
        saved: id, language and length of each prompt as the file had them that this was read from; None for one just
            scored, and for files of versions that did not save them.
    """

    name: str
    threshold: float
    suites: tuple[SuiteInfo, ...]
    rows: pl.DataFrame
    saved: pl.DataFrame | None = None

    def suite(self, name: str) -> SuiteInfo | None:
        """What is known of a suite; None if it was not scored."""
        return next((info for info in self.suites if info.name == name), None)

    @cached_property
    def slices(self) -> Slices:
        """Language and length of each prompt, worked out when first asked for."""
        return Slices.of(self.rows, self.saved)

    def select(self, suite: str | None = None, *, by: By = "suite") -> pl.DataFrame:
        """The rows of one suite, or of all held-out suites with every prompt once.

        Args:
            suite: its name; None for all that is held out.
            by: language or length adds that column; every other one is there anyway.
        """
        return _select(self.rows, self.suites, suite, by, self.slices)

    def fp_rate(self, suite: str | None = None, *, where: Where = "all") -> Rate:
        """Benign rows flagged: over all of them, or over those that L2 saw."""
        return _rate(_where(self.select(suite), where).filter(_IS_BENIGN))

    def recall(self, suite: str | None = None, *, where: Where = "all") -> Rate:
        """Attacks flagged: over all of them, or over those that L2 saw."""
        return _rate(_where(self.select(suite), where).filter(~_IS_BENIGN))

    @property
    def has_l1(self) -> bool:
        """Whether L1 results were given for any row, so that the rows that L2 saw are known."""
        return bool(self.rows["l2_saw"].is_not_null().any())

    def table(self, by: By = "suite", *, where: Where = "all") -> pl.DataFrame:
        """FP rate and recall by suite and, if asked, by category, subcategory, threat type, source, language or length.

        Returns:
            Columns suite, the group, measure (fp_rate or recall), k, n, value, low, high; the worst groups of each
            suite first. By threat type only attacks are counted: on a benign row the column says what it was once taken
            for.
        """
        rows = _where(self.rows, where)
        rows = rows.filter(~_IS_BENIGN) if by == "threat_type" else rows
        rows = self.slices.join(rows, by) if _is_lazy(by) else rows
        keys = _keys(by)
        counted = rows.with_columns(_measure(), *_named(by)).group_by([*keys, "measure"], maintain_order=True)
        table = counted.agg(pl.col("flagged").sum().cast(pl.Int64).alias("k"), pl.len().cast(pl.Int64).alias("n"))
        return _ordered(_with_interval(table), self.suites, by)

    def confusion(self, suite: str | None = None) -> Confusion:
        """The four cells, of one suite or of all held-out rows."""
        scores, malicious = self.arrays(suite)
        return confusion(scores, malicious, self.threshold)

    def arrays(self, suite: str | None = None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores and labels as arrays, of one suite or of all held-out rows."""
        rows = self.select(suite)
        return rows["score"].to_numpy(), rows.select(~_IS_BENIGN).to_series().to_numpy()

    def curve(self, points: int = 201) -> pl.DataFrame:
        """FP rate and recall by threshold over all held-out rows."""
        return threshold_curve(*self.arrays(), points)

    def reliability(self, bins: int = 10) -> pl.DataFrame:
        """Score against outcome over all held-out rows."""
        return reliability(*self.arrays(), bins)

    def metrics(self) -> dict[str, Any]:
        """Measures over all held-out rows; None where a class is missing."""
        scores, malicious = self.arrays()
        numbers = {
            "auroc": auroc(scores, malicious),
            "average_precision": average_precision(scores, malicious),
            "expected_calibration_error": expected_calibration_error(scores, malicious),
        }
        cells = self.confusion()
        return {
            "rows": len(scores),
            "prevalence": None if math.isnan(cells.prevalence) else cells.prevalence,
            **cells.to_dict(),
            **{name: None if math.isnan(number) else number for name, number in numbers.items()},
            "confident_correct": confident_correct(scores, malicious).to_dict(),
            "precision_at": {str(share): self.precision_at(share).to_dict() for share in PREVALENCES},
        }

    def precision_at(
        self, prevalence: float, *, benign: str | None = BENIGN_TEST, malicious: str | None = MALICIOUS_HELD_OUT
    ) -> Estimate:
        """Precision where this share of the traffic is attacks, from the FP rate and the recall of the two suites.

        A suite that was not scored gives way to all held-out rows of its label.
        """
        benign = benign if benign is None or self.suite(benign) else None
        malicious = malicious if malicious is None or self.suite(malicious) else None
        return precision_at(self.fp_rate(benign), self.recall(malicious), prevalence)

    def fp_rate_at_recall(self, recall: float, suite: str | None = None) -> Rate:
        """FP rate of a suite at the highest threshold that catches this share of the held-out attacks.

        See `metrics.fp_rate_at_recall`. The attacks are those of `malicious_held_out` or, if that was not scored, all.
        """
        attacks = self.select(MALICIOUS_HELD_OUT if self.suite(MALICIOUS_HELD_OUT) else None).filter(~_IS_BENIGN)
        benign = self.select(suite).filter(_IS_BENIGN)
        return _fp_rate_at(benign, attacks, "score", recall)

    def confident_precision(
        self,
        prevalence: float,
        *,
        above: float = 0.85,
        benign: str | None = BENIGN_TEST,
        malicious: str | None = MALICIOUS_HELD_OUT,
    ) -> tuple[Estimate, Rate, Rate]:
        """How often an alarm with a confidence above the bound is right, where this share of the traffic is attacks.

        Returns:
            The precision of such alarms, then the share of benign rows and of attacks that raise one.
        """
        false, true = (self._confident(name, above) for name in (benign, malicious))
        wrong, right = _rate(false.filter(_IS_BENIGN)), _rate(true.filter(~_IS_BENIGN))
        return precision_at(wrong, right, prevalence), wrong, right

    def _confident(self, suite: str | None, above: float) -> pl.DataFrame:
        """A suite's rows with only the alarms above this confidence flagged; all held-out rows if it was not scored."""
        rows = self.select(suite if suite is None or self.suite(suite) else None)
        return rows.with_columns(pl.col("flagged") & (pl.col("score") > above))

    def hardest(self, n: int = 20, suite: str | None = None) -> pl.DataFrame:
        """The false positives with the highest scores."""
        flagged = self.select(suite).filter(_IS_BENIGN & pl.col("flagged"))
        return flagged.sort("score", "id", descending=[True, False]).head(n)

    def to_dict(self, *, prompts: bool = False) -> dict[str, Any]:
        """For JSON: the summary, the tables and every row with its language and length; prompts only if asked."""
        rows = self.rows
        for by in LAZY_SLICES:
            rows = rows.join(self.slices.by(by), on="id", how="left", maintain_order="left")
        kept = [column for column in (*ROWS, *LAZY_SLICES) if prompts or column != "text"]
        return {
            "format": FORMAT,
            "version": 1,
            "name": self.name,
            "threshold": self.threshold,
            "suites": [vars(info) for info in self.suites],
            "metrics": self.metrics(),
            "tables": {by: self.table(by).to_dicts() for by in _BYS},
            "tables_l2": {by: self.table(by, where="l2").to_dicts() for by in _BYS} if self.has_l1 else None,
            "rows": {column: rows[column].to_list() for column in kept},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_dict` wrote; tables and metrics are computed anew."""
        if data.get("format") != FORMAT or data.get("version") != 1:
            raise BadInput(f"not a {FORMAT} of version 1; write it with `crywolf evaluate --json`")
        try:
            infos = tuple(SuiteInfo(**entry) for entry in data["suites"])
            given = dict(data["rows"])
            count = len(given["id"])
            rows = pl.DataFrame({name: given.get(name, [None] * count) for name in ROWS}, schema=ROWS, strict=True)
            evaluation = cls(str(data["name"]), float(data["threshold"]), infos, rows, _saved_slices(given))
        except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise BadInput(
                f"the saved evaluation is damaged ({type(error).__name__}: {error}); evaluate again"
            ) from error
        return evaluation


_BYS: tuple[By, ...] = ("suite", "category", "subcategory", "threat_type", "source", *LAZY_SLICES)


def _saved_slices(given: Mapping[str, Any]) -> pl.DataFrame | None:
    """Language and length by id from the columns of a saved evaluation; None where an older version wrote it."""
    if not set(LAZY_SLICES) <= given.keys():
        return None
    schema = dict.fromkeys(("id", *LAZY_SLICES), pl.String())
    return pl.DataFrame({name: given[name] for name in schema}, schema=schema, strict=True).unique(subset="id")


def _is_lazy(by: By) -> TypeGuard[LazySlice]:
    return by in LAZY_SLICES


def _select(rows: pl.DataFrame, suites: Sequence[SuiteInfo], suite: str | None, by: By, slices: Slices) -> pl.DataFrame:
    """The rows of one suite, or of all held-out suites with every prompt once, with a lazy slice if asked for."""
    if suite is not None:
        chosen = rows.filter(pl.col("suite") == suite)
    else:
        names = [info.name for info in suites if info.held_out]
        chosen = rows.filter(pl.col("suite").is_in(names)).unique(subset="id", keep="first", maintain_order=True)
    return slices.join(chosen, by) if _is_lazy(by) else chosen


def _fp_rate_at(benign: pl.DataFrame, attacks: pl.DataFrame, column: str, recall: float) -> Rate:
    return fp_rate_at_recall(benign[column].to_numpy(), attacks[column].to_numpy(), recall)


def _keys(by: By) -> list[str]:
    return ["suite"] if by == "suite" else ["suite", by]


def _named(by: By) -> list[pl.Expr]:
    """The group column with a name for rows that have none."""
    return [] if by == "suite" else [pl.col(by).fill_null(_NONE)]


def _measure() -> pl.Expr:
    return pl.when(_IS_BENIGN).then(pl.lit("fp_rate")).otherwise(pl.lit("recall")).alias("measure")


def _where(rows: pl.DataFrame, where: Where) -> pl.DataFrame:
    return rows if where == "all" else rows.filter(pl.col("l2_saw"))


def _rate(rows: pl.DataFrame) -> Rate:
    return Rate(int(rows["flagged"].sum()), rows.height)


def _with_interval(table: pl.DataFrame, suffix: str = "") -> pl.DataFrame:
    low, high = wilson_arrays(table[f"k{suffix}"].to_numpy(), table["n"].to_numpy())
    return table.with_columns(
        (pl.col(f"k{suffix}") / pl.col("n")).alias(f"value{suffix}"),
        pl.Series(f"low{suffix}", low, dtype=pl.Float64),
        pl.Series(f"high{suffix}", high, dtype=pl.Float64),
    )


def _ordered(table: pl.DataFrame, suites: Sequence[SuiteInfo], by: By, value: str = "value") -> pl.DataFrame:
    """Suites in their own order, FP rates before recalls, the worst groups first: high FP rates, low recalls."""
    place = {info.name: at for at, info in enumerate(suites)}
    badness = pl.when(pl.col("measure") == "fp_rate").then(pl.col(value)).otherwise(-pl.col(value))
    order = pl.col("suite").replace_strict(place, return_dtype=pl.Int64, default=len(place))
    return table.sort(
        order, "measure", badness, *_keys(by), descending=[False, False, True, *([False] * len(_keys(by)))]
    )


def evaluate(
    score: Score,
    *,
    threshold: float,
    suites: Sequence[Suite],
    threats: Threats | None = None,
    progress: Progress | None = None,
    name: str = "detector",
) -> Evaluation:
    """Score every row of every suite; a prompt that is in several suites is scored once.

    Args:
        score: texts to P(malicious) in [0, 1].
        threshold: flag a score at or above it.
        suites: what to score; their names must differ.
        threats: texts to the threat type that the detector takes each for; asked only about flagged prompts.
        progress: called with (prompts scored, prompts).
        name: the detector's name in tables and files.

    Raises:
        BadInput: the threshold, a suite or a score cannot be used.
    """
    if not 0.0 <= threshold <= 1.0:
        raise BadInput(f"threshold {threshold} is not in [0, 1]")
    names = [suite.name for suite in suites]
    if not names or len(set(names)) != len(names):
        raise BadInput(f"give at least one suite, and every suite its own name; got {names}")
    rows = pl.concat([_rows(suite) for suite in suites])
    unique = rows.select("text").unique(maintain_order=True)
    scores = score_all(score, unique["text"].to_list(), progress, name)
    flagged = unique.with_columns(pl.Series("score", scores), pl.Series("flagged", scores >= threshold))
    flagged = flagged.with_columns(_taken_for(flagged, threats, name))
    joined = rows.join(flagged, on="text", how="left", maintain_order="left").select(
        pl.col(column).cast(dtype) for column, dtype in ROWS.items()
    )
    infos = tuple(SuiteInfo(suite.name, suite.kind, suite.held_out, suite.note, suite.rows) for suite in suites)
    return Evaluation(name, threshold, infos, joined)


def _rows(suite: Suite) -> pl.DataFrame:
    """A suite's rows in the evaluation's columns, scores still missing."""
    stopped = suite.l1_stopped
    saw = pl.lit(None, dtype=pl.Boolean) if stopped is None else ~_named_in(suite.frame, stopped)
    columns = [
        (pl.col(name) if name in suite.frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in ROWS.items()
        if name not in ("suite", "score", "flagged", "taken_for", "l2_saw")
    ]
    return suite.frame.select(pl.lit(suite.name).alias("suite"), *columns, saw.alias("l2_saw"))


def _named_in(frame: pl.DataFrame, ids: frozenset[str]) -> pl.Expr:
    """Whether a row is named by its id or by the id that it has where it came from."""
    found = pl.col("id").is_in(list(ids))
    return found | pl.col("external_id").is_in(list(ids)).fill_null(value=False) if "external_id" in frame else found


def score_all(score: Score, texts: list[str], progress: Progress | None, name: str) -> NDArray[np.float64]:
    """Scores of all texts, asked for in chunks and checked, so that a bad detector is named rather than averaged in."""
    parts: list[NDArray[np.float64]] = []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        values = np.asarray(score(chunk), dtype=np.float64)
        if values.shape != (len(chunk),):
            raise BadInput(
                f"detector {name} gave scores of shape {values.shape} for {len(chunk)} prompts; give one each"
            )
        wrong = ~((values >= 0.0) & (values <= 1.0))
        if wrong.any():
            raise BadInput(f"detector {name} gave the score {values[wrong][0]}; P(malicious) must be in [0, 1]")
        parts.append(values)
        if progress is not None:
            progress(start + len(chunk), len(texts))
    return np.concatenate(parts) if parts else np.empty(0)


def _taken_for(scored: pl.DataFrame, threats: Threats | None, name: str) -> pl.Series:
    """The threat type of each flagged text; `unknown` where the detector names none or none of ours."""
    result = np.full(scored.height, None, dtype=object)
    at = np.flatnonzero(scored["flagged"].to_numpy())
    result[at] = "unknown"
    if threats is not None and len(at):
        found = list(threats(scored["text"].gather(at).to_list()))
        if len(found) != len(at):
            raise BadInput(f"detector {name} named {len(found)} threat types for {len(at)} prompts; give one each")
        result[at] = [threat if threat in THREAT_TYPES else "unknown" for threat in found]
    return pl.Series("taken_for", result.tolist(), dtype=pl.String)


def false_positives(evaluation: Evaluation, suite: str = BENIGN_TEST) -> pl.DataFrame:
    """The false positives of a suite as contract rows, prompts whole: what `write_corpus(format="harness")` takes.

    The threat type is what the row was taken for, the confidence its score, the layer L2.

    Raises:
        BadInput: the suite was not scored, or the evaluation was loaded without its prompts.
    """
    _known(evaluation, suite)
    flagged = (
        evaluation.select(suite).filter(_IS_BENIGN & pl.col("flagged")).sort("score", "id", descending=[True, False])
    )
    if flagged["text"].null_count():
        raise BadInput("this evaluation was saved without prompts; evaluate again, or save it with prompts")
    confidence, rule = pl.col("score").alias("confidence"), pl.col("taken_for").alias("rule_id")
    severity, layer = pl.lit("ML_DETECTED").alias("severity"), pl.lit("L2").alias("layer")
    threat = pl.concat_list(pl.struct(rule, severity, confidence, layer)).alias("threats")
    return make_corpus(
        flagged.select(
            *("text", "label", "category", "subcategory", pl.col("taken_for").alias("threat_type")),
            *(pl.col("source").fill_null("original"), "external_id"),
            *(confidence, layer, rule, severity, threat),
        )
    )


def harness_totals(evaluation: Evaluation, suite: str = BENIGN_TEST) -> dict[str, Any]:
    """The totals of a harness file: total, false_positives, true_negatives, and both counts by category."""
    _known(evaluation, suite)
    benign = evaluation.select(suite).filter(_IS_BENIGN)
    # A harness file calls rows without a category "None", as its writer does.
    counts = benign.group_by(pl.col("category").fill_null("None")).agg(pl.len(), pl.col("flagged").sum().alias("fp"))
    fps = int(benign["flagged"].sum())
    return {
        "total": benign.height,
        "false_positives": fps,
        "true_negatives": benign.height - fps,
        "categories": {
            category: {"total": total, "fp": fp} for category, total, fp in counts.sort("category").iter_rows()
        },
    }


def write_harness(evaluation: Evaluation, path: str | Path, *, suite: str = BENIGN_TEST, force: bool = False) -> Path:
    """Write the `benign_test_results.json` of a suite: totals, and every false positive with its prompt whole."""
    frame, totals = false_positives(evaluation, suite), harness_totals(evaluation, suite)
    return write_corpus(frame, path, format="harness", force=force, summary=totals)


def _known(evaluation: Evaluation, suite: str) -> None:
    if evaluation.suite(suite) is None:
        have = ", ".join(info.name for info in evaluation.suites)
        raise BadInput(f"suite {suite!r} was not evaluated; there are: {have}")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two detectors on the same rows.

    Attributes:
        before: the old detector's name.
        after: the new detector's name.
        suites: the suites that both were scored on.
        rows: the rows that both were scored on: the columns of `ROWS` with score, flagged and taken_for in two versions
            (`score_before`, `score_after`, ...).
        left_out: rows that only one of the two was scored on, by suite.
        slices: language and length of each prompt, worked out when first asked for.
    """

    before: str
    after: str
    suites: tuple[SuiteInfo, ...]
    rows: pl.DataFrame
    left_out: dict[str, int]
    slices: Slices

    def select(self, suite: str | None = None, *, by: By = "suite") -> pl.DataFrame:
        """The rows of one suite, or of all held-out suites with every prompt once.

        Args:
            suite: its name; None for all that is held out.
            by: language or length adds that column; every other one is there anyway.
        """
        return _select(self.rows, self.suites, suite, by, self.slices)

    def fixed_fps(self, suite: str | None = None) -> pl.DataFrame:
        """Benign rows that only the old detector flags."""
        return self._changed(suite, benign=True, flagged_now=False)

    def new_fps(self, suite: str | None = None) -> pl.DataFrame:
        """Benign rows that only the new detector flags."""
        return self._changed(suite, benign=True, flagged_now=True)

    def lost(self, suite: str | None = None) -> pl.DataFrame:
        """Attacks that only the old detector flags: every one of them is listed in a report."""
        return self._changed(suite, benign=False, flagged_now=False)

    def gained(self, suite: str | None = None) -> pl.DataFrame:
        """Attacks that only the new detector flags."""
        return self._changed(suite, benign=False, flagged_now=True)

    def _changed(self, suite: str | None, *, benign: bool, flagged_now: bool) -> pl.DataFrame:
        changed = pl.col("flagged_after") if flagged_now else pl.col("flagged_before")
        label = _IS_BENIGN if benign else ~_IS_BENIGN
        rows = self.select(suite).filter(label & changed & (pl.col("flagged_before") != pl.col("flagged_after")))
        drop = (pl.col("score_after") - pl.col("score_before")).abs()
        return rows.sort(drop, pl.col("id"), descending=[True, False])

    def net_loss(self, suite: str | None = None) -> Estimate:
        """What is lost of the old detector's true positives, less what is gained, as a share of them."""
        attacks = self.select(suite).filter(~_IS_BENIGN)
        caught = int(attacks["flagged_before"].sum())
        lost, gained = self.lost(suite).height, self.gained(suite).height
        return net_loss(caught, attacks.height - caught, lost, gained)

    def caught_before(self, suite: str | None = None) -> int:
        """How many attacks the old detector caught."""
        return int(self.select(suite).filter(~_IS_BENIGN)["flagged_before"].sum())

    def attacks(self, suite: str | None = None) -> int:
        """How many attacks both were scored on."""
        return self.select(suite).filter(~_IS_BENIGN).height

    def change(self, measure: Measure, suite: str | None = None) -> Estimate:
        """The change of a rate from old to new, with its interval for paired rows."""
        return paired_difference(*self._cells(measure, suite))

    def mcnemar(self, measure: Measure, suite: str | None = None) -> McNemar:
        """McNemar's (1947) exact test of the change, over one suite or all held-out rows.

        It stands beside `change`: the p-value says whether verdicts moved one way more often than chance would have
        it, the interval how far the rate moved.
        """
        _, dropped, added, _ = self._cells(measure, suite)
        return McNemar(dropped, added)

    def _cells(self, measure: Measure, suite: str | None) -> tuple[int, int, int, int]:
        """Rows flagged by both, by the old one alone, by the new one alone, by neither."""
        rows = self.select(suite).filter(_IS_BENIGN if measure == "fp_rate" else ~_IS_BENIGN)
        old, new = rows["flagged_before"].to_numpy(), rows["flagged_after"].to_numpy()
        return int((old & new).sum()), int((old & ~new).sum()), int((~old & new).sum()), int((~old & ~new).sum())

    def table(self, by: By = "suite", *, where: Where = "all") -> pl.DataFrame:
        """Before and after side by side, on the same rows.

        Returns:
            Columns suite, the group, measure, n, and k, value, low, high with the endings _before and _after, then
            `dropped` (flagged only before), `added` (flagged only after) and `p_value`, McNemar's exact test of these
            two; the worst groups after the change first. Each group is a look of its own: of twenty groups in which
            nothing changed, one has a p-value of 0.05.
        """
        rows = _where(self.rows, where)
        rows = rows.filter(~_IS_BENIGN) if by == "threat_type" else rows
        rows = self.slices.join(rows, by) if _is_lazy(by) else rows
        old, new = pl.col("flagged_before"), pl.col("flagged_after")
        counted = rows.with_columns(_measure(), *_named(by)).group_by([*_keys(by), "measure"], maintain_order=True)
        table = counted.agg(
            pl.len().cast(pl.Int64).alias("n"),
            old.sum().cast(pl.Int64).alias("k_before"),
            new.sum().cast(pl.Int64).alias("k_after"),
            (old & ~new).sum().cast(pl.Int64).alias("dropped"),
            (new & ~old).sum().cast(pl.Int64).alias("added"),
        )
        table = _with_interval(_with_interval(table, "_before"), "_after")
        p_values = mcnemar_arrays(table["dropped"].to_numpy(), table["added"].to_numpy())
        table = table.with_columns(pl.Series("p_value", p_values, dtype=pl.Float64))
        return _ordered(table, self.suites, by, "value_after")

    def at_equal_recall(self, recalls: Sequence[float] = (0.90, 0.95)) -> list[tuple[str, float, Rate, Rate]]:
        """FP rates where both detectors catch the same share of the attacks: (suite, recall, before, after).

        Two thresholds chosen on a small validation fold differ by chance; here neither plays a part. One entry for
        each held-out suite with benign rows and each recall; none where no attack was scored.
        """
        suites = [info.name for info in self.suites if info.held_out]
        attacks = self.select(MALICIOUS_HELD_OUT if MALICIOUS_HELD_OUT in suites else None).filter(~_IS_BENIGN)
        benign = {name: rows for name in suites if (rows := self.select(name).filter(_IS_BENIGN)).height}
        if attacks.is_empty():
            return []
        return [
            (
                name,
                recall,
                _fp_rate_at(rows, attacks, "score_before", recall),
                _fp_rate_at(rows, attacks, "score_after", recall),
            )
            for recall in recalls
            for name, rows in benign.items()
        ]

    def to_dict(self, *, prompts: bool = False) -> dict[str, Any]:
        """For JSON: tables, changes, and the ids of every row whose verdict changed; prompts only if asked."""
        columns = [
            "suite",
            "id",
            "category",
            "threat_type",
            "score_before",
            "score_after",
            *(["text"] if prompts else []),
        ]
        changed = {
            name: rows.select(columns).to_dicts()
            for name, rows in (("fixed_fps", self.fixed_fps()), ("new_fps", self.new_fps()))
        }
        attacks = {
            name: rows.select(columns).to_dicts() for name, rows in (("lost", self.lost()), ("gained", self.gained()))
        }
        return {
            "before": self.before,
            "after": self.after,
            "left_out": self.left_out,
            "tables": {by: self.table(by).to_dicts() for by in _BYS},
            "at_equal_recall": [
                {"suite": name, "recall": recall, "before": old.to_dict(), "after": new.to_dict()}
                for name, recall, old, new in self.at_equal_recall()
            ],
            "net_loss": {**self.net_loss().to_dict(), "caught_before": self.caught_before()},
            "changes": dict(self._by_measure(self.change)),
            "mcnemar": dict(self._by_measure(self.mcnemar)),
            **changed,
            **attacks,
        }

    def _by_measure(
        self, answer: Callable[[Measure, str], Estimate | McNemar]
    ) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
        """Each suite's answers for the measures that it has rows for."""
        for info in self.suites:
            rows = self.select(info.name)
            held = {"fp_rate": rows.filter(_IS_BENIGN).height, "recall": rows.filter(~_IS_BENIGN).height}
            yield info.name, {name: answer(name, info.name).to_dict() for name in MEASURES if held[name]}


def compare(before: Evaluation, after: Evaluation) -> Comparison:
    """Pair two evaluations row by row; rows that only one of them scored are left out and counted.

    Raises:
        BadInput: the two have no row in common.
    """
    scored = ["suite", "id", "score", "flagged", "taken_for"]
    paired = after.rows.join(
        before.rows.select(scored), on=["suite", "id"], how="inner", suffix="_before", maintain_order="left"
    )
    if paired.is_empty():
        raise BadInput(f"{before.name} and {after.name} were scored on no common row; evaluate both on the same suites")
    paired = paired.rename({name: f"{name}_after" for name in ("score", "flagged", "taken_for")})
    names = set(paired["suite"].unique().to_list())
    left_out = {
        name: rows
        for name in dict.fromkeys([*(info.name for info in after.suites), *(info.name for info in before.suites)])
        if (rows := after.select(name).height + before.select(name).height - 2 * _height(paired, name))
    }
    infos = tuple(info for info in after.suites if info.name in names)
    return Comparison(before.name, after.name, infos, paired, left_out, after.slices)


def _height(rows: pl.DataFrame, suite: str) -> int:
    return rows.filter(pl.col("suite") == suite).height
