"""`crywolf dedup`: near-duplicates out, within a corpus and against others; by characters and, if asked, by meaning."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, encoder, max_rejected

_ROW = "_row"


@click.command()
@click.argument("corpus", type=FILE)
@click.option("--against", type=FILE, multiple=True, help="Also drop what repeats a row of this corpus. Repeatable.")
@click.option("--threshold", type=click.FloatRange(0.1, 1.0), default=0.8, show_default=True, help="Exact Jaccard.")
@click.option(
    "--keep",
    type=click.Choice(["original", "first"]),
    default="original",
    show_default=True,
    help="Which of a pair stays: the original rather than what was grown from anything, then the first; or the first.",
)
@click.option("--chains", is_flag=True, help="Keep one row of each chain of near-duplicates, not of each pair.")
@click.option(
    "--semantic",
    type=click.FloatRange(0.5, 1.0),
    default=None,
    help="Then also drop what means the same: cosine of the sentence encoder at least this, e.g. 0.95.  [default: off]",
)
@encoder
@cache
@click.option("-o", "--out", type=FILE, required=True, help="What is kept; its extension is its format.")
@click.option("--dropped", type=FILE, help="Also write what was dropped; its notes name the match and how near it is.")
@max_rejected
@common
def dedup(
    corpus: Path,
    against: tuple[Path, ...],
    threshold: float,
    keep: Any,
    chains: bool,
    semantic: float | None,
    encoder: str | None,
    cache: Path | None,
    out: Path,
    dropped: Path | None,
    max_rejected: float,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Drop the near-duplicates of CORPUS: exact Jaccard >= 0.8 on lower-cased character 5-grams.

    MinHash finds the candidates, the exact Jaccard decides. Of a pair the original stays, not what was grown (source
    "augmented", an origin_id or a how); of two grown rows the one with fewer steps from its original; then the first.
    A row of an --against corpus always stays. Rows of different labels are never duplicates of each other: where they
    repeat each other both stay and are counted, since one of the labels is wrong. The tables say how many rows were
    exact (a Jaccard of 1), near, or the same in meaning, and what was dropped of each source.

    \b
    Example:
      crywolf dedup grown.jsonl --against train.jsonl.gz -o clean.jsonl
      crywolf dedup pool.jsonl --semantic 0.95 --dropped dropped.jsonl -o clean.jsonl
    """
    from crywolf.augment.dedup import deduplicate
    from crywolf.data import BadInput, RunManifest, check_output, rejected_path, write_corpus
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    if dropped is not None and dropped.resolve() == out.resolve():
        raise BadInput(f"{out}: cannot hold both what is kept and what is dropped; name another with --dropped")
    for target in (out, rejected_path(out), *([dropped] if dropped else [])):
        check_output(target, force=force)
    asked = {"threshold": threshold, "keep": keep, "chains": chains, "semantic": semantic, "seed": seed}
    manifest = RunManifest("dedup", asked if semantic is None else asked | {"encoder": encoder})
    source = reader.corpus(corpus)
    # How references are labelled plays no part; BENIGN stands in where they are not.
    others = reader.references(against)
    for path in (corpus, *against):
        manifest.add_input(path)

    def by_characters(rows: Any) -> tuple[Any, Any]:
        with console.progress(f"comparing {len(rows):,} texts") as progress:
            found = deduplicate(rows, against=others, threshold=threshold, keep=keep, chains=chains, progress=progress)
        return found.kept, found.dropped

    with manifest.time("dedup"):
        kept, gone = _label_by_label(source, by_characters)
    if semantic is not None:
        drop = partial(_drop_semantic, console, source, others, semantic, keep, encoder, cache)
        with manifest.time("semantic"):
            kept, more = _label_by_label(kept, drop)
        gone = _concat(gone, more)
    write_corpus(kept, out, force=force)
    if dropped:
        write_corpus(_with_reasons(gone), dropped, force=force)
        manifest.add_output(dropped)
    reader.write_beside(out, force=force)
    _account(console, manifest, source, gone)
    conflicts = _conflicts(kept, threshold)
    manifest.count("conflicts", conflicts)
    console.document["conflicts"] = conflicts
    if conflicts:
        console.warn(
            f"{conflicts:,} BENIGN rows are near-duplicates of MALICIOUS ones; both stay, and one of the labels is "
            "wrong: `crywolf audit` lists them"
        )
    manifest.add_output(out)
    manifest.write(out)
    console.finish()


