"""`crywolf dedup`: near-duplicates out, within a corpus and against others."""

from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.options import FILE, common, max_rejected


@click.command()
@click.argument("corpus", type=FILE)
@click.option("--against", type=FILE, multiple=True, help="Also drop near-duplicates of this corpus. Repeatable.")
@click.option("--threshold", type=click.FloatRange(0.1, 1.0), default=0.8, show_default=True, help="Exact Jaccard.")
@click.option("-o", "--out", type=FILE, required=True, help="What is kept; its extension is its format.")
@click.option("--dropped", type=FILE, help="Also write what was dropped; its notes name the match and its Jaccard.")
@max_rejected
@common
def dedup(
    corpus: Path,
    against: tuple[Path, ...],
    threshold: float,
    out: Path,
    dropped: Path | None,
    max_rejected: float,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Drop the near-duplicates of CORPUS: exact Jaccard >= 0.8 on lower-cased character 5-grams.

    The first row of a pair stays. MinHash finds the candidates, the exact Jaccard decides.

    \b
    Example:
      crywolf dedup grown.jsonl --against train.jsonl.gz -o clean.jsonl
    """
    import polars as pl

    from crywolf.augment import deduplicate
    from crywolf.data import BadInput, RunManifest, check_output, rejected_path, write_corpus
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    if dropped is not None and dropped.resolve() == out.resolve():
        raise BadInput(f"{out}: cannot hold both what is kept and what is dropped; name another with --dropped")
    for target in (out, rejected_path(out), *([dropped] if dropped else [])):
        check_output(target, force=force)
    manifest = RunManifest("dedup", {"threshold": threshold, "seed": seed})
    source = reader.corpus(corpus)
    # How others are labelled plays no part; BENIGN stands in where they are not.
    others = reader.references(against)
    for path in (corpus, *against):
        manifest.add_input(path)
    with manifest.time("dedup"):
        result = deduplicate(source, against=others, threshold=threshold)
    write_corpus(result.kept, out, force=force)
    if dropped:
        write_corpus(_with_reasons(result.dropped), dropped, force=force)
        manifest.add_output(dropped)
    reader.write_beside(out, force=force)
    reasons = result.dropped.group_by("reason").agg(pl.len()).sort("reason").rows()
    console.table(
        "dedup", "Deduplication", ["what", "rows"], [["read", len(source)], *reasons, ["kept", len(result.kept)]]
    )
    for what, count in reasons:
        manifest.count(what, count)
    manifest.count("kept", len(result.kept))
    manifest.add_output(out)
    manifest.write(out)
    console.finish()


def _with_reasons(rows: Any) -> Any:
    """Return dropped rows as contract rows whose notes say why: the reason, the id of the match, its Jaccard."""
    import polars as pl

    from crywolf.data import make_corpus

    notes = pl.format("{} {} jaccard {}", "reason", "match_id", pl.col("jaccard").round(3))
    return make_corpus(rows.select("text", "label", "category", "source", "external_id", extra=pl.struct(notes=notes)))
