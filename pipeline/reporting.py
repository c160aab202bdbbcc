"""What the report needs from the whole loop: composition, dedup and mining tables, sizes, latency.

Takes a `Retrained` and gives `ReportData`, written as one HTML file by crywolf.train.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import yaml

from crywolf.data import BadInput
from crywolf.data.manifest import file_hash, versions
from crywolf.export.package import MANIFEST, PackageInfo, read_settings
from crywolf.export.voting import model_hashes
from crywolf.train import Table, build_report, score_tables, table_from, write_report
from crywolf.train.report.robust import robustness_tables, robustness_text

from .loop import BASE, EVALUATION, Retrained
from .origin import Origin, without_secrets
from .session import Session
from .stages import TRAINING

if TYPE_CHECKING:
    from crywolf.train.measure.errors import Cluster


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
    info = read_settings(result.package)
    scores = score_tables(result.after, info.thresholds)
    found = result.robustness
    said = {"robustness": found} if isinstance(found, str) else {}
    data = build_report(
        result.after,
        title=title,
        subtitle=_subtitle(session, result, info),
        comparison=result.comparison,
        before=result.before,
        gates=result.gates,
        history=_history(result.package),
        show_prompts=show_prompts,
        scoring=scores[:1],
        calibration=scores[1:],
        robustness=() if isinstance(found, str) else robustness_tables(found),
        robustness_text="" if isinstance(found, str) else robustness_text(found),
        remaining=error_tables(session, result) if show_prompts else (),
        composition=(files_table(session), _corpus_table(result), _grown_table(result)),
        dedup=_drop_tables(result),
        mining=() if result.mining is None else (_mining_table(result.mining.table),),
        assembly=(_assembly_table(result.assembly.table),),
        sizes=(sizes_table(result.package),),
        latency=(latency_table(result.package, texts),),
        reproduce=_commands(session),
        provenance=(_made_table(result), _versions_table()),
        configuration=_configuration(session),
        absent={
            **said,
            "mining": "Off: mining.enabled is false; the false positives themselves are the only hard negatives.",
            "training": "The package's folder holds no history of its training.",
        },
        notes=(*result.growth.notes, *result.assembly.notes, *notes),
    )
    data = replace(data, evaluation=(*extra_tables, *data.evaluation))
    return write_report(data, path, force=True)


def error_tables(session: Session, result: Retrained) -> tuple[Table, ...]:
    """Group what is still wrongly flagged and name what the groups share; the names are words of prompts."""
    from crywolf.train.measure.errors import analyse_errors

    found = analyse_errors(result.after, session.encode, session.rng("errors"))
    groups = tuple((one.name, one.of, round(one.mean_score, 3), _kind(one), _near(one)) for one in found.clusters)
    patterns = tuple((one.name, one.inside, one.outside, one.difference) for one in found.patterns)
    named = "Named by the words that part them from the rest."
    rest = f" The {_MOST_GROUPS} largest of {len(groups):,}." if len(groups) > _MOST_GROUPS else ""
    columns = ("what they share", "of all that remain", "mean score", "category", "nearest attack")
    return (
        Table("In groups", columns, groups[:_MOST_GROUPS], named + rest, "no three of them are alike"),
        Table(
            "What goes with a false positive",
            ("pattern", "FP rate with it", "FP rate without", "difference"),
            patterns[:_MOST_GROUPS],
            "" if len(patterns) <= _MOST_GROUPS else f"The first {_MOST_GROUPS} of {len(patterns):,}.",
            "no word, opening, shape or language goes with them beyond chance",
        ),
    )


_MOST_GROUPS = 15


def _kind(cluster: "Cluster") -> str:
    return next(iter(cluster.categories), "(none)")


def _near(cluster: "Cluster") -> str:
    near = cluster.nearest
    return "–" if near is None else f"{(near.threat_type or 'attack').replace('_', ' ')}, cosine {near.cosine:.2f}"


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
    note = "One prompt at a time, one thread, tokenizing included, on the machine that made this report."
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
        "Size and parity", ("figure", "value"), tuple(rows), "INT8 against torch, each prompt alone and unpadded."
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _history(package: Path) -> list[dict[str, float | None]]:
    path = package.parent / "model" / "history.json"
    if not path.is_file():
        return []
    raw = json.loads(path.read_text(encoding="utf-8"))
    return list(raw["epochs"] if isinstance(raw, dict) else raw)


def _subtitle(session: Session, result: Retrained, info: PackageInfo) -> str:
    """Which detector, against which, and of when."""
    made = str(info.metadata.get("created", ""))[:10]
    before = _shown(result.before_package, session)
    when = f", made {made}" if made else ""
    return f"{info.version} ({_shown(result.package, session)}){when}, against {before}; seed {session.config.seed}"


def _shown(place: str | Path, session: Session) -> str:
    """A path as seen from the run's folder or the configuration's, so that no page tells whose machine it was."""
    out = session.config.out
    path = Path(place)
    if path.is_relative_to(out):
        return f"{out.name}/{path.relative_to(out)}"
    return without_secrets(str(place)) if session.origin is None else str(session.origin.shown(str(place)))


def files_table(session: Session) -> Table:
    """Return every file that the run reads, with its size and hash."""
    config = session.config
    named: list[tuple[str, Sequence[Path | None]]] = [
        ("data.benign", config.data.benign),
        ("data.malicious", config.data.malicious),
        ("data.fps", [config.data.fps]),
        ("data.prompts", [config.data.prompts]),
        ("data.holdouts", config.data.holdouts),
        ("data.calibration", config.data.calibration),
        ("evaluate.benign_test", [config.evaluate.benign_test]),
        ("evaluate.suites", config.evaluate.suites),
    ]
    rows = tuple((key, path.name, *_size_and_hash(path)) for key, paths in named for path in paths if path is not None)
    note = "As the files lie on disk when this page is made; the rows that were read from them are below."
    return Table("Files that went in", ("key", "file", "bytes", "SHA-256"), rows, note)


def _size_and_hash(path: Path) -> tuple[int | None, str]:
    try:
        return path.stat().st_size, file_hash(path)
    except (OSError, BadInput):
        return None, "not there any more"


def _grown_table(result: Retrained) -> Table:
    """What was grown, by label and category; the finer kinds stand in the growth's manifest."""
    frame = result.growth.frame
    counts = frame.group_by(pl.col("label").cast(pl.String), pl.col("category")).len("rows")
    ordered = counts.sort("rows", "label", "category", descending=[True, False, False], nulls_last=True)
    rows = tuple(
        (label, category or "(none)", rows, f"{100 * rows / frame.height:.1f}%")
        for label, category, rows in ordered.iter_rows()
    )
    note = "MALICIOUS rows are grown of attacks, to draw the border by intent."
    grown = note if any(row[0] == "MALICIOUS" for row in rows) else ""
    return Table("What was grown", ("label", "category", "rows", "share"), rows, grown, "nothing was grown")


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace(":", ": ")


