"""The report: one HTML file that tells what went in, what changed, what holds and what is still wrong.

Takes tables, figures and gates as plain data (`ReportData`; `build_report` makes the measured part from an evaluation)
and writes a page that needs no network, no script and no other file. Whatever comes from a prompt is escaped, and
characters that would not show are spelled out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.data import BadInput, atomic_path

from ..measure.evaluate import By, Comparison, Evaluation
from ..measure.gates import GateReport, GateResult, Remedy
from ..measure.intervals import Estimate, Rate, wilson_arrays
from ..measure.metrics import PREVALENCES
from ..measure.slices import LENGTHS, LONGEST
from ..measure.suites import BENIGN_TEST, MALICIOUS_HELD_OUT
from . import plots
from .texts import parts, plain

Cell = str | int | float | Rate | Estimate | None
MAX_SHOWN = 4_000
"""Characters of a prompt that the page shows; the JSON beside it has all of them."""
_MAX_LOST = 500
_PERCENT = re.compile(r"-?[0-9.]+%")
_HASH = re.compile(r"[0-9a-f]{40,128}")
FEW = 10
"""Languages of fewer rows stand in one line together: a guess from a text or two; the JSON has each."""


@dataclass(frozen=True)
class Table:
    """A table of the report; numbers are set right-aligned, a rate with its interval; `empty` stands for no rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    empty: str = "no rows"

    def __post_init__(self) -> None:
        uneven = [at for at, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if uneven:
            raise BadInput(f"table {self.caption!r}: row {uneven[0]} does not have {len(self.columns)} cells")


@dataclass(frozen=True)
class Headline:
    """One row of the before/after table."""

    slice: str
    measure: str
    n: int
    before: Rate | None
    after: Rate
    change: Estimate | None = None


@dataclass(frozen=True)
class Figure:
    """An inline drawing and the words under it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class HardPrompt:
    """A prompt that is still wrong; `text` is empty where prompts are not shown."""

    id: str
    category: str
    taken_for: str
    score: float
    text: str = ""
    before: float | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows. A section without content is left out, or says why where `absent` does.

    Attributes:
        title: of the page.
        subtitle: which model, from what, and when.
        headline: before and after by slice.
        gates: the answers; None when nothing was judged.
        composition: what the data is made of, by category and source.
        dedup: what deduplication and the guards dropped.
        mining: what hard-negative mining saw and took.
        assembly: what the training set was assembled from.
        figures: by name: category, threat, scores, threshold, reliability, training.
        evaluation: tables of rates.
        regression: lost true positives and what was gained.
        regression_text: the same in a sentence.
        robustness: rates on texts that were changed.
        robustness_text: what they come to.
        scoring: what other thresholds do, beside the figures.
        calibration: whether scores mean what they say, beside the figure.
        hardest: the worst remaining false positives.
        remaining: what the remaining false positives have in common.
        show_prompts: show the texts of `hardest`; off, the page has ids and categories alone.
        sizes: of the model files.
        latency: of the runtime.
        reproduce: commands that make this again, one a line.
        provenance: hashes of what went in and came out, versions.
        configuration: the configuration of the run, as its file would say it.
        parameters: further parameters of the run.
        notes: anything that a reader must know.
        absent: by section, why it has no content.
    """

    title: str
    subtitle: str = ""
    headline: tuple[Headline, ...] = ()
    gates: GateReport | None = None
    composition: tuple[Table, ...] = ()
    dedup: tuple[Table, ...] = ()
    mining: tuple[Table, ...] = ()
    assembly: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    evaluation: tuple[Table, ...] = ()
    regression: tuple[Table, ...] = ()
    regression_text: str = ""
    robustness: tuple[Table, ...] = ()
    robustness_text: str = ""
    scoring: tuple[Table, ...] = ()
    calibration: tuple[Table, ...] = ()
    remaining: tuple[Table, ...] = ()
    hardest: tuple[HardPrompt, ...] = ()
    show_prompts: bool = False
    sizes: tuple[Table, ...] = ()
    latency: tuple[Table, ...] = ()
    reproduce: tuple[str, ...] = ()
    provenance: tuple[Table, ...] = ()
    configuration: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)