def _label_by_label(rows: Any, drop: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return what `drop` keeps and drops of the rows of each label, in the order of the rows."""
    import polars as pl

    parts = rows.with_row_index(_ROW).partition_by("label", maintain_order=True) or [rows.with_row_index(_ROW)]
    kept, gone = zip(*map(drop, parts), strict=True)
    return pl.concat(kept).sort(_ROW).drop(_ROW), pl.concat(gone, how="diagonal").sort(_ROW).drop(_ROW)


def _conflicts(kept: Any, threshold: float) -> int:
    """Return how many benign rows are near-duplicates of malicious ones."""
    import polars as pl

    from crywolf.augment.dedup import nearest_reference

    benign, malicious = (kept.filter(pl.col("label") == label)["text"].to_list() for label in ("BENIGN", "MALICIOUS"))
    if not benign or not malicious:
        return 0
    return int((nearest_reference(benign, malicious, threshold=threshold) >= 0).sum())


def _drop_semantic(
    console: Console,
    source: Any,
    others: Any,
    cosine: float,
    keep: str,
    encoder: str | None,
    cache: Path | None,
    kept: Any,
) -> tuple[Any, Any]:
    """Return what is left of the kept rows and what was dropped for its meaning."""
    import numpy as np
    import polars as pl

    from crywolf.augment.dedup import drop_semantic, lineage
    from crywolf.mining import Embedder

    embedder = Embedder(encoder, cache_dir=cache_dir(cache))

    def encode(texts: Any) -> Any:
        with console.progress(f"embedding {len(texts):,} texts") as progress:
            return embedder(texts, progress=progress)

    order = None
    if keep == "original":
        # The lineage is that of the whole corpus: the parent of a kept row may have been dropped.
        steps = source.select("id").with_columns(steps=pl.Series(lineage(source))).unique("id", maintain_order=True)
        own = kept.select("id").join(steps, on="id", how="left", maintain_order="left")["steps"]
        order = np.argsort(own.to_numpy(), kind="stable").astype(np.int64)
    with console.progress(f"comparing {len(kept):,} meanings") as progress:
        return drop_semantic(kept, encode, against=others, threshold=cosine, order=order, progress=progress)


def _concat(gone: Any, more: Any) -> Any:
    """Return all dropped rows, those dropped for their characters first."""
    import polars as pl

    return pl.concat([gone, more], how="diagonal")


def _account(console: Console, manifest: Any, source: Any, gone: Any) -> None:
    """Say, and keep in the manifest, what was dropped for which reason and of which source."""
    import polars as pl

    found = dict(gone.with_columns(what=_what()).group_by("what").agg(rows=pl.len()).rows())
    always = ("exact", "near", *(["semantic"] if "cosine" in gone.columns else []))
    told = sorted((dict.fromkeys(always, 0) | found).items())
    kept = len(source) - len(gone)
    console.table("dedup", "Deduplication", ["what", "rows"], [("read", len(source)), *told, ("kept", kept)])
    counts = source.group_by("source").agg(read=pl.len())
    fewer = gone.group_by("source").agg(dropped=pl.len())
    sources = counts.join(fewer, on="source", how="left").with_columns(pl.col("dropped").fill_null(0))
    sources = sources.with_columns(kept=pl.col("read") - pl.col("dropped")).sort("source")
    columns = ["source", "read", "dropped", "kept"]
    console.table("sources", "By source", columns, sources.select(columns).rows())
    manifest.count("read", len(source))
    for what, rows in told:
        manifest.count(what, rows)
    manifest.count("kept", kept)
    manifest.count("by_source", {row["source"]: row for row in sources.select(columns).to_dicts()})


def _what() -> Any:
    """Return the expression that puts a dropped row's reason into words: exact, near, chain or semantic; of whom."""
    import polars as pl

    kind = (
        pl.when(pl.col("reason").str.starts_with("semantic"))
        .then(pl.lit("semantic"))
        .when(pl.col("reason") == "chain_within")
        .then(pl.lit("chain"))
        .when(pl.col("jaccard") == 1.0)
        .then(pl.lit("exact"))
        .otherwise(pl.lit("near"))
    )
    other = pl.col("reason").str.extract(r"^\w+_of:(.*)$")
    return pl.when(other.is_null()).then(kind).otherwise(pl.format("{} of {}", kind, other.fill_null("")))


def _with_reasons(rows: Any) -> Any:
    """Return dropped rows as contract rows whose notes say why: the reason, the match, its Jaccard or cosine."""
    import polars as pl

    from crywolf.data import make_corpus

    near = pl.format("jaccard {}", pl.col("jaccard").round(3))
    if "cosine" in rows.columns:
        meant = pl.format("cosine {}", pl.col("cosine").round(3))
        near = pl.when(pl.col("jaccard").is_null()).then(meant).otherwise(near)
    notes = pl.format("{} {} {}", "reason", "match_id", near)
    return make_corpus(rows.select("text", "label", "category", "source", "external_id", extra=pl.struct(notes=notes)))