def _mining_table(table: pl.DataFrame) -> Table:
    spoken = table.with_columns(pl.col("rule").str.replace_all("_", " "))
    return table_from(spoken, "Hard negatives, rule by rule")


def _assembly_table(table: pl.DataFrame) -> Table:
    named = table.with_columns(pl.col("category").fill_null("(none)")) if "category" in table.columns else table
    return table_from(named, "What the training table was put together from")


def _commands(session: Session) -> tuple[str, ...]:
    """The commands of this run as they were given; the first makes the detector before, unless that was given."""
    origin = session.origin or Origin(Path("crywolf.yaml"), session.config)
    changed = origin.changed(session.config)
    but = f"; options changed {', '.join(changed)}" if changed else ""
    first = () if session.config.evaluate.baseline is not None else (_first_command(session, origin),)
    return (f"# {origin.file.name} holds the configuration below{but}", *first, origin.command("retrain"))


def _first_command(session: Session, origin: Origin) -> str:
    """The command that trained the detector before, as `crywolf train` noted it, or the plain one."""
    try:
        noted = json.loads((session.config.out / BASE / EVALUATION).read_text(encoding="utf-8")).get("command")
    except (OSError, ValueError, AttributeError):
        noted = None
    return str(noted or replace(origin, words=()).command("train"))


