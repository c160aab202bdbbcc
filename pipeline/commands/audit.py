"""`crywolf audit`: what is wrong with training data before anybody trains on it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.data import Progress
from crywolf.options import FILE, cache, cache_dir, common, encoder, max_rejected

PAGE, DOCUMENT, QUEUE = "report.html", "audit.json", "review.jsonl"
_SHOWN = 15


@click.command()
@click.argument("data", type=FILE, nargs=-1)
@click.option("--benign", type=FILE, multiple=True, help="Rows without a label are benign. Repeatable.")
@click.option("--malicious", type=FILE, multiple=True, help="Rows without a label are attacks. Repeatable.")
@click.option("--holdout", type=FILE, multiple=True, help="Evaluation set that training must not know. Repeatable.")
@click.option("-o", "--out", type=FILE, default=None, help=f"Folder for {PAGE}, {DOCUMENT} and {QUEUE}.")
@click.option("--embeddings/--no-embeddings", default=True, show_default=True, help="Look for label errors too.")
@click.option(
    "--sample", type=click.IntRange(1), default=None, help="Rows of each label that are embedded.  [default: all]"
)
@click.option(
    "--flag-auc",
    type=click.FloatRange(0.5, 1, min_open=True),
    default=0.65,
    show_default=True,
    help="A trait that alone ranks attacks this well is a shortcut.",
)
@click.option(
    "--flag-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="So is one whose one-sided values hold this share of a label.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Jaccard from which two prompts are near-duplicates.",
)
@click.option(
    "--cosine",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Cosine from which a row says what a holdout row says.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 if anything is flagged.")
@click.option("--show-text", is_flag=True, help="Show the texts of doubted rows in the page. They may be vile.")
@max_rejected
@encoder
@cache
@common
def audit(
    data: tuple[Path, ...],
    benign: tuple[Path, ...],
    malicious: tuple[Path, ...],
    holdout: tuple[Path, ...],
    out: Path | None,
    embeddings: bool,
    sample: int | None,
    strict: bool,
    show_text: bool,
    max_rejected: float,
    encoder: str | None,
    cache: Path | None,
    force: bool,
    seed: int,
    as_json: bool,
    **lines: Any,
) -> None:
    """Find what is wrong with training data: duplicates, leakage, balance, label errors, shortcuts.

    A shortcut is a trait that tells the label without the meaning: if attacks alone are long, or in Russian, a detector
    learns "long" and "Russian". Each trait is measured alone, as an AUC with its interval and by the values that one
    label has to itself, and the table says what to do about it. Rows whose label their neighbours and a probe both
    doubt go to a review queue (review.jsonl). No prompt is shown unless --show-text is given.

    \b
    Example:
      crywolf audit --benign benign.jsonl.gz --malicious attacks.jsonl.gz --holdout golden.jsonl --sample 8000 -o audit
    """
    import numpy as np

    from crywolf.data import GateFailed, RunManifest
    from crywolf.mining import Embedder
    from crywolf.reading import Reader
    from crywolf.train.audit import AuditConfig
    from crywolf.train.audit import audit as run_audit

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    _check_asked(data, benign, malicious, holdout, out, force=force)
    parameters = {"seed": seed, "encoder": encoder, "embeddings": embeddings, "sample": sample, **lines}
    manifest = RunManifest("audit", parameters)
    config = AuditConfig(**lines)
    with manifest.time("read"):
        frame = _read(reader, data, benign, malicious)
        held = reader.references(holdout)
    for path in dict.fromkeys((*data, *benign, *malicious, *holdout)):
        manifest.add_input(path)

    @contextmanager
    def stage(label: str) -> Iterator[Progress]:
        with manifest.time(label), console.progress(label) as progress:
            yield progress

    result = run_audit(
        frame,
        holdouts=held,
        encode=Embedder(encoder, cache_dir=cache_dir(cache)) if embeddings else None,
        sample=sample,
        config=config,
        rng=np.random.default_rng(seed),
        stage=stage,
    )
    show_audit(console, result)
    if out is not None:
        _write(out, result, manifest, parameters, show_text=show_text, force=force)
        reader.write_beside(out / DOCUMENT, force=force)
        console.result("out", str(out), f"{out}: {PAGE}, {DOCUMENT}" + (f", {QUEUE}" if result.errors else ""))
    console.finish()
    if strict and result.findings:
        raise GateFailed(f"audit: {len(result.findings)} findings, and --strict was asked for")


def _check_asked(
    data: Sequence[Path],
    benign: Sequence[Path],
    malicious: Sequence[Path],
    holdouts: Sequence[Path],
    out: Path | None,
    *,
    force: bool,
) -> None:
    """Refuse what cannot work before anything is read."""
    from crywolf.data import BadInput, check_target, rejected_path

    if not (data or benign or malicious):
        raise BadInput("audit: no data; give files with labels, or --benign and --malicious files")
    given = [path.resolve() for path in (*data, *benign, *malicious)]
    for path in (*data, *benign, *malicious):
        if given.count(path.resolve()) > 1:
            raise BadInput(f"{path}: given twice, every row of it would be a duplicate; give it once")
    for path in holdouts:
        if path.resolve() in given:
            raise BadInput(f"{path}: cannot be both training data and a holdout")
    if out is None:
        return
    if out.suffix in (".html", ".json", ".jsonl") and not out.is_dir():
        raise BadInput(f"{out}: the audit writes several files; name a folder for them")
    for target in (out / PAGE, out / DOCUMENT, out / QUEUE, rejected_path(out / DOCUMENT)):
        check_target(target, force=force)


def _read(reader: Any, data: Sequence[Path], benign: Sequence[Path], malicious: Sequence[Path]) -> Any:
    import polars as pl

    from crywolf.data import BENIGN, MALICIOUS

    # Rows keep the label that they have: what a file holds beside what it should is for the audit to see.
    asked = ((data, None), (benign, BENIGN), (malicious, MALICIOUS))
    return pl.concat([reader.corpus(path, label=label) for paths, label in asked for path in paths])


def _write(out: Path, result: Any, manifest: Any, parameters: dict[str, Any], *, show_text: bool, force: bool) -> None:
    from crywolf.data import atomic_path
    from crywolf.mining import write_review
    from crywolf.train.audit import write_audit_report

    shown = [(name, str(value)) for name, value in parameters.items() if value is not None]
    write_audit_report(result, out / PAGE, parameters=shown, show_text=show_text, force=force)
    with atomic_path(out / DOCUMENT, force=force) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    names = [PAGE, DOCUMENT]
    if result.errors is not None:
        write_review(result.errors.review, out / QUEUE, force=force)
        names.append(QUEUE)
        manifest.count("accused", result.errors.counts)
    else:
        # A queue of an earlier audit of other data must not be taken for this one's.
        (out / QUEUE).unlink(missing_ok=True)
    manifest.count("rows", result.rows)
    manifest.count("findings", len(result.findings))
    for name in names:
        manifest.add_output(out / name)
    manifest.write(out)


def show_audit(console: Console, result: Any) -> None:
    """Show the tables for people; in JSON the whole document stands under `audit`."""
    console.document["audit"] = result.to_dict()
    if console.as_json:
        return
    from crywolf.train.report.texts import plain

    def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        shown = [[plain(value) if isinstance(value, str) else value for value in row] for row in rows]
        console.table(title, title, columns, shown)

    table("Rows by source", ("source", "benign", "malicious"), result.by_source().rows())
    duplicates = result.duplicates
    table(
        "Copies within each label",
        ("label", "rows", "the same text again", "near-duplicates, those included"),
        duplicates.by_label.select("label", "rows", "exact", "near").rows(),
    )
    table("Rows that stand in a holdout", ("holdout", "kind", "rows", "holdout rows"), result.leak_table().rows())
    if result.errors is not None:
        counts = [[reason, rows] for reason, rows in result.errors.counts.items()]
        table("Doubted labels", ("accused by", "rows"), [*counts, ["judged", result.errors.judged]])
    table("Shortcuts", ("trait", "AUC (95% interval)", "one-sided: benign", "attacks", ""), _shortcut_rows(result))
    lonely = result.lonely_cells()
    cells = lonely.sort("share", descending=True).head(_SHOWN)
    table(
        f"Without a counterpart: {len(cells)} of {len(lonely):,} values",
        cells.columns,
        cells.with_columns(share=_percents(cells["share"])).rows(),
    )
    table("What to do", ("check", "seen", "advice"), [[f.check, f.what, f.advice] for f in result.findings])
    if not result.findings:
        console.say("nothing passes a line")


def _shortcut_rows(result: Any) -> list[list[Any]]:
    return [
        [
            shortcut.trait.name,
            shortcut.auc.text,
            *(f"{100 * shortcut.one_sided(label):.1f}%" for label in ("BENIGN", "MALICIOUS")),
            shortcut.verdict,
        ]
        for shortcut in result.shortcuts
    ]


def _percents(shares: Any) -> Any:
    return (100 * shares).round(1).cast(str) + "%"