def table_from(frame: pl.DataFrame, caption: str, note: str = "") -> Table:
    """A table of any polars frame, its columns in order."""
    return Table(caption, tuple(frame.columns), tuple(frame.iter_rows()), note)


def build_report(
    evaluation: Evaluation,
    *,
    title: str,
    subtitle: str = "",
    comparison: Comparison | None = None,
    before: Evaluation | None = None,
    gates: GateReport | None = None,
    history: Sequence[Mapping[str, float | None]] = (),
    best_epoch: int | None = None,
    show_prompts: bool = False,
    hardest: int = 25,
    **sections: Any,
) -> ReportData:
    """The measured part of a report, drawn and tabulated, together with sections that other rooms made.

    Args:
        evaluation: the new model's.
        title: of the page.
        subtitle: which model and when.
        comparison: old against new; without it the page shows one column.
        before: the old model's evaluation, for its score distribution and reliability.
        gates: the answers.
        history: training history, a mapping for each epoch.
        best_epoch: the epoch whose weights were kept.
        show_prompts: show the texts of the hardest false positives.
        hardest: how many of them to list.
        sections: further fields of `ReportData`: composition, dedup, mining, assembly, sizes, latency, robustness,
            remaining, reproduce, parameters, notes, absent and so on.
    """
    data = ReportData(
        title=title,
        subtitle=subtitle,
        headline=_headline(evaluation, comparison),
        gates=gates,
        figures=_figures(evaluation, comparison, before, history, best_epoch),
        evaluation=_rate_tables(evaluation, comparison),
        regression=_regression(comparison, evaluation),
        regression_text=_regression_text(comparison),
        hardest=_hardest(evaluation, comparison, hardest, show_prompts=show_prompts),
        show_prompts=show_prompts,
    )
    said = tuple(f"{info.name}, {info.rows:,} rows: {info.note}" for info in evaluation.suites if info.note)
    absent = {**_absent(evaluation, comparison, history), **sections.get("absent", {})}
    return replace(data, **{**sections, "notes": (*said, *sections.get("notes", ())), "absent": absent})


def _absent(
    evaluation: Evaluation, comparison: Comparison | None, history: Sequence[Mapping[str, float | None]]
) -> dict[str, str]:
    """Why a measured section would be empty."""
    absent: dict[str, str] = {}
    _, malicious = evaluation.arrays()
    if not len(malicious):
        absent |= dict.fromkeys(("false-positives", "scores", "calibration"), "No suite with held-out rows was scored.")
    elif malicious.all() or not malicious.any():
        there, lacking = ("attacks", "benign rows") if malicious.all() else ("benign rows", "attacks")
        absent["calibration"] = f"The held-out suites hold {there} alone: calibration needs {lacking} too."
    if comparison is None:
        absent["regression"] = "There is no detector before that could be compared with."
    if not history:
        absent["training"] = "No training history was given."
    return absent


_MEASURES = {"fp_rate": "FP rate", "recall": "recall"}


def _headline(evaluation: Evaluation, comparison: Comparison | None) -> tuple[Headline, ...]:
    """A row for each suite and label, over all rows and, where L1 results are given, over the rows that L2 saw."""
    rows: list[Headline] = []
    for where, said in (("all", ""), ("l2", ", rows that L2 saw")):
        if where == "l2" and not evaluation.has_l1:
            continue
        table = (comparison or evaluation).table("suite", where=where)  # type: ignore[arg-type]  # the two literals
        for row in table.iter_rows(named=True):
            info = evaluation.suite(row["suite"])
            held = "" if info is None or info.held_out else " (not held out)"
            now = Rate(row["k_after"] if comparison else row["k"], row["n"])
            old = Rate(row["k_before"], row["n"]) if comparison else None
            change = None if comparison is None or where == "l2" else comparison.change(row["measure"], row["suite"])
            rows.append(Headline(f"{row['suite']}{held}{said}", _MEASURES[row["measure"]], row["n"], old, now, change))
    return tuple(rows)