def _made_table(result: Retrained) -> Table:
    """Hashes of what came out, and of the detector before where it is a package or an ensemble with packages in it."""
    training = result.package.parent / TRAINING
    before = Path(result.before_package)
    voting = model_hashes(result.before_package) if not (before / MANIFEST).is_file() else {}
    rows: list[tuple[str, int | None, str]] = [
        (what, None, file_hash(folder / MANIFEST))
        for what, folder in (
            ("detector before: its manifest", before),
            ("detector after: its manifest", result.package),
        )
        if (folder / MANIFEST).is_file()
    ]
    rows[:0] = [(f"detector before: model of {name}", None, hash_) for name, hash_ in voting.items()]
    if training.is_file():
        rows.insert(0, ("training table", len(result.assembly.frame), file_hash(training)))
    note = "A package's manifest names every file in it with its own hash."
    return Table("What came out", ("what", "rows", "SHA-256"), tuple(rows), note)


def _versions_table() -> Table:
    return Table("Versions", ("package", "version"), tuple(versions().items()))


def _configuration(session: Session) -> str:
    """The run's configuration as YAML, paths as seen from its file.

    Keys that are not set and `tracking`, which changes no result, are left out.
    """
    raw = session.config.model_dump(mode="json", exclude={"tracking"}, exclude_none=True)
    shown = (session.origin or Origin(Path("crywolf.yaml"), session.config)).shown(raw)
    return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)).strip()


def _corpus_table(result: Retrained) -> Table:
    order = {name: place for place, name in enumerate(result.split.frames)}
    rows = (
        pl.concat(
            [frame.select(pl.lit(name).alias("fold"), "label", "source") for name, frame in result.split.frames.items()]
        )
        .group_by("fold", pl.col("label").cast(pl.String), "source")
        .len("rows")
        .sort(pl.col("fold").replace_strict(order), "label", "source")
    )
    return table_from(rows, "The original data", "Split by near-duplicate cluster before anything was grown.")


def _drop_tables(result: Retrained) -> tuple[Table, ...]:
    drops = tuple(
        (_spoken(reason), rows) for reason, rows in sorted(result.growth.drops.items(), key=lambda item: -item[1])
    )
    diversity = tuple(
        (_MEASURES.get(name, _spoken(name)), _measure(name, value))
        for name, value in result.growth.diversity.as_dict().items()
    )
    return (
        Table("Grown samples that were dropped", ("reason", "rows"), drops, empty="nothing was dropped"),
        Table("Diversity of what is left", ("measure", "value"), diversity),
    )


_MEASURES = {
    "samples": "samples",
    "fps": "false positives grown from",
    "distinct_1": "distinct words, of all words",
    "distinct_2": "distinct word pairs, of all pairs",
    "distinct_1_per_fp": "distinct words within the samples of one false positive",
    "distinct_2_per_fp": "distinct word pairs within the samples of one false positive",
    "per_fp": "samples a false positive",
    "few": "false positives with fewer than five samples",
    "mean_cosine": "mean cosine of samples to their false positive",
}
_NO_SHARES = ("per_fp", "mean_cosine")


def _measure(name: str, value: float | int | None) -> str | int | float | None:
    """A measure of diversity as the page shows it: the shares in per cent."""
    if isinstance(value, float) and name not in _NO_SHARES:
        return f"{100 * value:.1f}%"
    return round(value, 3) if isinstance(value, float) else value
