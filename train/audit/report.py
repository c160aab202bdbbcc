"""The audit's page: one HTML file without script, network or other files, in the look of the training report.

Takes an `Audit`, gives the file. Texts of prompts are on it only where that was asked for; everything is escaped, and
characters that would not show are spelled out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import polars as pl

from crywolf.data import atomic_path

from ..report.report import Figure, HardPrompt, Table, _cell, _drawing, _is_numeric, _resource, visible
from ..report.texts import plain
from .audit import Audit
from .duplicates import NEAR_TEXT, SAME_TEXT
from .plots import auc_by_trait, cell_shares
from .shortcuts import Shortcut

MAX_ROWS = 40
"""Rows that a table of the page shows; audit.json has all."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    text: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def write_audit_report(
    result: Audit,
    path: str | Path,
    *,
    title: str = "crywolf: audit",
    parameters: Sequence[tuple[str, str]] = (),
    show_text: bool = False,
    force: bool = False,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        result: what to show.
        path: of the HTML file.
        title: of the page.
        parameters: of the run.
        show_text: show the texts of the rows whose label is doubted.
        force: overwrite it if it is there.
    """
    page = render_audit(result, title=title, parameters=parameters, show_text=show_text)
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def render_audit(
    result: Audit, *, title: str, parameters: Sequence[tuple[str, str]] = (), show_text: bool = False
) -> str:
    """The page as a string."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": _cell, "numeric": _is_numeric, "visible": visible, "plain": plain, "coded": _coded}
    template = environment.from_string(files(__package__).joinpath("audit.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        style=_style(),
        result=result,
        findings=result.findings,
        sections=[section for section in _sections(result) if section.figures or section.tables or section.text],
        doubted=_doubted(result, show_text=show_text),
        show_text=show_text,
        parameters=parameters,
        drawing=_drawing,
    )


def _coded(text: str) -> str:
    """A sentence as markup: escaped, what stands between backticks set as code."""
    from markupsafe import Markup

    parts = (
        Markup("<code>{}</code>").format(part) if at % 2 else Markup("{}").format(part)
        for at, part in enumerate(plain(text).split("`"))
    )
    return Markup("").join(parts)


def _style() -> str:
    """The style sheet of the training report, so that both pages look alike."""
    from markupsafe import Markup

    found = re.search(r"<style>(.*?)</style>", _resource("report.html.j2"), flags=re.DOTALL)
    return Markup(found[1] if found else "")  # noqa: S704 - the package's own file


def _sections(result: Audit) -> list[Section]:
    return [
        _shortcut_section(result),
        Section(
            "lonely",
            "Without a counterpart",
            "Values and bands that rows of one label have and no row of the other has, more of them than chance allows."
            if result.lonely_cells().height
            else "",
            tables=_maybe(_lonely_table(result)),
        ),
        Section("balance", "Balance", tables=_balance_tables(result)),
        Section("duplicates", "Duplicates", tables=_duplicate_tables(result)),
        Section("leakage", "Leakage", _leak_text(result), tables=_maybe(_leak_table(result))),
        Section("label-errors", "Label errors", _error_text(result), tables=_maybe(_error_table(result))),
    ]


def _maybe(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()


def shortcut_table(shortcuts: Sequence[Shortcut]) -> Table:
    """One row for each trait."""
    rows = tuple(
        (
            shortcut.trait.name,
            "in the text" if shortcut.trait.kind == "text" else "in the table",
            shortcut.auc.text,
            _percent(shortcut.one_sided("BENIGN")) if shortcut.trait.cells else None,
            _percent(shortcut.one_sided("MALICIOUS")) if shortcut.trait.cells else None,
            shortcut.verdict,
        )
        for shortcut in shortcuts
    )
    columns = ("trait", "where", "AUC (95% interval)", "benign in one-sided cells", "attacks in one-sided cells", "")
    return Table("Each trait alone", columns, rows)


def cell_table(shortcut: Shortcut, limit: int = MAX_ROWS) -> Table:
    """The cells of a trait that tell the label, or its commonest where none does."""
    telling = shortcut.cells.filter(pl.col("side").is_not_null())
    cells = telling if telling.height else shortcut.cells
    rows = tuple(
        (
            row["cell"],
            row["benign"],
            row["malicious"],
            _percent(row["benign_share"]),
            _percent(row["malicious_share"]),
            row["side"] or "",
        )
        for row in cells.head(limit).iter_rows(named=True)
    )
    columns = ("cell", "benign", "malicious", "of the benign", "of the attacks", "tells")
    note = f"{cells.height - limit:,} more in audit.json." if cells.height > limit else ""
    return Table(f"{shortcut.trait.name}: cells", columns, rows, note)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _shortcut_section(result: Audit) -> Section:
    if not result.shortcuts:
        return Section("shortcuts", "Shortcuts", "All rows have one label: there is nothing to tell apart.")
    config = result.config
    text = (
        "A trait is measured alone: an estimator sees nothing but it, on four fifths of the near-duplicate clusters, "
        f"and ranks the rest. It is flagged when the lower end of its AUC's interval reaches {config.flag_auc:g}, or "
        f"when its one-sided cells hold {100 * config.flag_share:g}% of a label's rows. A cell is one-sided when it "
        f"holds surely {config.lift:g} times the share of one label's rows that it holds of the other's."
    )
    measured = [shortcut for shortcut in result.shortcuts if not math.isnan(shortcut.auc.value)]
    told = [s for s in result.shortcuts if s.flagged and s.trait.cells]
    figures = (
        Figure(
            auc_by_trait(measured, config.flag_auc),
            f"Filled marks are flagged; the dotted line is {config.flag_auc:g}. Diamonds stand for what only the table "
            "knows and no model can read.",
        ),
        *(
            Figure(cell_shares(shortcut, key=f"cells-{at}"), shortcut.advice)
            for at, shortcut in enumerate(told)
            if shortcut.trait.name in ("characters", "language")
        ),
    )
    return Section(
        "shortcuts", "Shortcuts", text, figures, (shortcut_table(result.shortcuts), *(cell_table(s) for s in told))
    )


def _lonely_table(result: Audit) -> Table:
    cells = result.lonely_cells().sort("trait", "share", descending=[False, True], maintain_order=True)
    rows = tuple(
        (row["trait"], row["cell"], row["label"], row["rows"], _percent(row["share"]))
        for row in cells.head(2 * MAX_ROWS).iter_rows(named=True)
    )
    note = f"{cells.height - 2 * MAX_ROWS:,} more in audit.json." if cells.height > 2 * MAX_ROWS else ""
    return Table("Cells of one label only", ("trait", "cell", "label", "rows", "of the label"), rows, note)


def _balance_tables(result: Audit) -> tuple[Table, ...]:
    labels = tuple((label, rows, _percent(rows / max(result.rows, 1))) for label, rows in result.labels.items())
    grouped = []
    for by in ("source", "category", "language"):
        table = _groups(result, by)
        note = f"{table.height - MAX_ROWS:,} more in audit.json." if table.height > MAX_ROWS else ""
        rows = tuple(table.head(MAX_ROWS).iter_rows())
        grouped.append(Table(f"Rows by {by}", (by, "benign", "malicious"), rows, note))
    return (Table("Rows by label", ("label", "rows", "share"), labels), *grouped)


def _groups(result: Audit, by: str) -> pl.DataFrame:
    return (
        result.composition.group_by(pl.col(by).fill_null("(none)"))
        .agg(pl.col("benign").sum(), pl.col("malicious").sum())
        .sort(pl.col("benign") + pl.col("malicious"), by, descending=[True, False])
    )


def _duplicate_tables(result: Audit) -> tuple[Table, ...]:
    duplicates = result.duplicates
    rows = tuple(duplicates.by_label.select("label", "rows", "exact", "near").iter_rows())
    columns = ("label", "rows", "the same text again", "near-duplicates, those included")
    within = Table("Within each label", columns, rows, f"The largest cluster has {duplicates.largest:,} rows.")
    between = Table(
        "Between the labels",
        ("what has both labels", "count"),
        tuple((kind, duplicates.conflicting(kind)) for kind in (SAME_TEXT, NEAR_TEXT)),
    )
    listed = duplicates.conflicts.head(MAX_ROWS).select("kind", "cluster", "id", "label", "source")
    shown = Table("Rows of clusters with both labels", tuple(listed.columns), tuple(listed.iter_rows()))
    return (within, between, *_maybe(shown))


def _leak_text(result: Audit) -> str:
    if not result.holdouts:
        return "No holdout was given."
    said = "; ".join(f"{name} ({rows:,} rows)" for name, rows in result.holdouts.items())
    by = f", and by meaning (cosine {result.config.cosine:g}) of {result.embedded:,} rows" if result.embedded else ""
    none = "" if result.leaks.height else " Nothing leaks."
    return f"Held against {said}: by characters (Jaccard {result.config.threshold:g}) of all rows{by}.{none}"


def _leak_table(result: Audit) -> Table:
    rows = tuple(result.leak_table().iter_rows())
    return Table("Rows that stand in a holdout", ("holdout", "kind", "rows", "holdout rows hit"), rows)


def _error_text(result: Audit) -> str:
    if result.errors is None:
        return "Not looked for: nothing was embedded, or a label has too few rows."
    counts = ", ".join(f"{rows:,} {reason.replace('_', ' ')}" for reason, rows in result.errors.counts.items())
    return (
        f"{result.errors.judged:,} rows were judged by their {result.config.neighbours} nearest rows and by confident "
        f"learning over a linear probe's out-of-fold probabilities. Accused: {counts}. An accused row is not a wrong "
        "one: it may be the hard, right example that the detector needs. Somebody has to look."
    )


def _error_table(result: Audit) -> Table:
    rows = () if result.errors is None else tuple(result.errors.table().head(MAX_ROWS).iter_rows())
    return Table("Accused rows", ("label", "source", "accused by", "rows"), rows)


def _doubted(result: Audit, *, show_text: bool) -> tuple[HardPrompt, ...]:
    if result.errors is None:
        return ()
    return tuple(
        HardPrompt(
            row["id"],
            row["source"],
            str(row["label"]),
            row["score"],
            row["text"] if show_text else "",
        )
        for row in result.errors.frame.head(MAX_ROWS).iter_rows(named=True)
    )
