"""What the report needs from the whole loop: composition, dedup and mining tables, sizes, latency.

Takes a `Retrained` and gives `ReportData`, written as one HTML file by crywolf.train.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crywolf.export.package import read_settings
from crywolf.train import Table, build_report, score_tables, table_from, write_report

from .loop import Retrained
from .session import Session


def retrain_report(
    session: Session,
    result: Retrained,
    path: Path,
    *,
    show_prompts: bool,
    title: str = "crywolf: before and after",
    extra_tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of a retraining, replacing an older one.

    Args:
        session: the run.
        result: what `run_retrain` gave.
        path: of the HTML file.
        show_prompts: show the text of the hardest false positives.
        title: of the page.
        extra_tables: further tables of rates, shown with the evaluation's.
        notes: further remarks for the reader.
    """
    texts = result.after.rows["text"].drop_nulls().unique(maintain_order=True).to_list()
    data = build_report(
        result.after,
        title=title,
        subtitle=f"{result.package} against {result.before_package}, seed {session.config.seed}",
        comparison=result.comparison,
        before=result.before,
        gates=result.gates,
        history=_history(result.package),
        show_prompts=show_prompts,
        composition=(table_from(result.growth.composition(), "What was grown"), _corpus_table(result)),
        dedup=_drop_tables(result),
        mining=() if result.mining is None else (table_from(result.mining.table, "Hard negatives, rule by rule"),),
        assembly=(table_from(result.assembly.table, "What the training table was put together from"),),
        sizes=(sizes_table(result.package),),
        latency=(latency_table(result.package, texts),),
        parameters=tuple(_flat(session.config.model_dump(mode="json"))),
        notes=(*result.growth.notes, *result.assembly.notes, *notes),
    )
    scores = score_tables(result.after, read_settings(result.package).thresholds)
    errors = error_tables(session, result) if show_prompts else ()
    data = replace(data, evaluation=(*extra_tables, *data.evaluation, *scores, *errors))
    return write_report(data, path, force=True)


def error_tables(session: Session, result: Retrained) -> tuple[Table, ...]:
    """Group what is still wrongly flagged and name what the groups share; the names are words of prompts."""
    from crywolf.train.measure.errors import analyse_errors

    found = analyse_errors(result.after, session.encode, session.rng("errors"))
    groups = found.table().select("name", "n", "share", "mean_score", "category", "nearest_attack", "cosine")
    patterns = found.pattern_table().select(
        "pattern", "kind", "k_inside", "n_inside", "value_inside", "value_outside", "low", "high"
    )
    said = "Rates of false positives with and without the pattern; low and high bound their difference."
    tables = (
        table_from(groups, "Remaining false positives in groups", "Named by the words that part them from the rest."),
        table_from(patterns, "Patterns among the remaining false positives", said),
    )
    return tuple(table for table in tables if table.rows)


def latency(package: Path, texts: Sequence[str], limit: int = 300) -> dict[str, float]:
    """Measure the runtime on up to `limit` prompts, one at a time on one thread; milliseconds."""
    from crywolf.export import Detector

    detector = Detector.load(package)
    some = list(texts[:: max(1, len(texts) // limit)])[:limit]
    detector.score(some[:5])
    seconds = []
    # One prompt a time, as the runtime works.
    for text in some:
        start = time.perf_counter()
        detector.score([text])
        seconds.append(time.perf_counter() - start)
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {"prompts": len(some), "p50_ms": float(p50), "p95_ms": float(p95)}


def latency_table(package: Path, texts: Sequence[str]) -> Table:
    """Return the runtime's latency as a table."""
    figures = latency(package, texts)
    row = (int(figures["prompts"]), round(figures["p50_ms"], 2), round(figures["p95_ms"], 2))
    note = "one prompt at a time, one thread, tokenizing included, on the machine that made this report"
    return Table("Latency of the packaged detector", ("prompts", "median, ms", "95th percentile, ms"), (row,), note)


def export_figures(package: Path) -> dict[str, Any]:
    """Return what the export of a package measured: sizes and parity."""
    figures: dict[str, Any] = json.loads((package.parent / "export.json").read_text(encoding="utf-8"))
    return figures


def sizes_table(package: Path) -> Table:
    """Return sizes and parity of a package as a table."""
    figures = export_figures(package)
    parity = figures["parity"] or {}
    rows = [
        ("ONNX float32, MB", round(figures["bytes_fp32"] / 1e6, 1)),
        ("ONNX INT8, MB", round(figures["bytes_int8"] / 1e6, 1)),
        ("times smaller", round(figures["ratio"], 2)),
        ("prompts compared with torch", parity.get("n")),
        ("decisions changed", parity.get("changed")),
        ("largest difference of a probability", _rounded(parity.get("max_difference"))),
        ("accuracy lost, points", _rounded(100 * parity["accuracy_lost"] if parity else None)),
    ]
    return Table(
        "Size and parity", ("figure", "value"), tuple(rows), "INT8 against torch, each prompt alone and unpadded"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _history(package: Path) -> list[dict[str, float | None]]:
    path = package.parent / "model" / "history.json"
    if not path.is_file():
        return []
    raw = json.loads(path.read_text(encoding="utf-8"))
    return list(raw["epochs"] if isinstance(raw, dict) else raw)


def _corpus_table(result: Retrained) -> Table:
    rows = (
        pl.concat(
            [frame.select(pl.lit(name).alias("fold"), "label", "source") for name, frame in result.split.frames.items()]
        )
        .group_by("fold", pl.col("label").cast(pl.String), "source")
        .len("rows")
        .sort("fold", "label", "source")
    )
    return table_from(rows, "The original data", "split by near-duplicate cluster before anything was grown")


def _drop_tables(result: Retrained) -> tuple[Table, ...]:
    drops = tuple(sorted(result.growth.drops.items(), key=lambda item: -item[1]))
    diversity = tuple((name, _plain(value)) for name, value in result.growth.diversity().as_dict().items())
    return (
        Table("Grown samples that were dropped", ("reason", "rows"), drops),
        Table("Diversity of what is left", ("measure", "value"), diversity),
    )


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, int | str) or value is None else str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            out += _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ()):
            out.append(
                (f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            )
    return out
