"""`crywolf dedup`: near-duplicates out, within a corpus and against others."""

from pathlib import Path

import click

from crywolf.console import Console
from crywolf.options import FILE, common, max_rejected


@click.command()
@click.argument("corpus", type=FILE)
@click.option("--against", type=FILE, multiple=True, help="Also drop near-duplicates of this corpus. Repeatable.")
@click.option("--threshold", type=click.FloatRange(0.1, 1.0), default=0.8, show_default=True, help="Exact Jaccard.")
@click.option("-o", "--out", type=FILE, required=True, help="What is kept; its extension is its format.")
@click.option("--dropped", type=FILE, help="Also write what was dropped, with the match and its Jaccard.")
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
    from crywolf.data import RunManifest, check_target, read_corpus, rejected_path, write_corpus, write_rejected

    console = Console(as_json=as_json)
    for target in (out, rejected_path(out), *([dropped] if dropped else [])):
        check_target(target, force=force)
    manifest = RunManifest("dedup", {"threshold": threshold, "seed": seed})
    source = read_corpus(corpus, max_rejected=max_rejected)
    others = [(path.name, read_corpus(path, max_rejected=max_rejected).frame) for path in against]
    for path in (corpus, *against):
        manifest.add_input(path)
    with manifest.time("dedup"):
        result = deduplicate(source.frame, against=others, threshold=threshold)
    write_corpus(result.kept, out, force=force)
    if dropped:
        write_corpus(result.dropped.select(source.frame.columns), dropped, force=force)
    write_rejected(source.rejected, out, force=force)
    reasons = result.dropped.group_by("reason").agg(pl.len()).sort("reason").rows()
    console.table(
        "dedup", "Deduplication", ["what", "rows"], [["read", len(source.frame)], *reasons, ["kept", len(result.kept)]]
    )
    for what, count in reasons:
        manifest.count(what, count)
    manifest.count("kept", len(result.kept))
    manifest.add_output(out)
    manifest.write(out)
    console.finish()