def _group_table(evaluation: Evaluation, comparison: Comparison | None, by: By, measure: str) -> pl.DataFrame:
    """Counts by group over all held-out suites, each prompt once, in the columns that the dot plot takes."""
    rows = (comparison or evaluation).select(by=by)
    benign = pl.col("label").cast(pl.String) == "BENIGN"
    rows = rows.filter(benign if measure == "fp_rate" else ~benign)
    flags = {"_before": "flagged_before", "_after": "flagged_after"} if comparison else {"_after": "flagged"}
    table = rows.group_by(pl.col(by).fill_null("(none)").alias("group")).agg(
        pl.len().alias("n"),
        *(pl.col(column).sum().cast(pl.Int64).alias(f"k{ending}") for ending, column in flags.items()),
    )
    for ending in flags:
        low, high = wilson_arrays(table[f"k{ending}"].to_numpy(), table["n"].to_numpy())
        value = (pl.col(f"k{ending}") / pl.col("n")).alias(f"value{ending}")
        table = table.with_columns(value, pl.Series(f"low{ending}", low), pl.Series(f"high{ending}", high))
    return table.sort("value_after", "group", descending=[measure == "fp_rate", False])


def _figures(
    evaluation: Evaluation,
    comparison: Comparison | None,
    before: Evaluation | None,
    history: Sequence[Mapping[str, float | None]],
    best_epoch: int | None,
) -> dict[str, Figure]:
    """The drawings for which there are rows."""
    figures: dict[str, Figure] = {}
    groups = _group_table(evaluation, comparison, "category", "fp_rate")
    if groups.height:
        said = "False-positive rate by category over all held-out benign rows, each prompt once, with 95% intervals."
        if groups.height > plots.MAX_GROUPS:
            said += f" The {plots.MAX_GROUPS} highest of {groups.height}; the table has all."
        figures["category"] = Figure(plots.fp_by_category(groups), said)
    scores, malicious = evaluation.arrays()
    if len(scores):
        panels = {evaluation.name: ((scores, malicious), evaluation.threshold)}
        if before is not None:
            old = (before.arrays(), before.threshold)
            panels = {_when("before", before): old, _when("after", evaluation): panels[evaluation.name]}
        figures["scores"] = Figure(
            plots.score_distributions(panels), "Scores on held-out rows; the dotted line is the threshold in use."
        )
        figures["threshold"] = Figure(
            plots.threshold_curve(evaluation.curve(), evaluation.threshold),
            "What another threshold would give, on held-out rows. Choosing one by this curve makes these rows a "
            "validation set.",
        )
    if malicious.any() and not malicious.all():
        tables = {evaluation.name: evaluation.reliability()}
        if before is not None:
            tables = {
                _when("before", before): before.reliability(),
                _when("after", evaluation): evaluation.reliability(),
            }
        share = 100 * float(malicious.mean())
        figures["reliability"] = Figure(
            plots.reliability_diagram(tables),
            f"Score against outcome in bins of a tenth. It holds at this sample's own mix, {share:.1f}% attacks.",
        )
    if history:
        figures["training"] = Figure(plots.training_curves(history, best=best_epoch), "What training saw, by epoch.")
    return figures


def _when(when: str, evaluation: Evaluation) -> str:
    """What a drawing calls a detector; one that is called `before` need not be told twice."""
    return when if evaluation.name == when else f"{when}: {evaluation.name}"


def _rate_tables(evaluation: Evaluation, comparison: Comparison | None) -> tuple[Table, ...]:
    """Rates by category, subcategory, threat type and source, and precision by prevalence."""
    asked: tuple[tuple[By, str, str], ...] = (
        ("category", "fp_rate", "False positives by category"),
        ("source", "fp_rate", "False positives by source"),
        ("threat_type", "recall", "Recall by threat type"),
        ("source", "recall", "Recall by source of the attacks"),
        ("language", "fp_rate", "False positives by language"),
        ("language", "recall", "Recall by language"),
        ("length", "fp_rate", "False positives by length in characters"),
        ("length", "recall", "Recall by length in characters"),
    )
    tables = [
        _rate_table(_group_table(evaluation, comparison, by, measure), by.replace("_", " "), said)
        for by, measure, said in asked
    ]
    equal = () if comparison is None else (_equal_recall_table(comparison),)
    return (*(table for table in (*equal, *tables) if table.rows), _precision_table(evaluation))


def _equal_recall_table(comparison: Comparison) -> Table:
    """FP rates where both detectors catch the same share of the attacks."""
    rows = tuple((name, f"{100 * recall:g}%", old, new) for name, recall, old, new in comparison.at_equal_recall())
    note = "Each detector at the threshold that catches this share of these very attacks: it compares, no more."
    return Table("FP rate at equal recall", ("slice", "recall", "before", "after"), rows, note)


def _rate_table(groups: pl.DataFrame, by: str, caption: str) -> Table:
    """Before and after of each group as rates."""
    endings = [ending for ending in ("_before", "_after") if f"k{ending}" in groups.columns]
    names = {"_before": "before", "_after": "after"} if len(endings) == 2 else {"_after": "rate"}
    counted = [
        (str(row["group"]), row["n"], *(row[f"k{ending}"] for ending in endings))
        for row in groups.iter_rows(named=True)
    ]
    if by == "language":
        counted = _few_together(counted)
    if by == "length":
        counted.sort(key=lambda row: _BINS.index(row[0]) if row[0] in _BINS else len(_BINS))
    rows = tuple((name, n, *(Rate(k, n) for k in flagged)) for name, n, *flagged in counted)
    return Table(caption, (by, "n", *(names[ending] for ending in endings)), rows)


_BINS = [*(name for _, name in LENGTHS), LONGEST]


def _few_together(counted: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Groups of fewer than `FEW` rows in one line, at the end."""
    few = [row for row in counted if row[1] < FEW]
    if len(few) < 2:
        return counted
    sums = [sum(column) for column in list(zip(*few, strict=True))[1:]]
    return [*(row for row in counted if row[1] >= FEW), (few_name(len(few)), *sums)]


def few_name(groups: int) -> str:
    """What the line of the small groups is called."""
    return f"{groups:,} others, fewer than {FEW} rows each"


def _precision_table(evaluation: Evaluation) -> Table:
    """Precision where attacks are half, a tenth, a hundredth and a thousandth of the traffic."""
    benign = BENIGN_TEST if evaluation.suite(BENIGN_TEST) else "all held-out benign rows"
    attacks = MALICIOUS_HELD_OUT if evaluation.suite(MALICIOUS_HELD_OUT) else "all held-out attacks"
    rows = tuple((f"{100 * share:g}%", evaluation.precision_at(share).text) for share in PREVALENCES)
    note = f"From the FP rate on {benign} and the recall on {attacks}, both intervals carried through."
    return Table(
        "Precision by the share of attacks in the traffic", ("attacks in the traffic", "precision"), rows, note
    )


def _regression_text(comparison: Comparison | None) -> str:
    """The net loss of true positives in a sentence."""
    if comparison is None:
        return ""
    caught = comparison.caught_before()
    if not caught:
        return "The old model caught no attack in these suites, so there is nothing that could be lost."
    lost, gained = comparison.lost().height, comparison.gained().height
    return (
        f"Of {caught:,} attacks that the old model caught, {lost:,} are lost; {gained:,} that it missed are caught "
        f"now. Net loss: {comparison.net_loss().points}. McNemar's exact test: FP rate "
        f"{comparison.mcnemar('fp_rate').text}; recall {comparison.mcnemar('recall').text}."
    )


def _regression(comparison: Comparison | None, evaluation: Evaluation) -> tuple[Table, ...]:
    """Every lost true positive by id; up to a limit that keeps the page readable, and then the rest is counted."""
    if comparison is None:
        return ()
    lost = comparison.lost()
    rows = tuple(
        (
            row["id"],
            row["threat_type"] or "(none)",
            row["source"] or "(none)",
            round(row["score_before"], 4),
            round(row["score_after"], 4),
        )
        for row in lost.head(_MAX_LOST).iter_rows(named=True)
    )
    rest = f"{lost.height - _MAX_LOST:,} more are in the JSON." if lost.height > _MAX_LOST else ""
    columns = ("id", "threat type", "source", "score before", "score after")
    note = " ".join(part for part in (rest, f"The new threshold is {evaluation.threshold:.3g}.") if part)
    return (Table(f"Lost true positives: {lost.height:,}", columns, rows, note),) if rows else ()


def _hardest(
    evaluation: Evaluation, comparison: Comparison | None, n: int, *, show_prompts: bool
) -> tuple[HardPrompt, ...]:
    """The false positives with the highest scores, with the old model's score where it is known."""
    worst = evaluation.hardest(n)
    old = {} if comparison is None else dict(comparison.rows.select("id", "score_before").iter_rows())
    return tuple(
        HardPrompt(
            row["id"],
            row["category"] or "(none)",
            row["taken_for"] or "unknown",
            row["score"],
            (row["text"] or "") if show_prompts else "",
            old.get(row["id"]),
        )
        for row in worst.iter_rows(named=True)
    )


def write_report(data: ReportData, path: str | Path, *, force: bool = False) -> Path:
    """Write the page, whole or not at all.

    Args:
        data: what to show.
        path: of the HTML file.
        force: overwrite it if it is there.
    """
    page = render_report(data)
    with atomic_path(path, force=force) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
    return Path(path)


def render_report(data: ReportData) -> str:
    """The page as a string."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "cell": _cell,
        "numeric": _is_numeric,
        "observed": _observed,
        "plain": plain,
        "visible": visible,
    }
    template = environment.from_string(_resource("report.html.j2"))
    shown = data if data.show_prompts else replace(data, hardest=tuple(replace(hard, text="") for hard in data.hardest))
    flags = () if data.gates is None else _flags_by_remedy(data.gates)
    return template.render(data=shown, drawing=_drawing, flags=flags)


def _flags_by_remedy(gates: GateReport) -> tuple[tuple[tuple[Remedy, ...], tuple[GateResult, ...]], ...]:
    """The red flags that are up, those with the same remedies together."""
    remedies = dict.fromkeys(row.remedies for row in gates.red_flags)
    return tuple((found, tuple(row for row in gates.red_flags if row.remedies == found)) for found in remedies)


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _drawing(figure: Figure) -> Any:
    """The SVG as markup. Only `plots` makes these, and it escapes every name that it draws."""
    from markupsafe import Markup

    if not figure.svg.startswith("<svg") or "<script" in figure.svg.lower():
        raise BadInput("a figure of the report must be a drawing of crywolf.train.report.plots")
    return Markup(figure.svg)  # noqa: S704 - checked above, and escaped where it was drawn


def visible(text: str) -> Any:
    """A prompt as markup: escaped, with hidden characters as marked codes, cut at a length and saying so."""
    from markupsafe import Markup

    shown = Markup("").join(
        Markup('<span class="hidden-char" title="{}">{}</span>').format(part.name, part.text)
        if part.hidden
        else part.text
        for part in parts(text[:MAX_SHOWN])
    )
    rest = len(text) - MAX_SHOWN
    if rest > 0:
        shown += Markup('<span class="more"> and {} more characters</span>').format(f"{rest:,}")
    return shown


def _is_numeric(cell: Cell) -> bool:
    if isinstance(cell, str):
        return _PERCENT.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: Cell) -> Any:
    """One cell as text: counts with commas, numbers with four digits, a rate with its counts and interval beneath."""
    from markupsafe import Markup

    if isinstance(cell, Rate | Estimate):
        return _interval_cell(cell.text if isinstance(cell, Rate) else cell.points)
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    if _HASH.fullmatch(cell):
        return Markup('<code class="hash">{}</code>').format(cell)
    return plain(cell)


def _observed(text: str) -> Any:
    """What a gate observed: the value, then its interval, which no line break may cut, then what it rests on."""
    from markupsafe import Markup

    found = re.fullmatch(r"([^(]*) \(([^)]*)\)[;,]?(.*)", text, re.DOTALL)
    if found is None:
        return text
    value, interval, rest = found.groups()
    shown = Markup('<span class="rate">{}</span> <span class="ci">{}</span>').format(value, interval)
    return shown + Markup('<span class="more">{}</span>').format(rest.strip()) if rest.strip() else shown


def _interval_cell(text: str) -> Any:
    """A value with its counts and interval set smaller beneath it."""
    from markupsafe import Markup

    value, _, rest = text.partition(" (")
    if not rest:
        return text
    return Markup('<span class="rate">{}</span> <span class="ci">{}</span>').format(value, rest.rstrip(")"))
