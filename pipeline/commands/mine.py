"""`crywolf mine-hard-negatives`: benign prompts that lie next to attacks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, encoder, max_rejected, review_path


@click.command("mine-hard-negatives")
@click.option("--benign", type=FILE, required=True, multiple=True, help="Benign corpus. Repeatable.")
@click.option("--malicious", type=FILE, required=True, multiple=True, help="Attacks. Repeatable.")
@click.option("--fps", type=FILE, help="False positives: anchors of their own.")
@click.option("--prompts", type=FILE, help="Whole prompts by id, where the FP file has them cut.")
@click.option("-o", "--out", type=FILE, required=True, help="The hard negatives; the extension is the format.")
@click.option(
    "--review", type=FILE, help="Where suspected attacks among the benign go.  [default: OUT with .review.jsonl]"
)
@click.option(
    "--per-anchor",
    type=click.IntRange(1),
    default=None,
    help="Hard negatives per attack or FP.  [default: 5 looked at, 3 taken]",
)
@click.option(
    "--max-cosine",
    type=click.FloatRange(0, 1),
    default=None,
    help="A benign prompt this near to an attack goes to the review queue.  [default: 0.8]",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(-1, 1),
    default=None,
    help="A benign prompt farther than this from every attack is not hard.  [default: 0.35]",
)
@click.option("--index", type=FILE, help="Keep the benign rows' index here and use it again; new rows are added.")
@click.option(
    "--index-type",
    type=click.Choice(["auto", "exact", "ivf", "hnsw"]),
    default="auto",
    show_default=True,
    help="auto: exact up to 100,000 rows, then inverted lists (ivf) in half precision. hnsw takes longest to build.",
)
@click.option("--float16", is_flag=True, help="Keep the index's rows in half precision.")
@max_rejected
@encoder
@cache
@common
def mine(
    benign: tuple[Path, ...],
    malicious: tuple[Path, ...],
    fps: Path | None,
    prompts: Path | None,
    out: Path,
    review: Path | None,
    index: Path | None,
    index_type: Any,
    float16: bool,
    max_rejected: float,
    encoder: str | None,
    cache: Path | None,
    force: bool,
    seed: int,
    as_json: bool,
    **rules: Any,
) -> None:
    """Mine hard negatives: benign prompts whose nearest neighbours are attacks.

    For each attack its nearest benign prompts, and for each benign prompt its nearest attacks, by cosine of sentence
    embeddings; margins, a guard against attacks mislabelled as benign, and a cap per neighbourhood decide. The table
    says what each rule kept and dropped.

    \b
    Example:
      crywolf mine-hard-negatives --benign benign.jsonl.gz --malicious attacks.jsonl.gz -o hard.jsonl
    """
    import numpy as np
    import polars as pl

    from crywolf.data import RunManifest, check_output, rejected_path, write_corpus
    from crywolf.mining import Embedder, IndexPlan, MineConfig, mine_hard_negatives, write_review
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    review = review_path(out, review)
    for target in (out, review, rejected_path(out)):
        check_output(target, force=force)
    named = {
        "neighbours": rules["per_anchor"],
        "fp_neighbours": rules["per_anchor"],
        "per_neighbourhood": rules["per_anchor"],
        "guard_similarity": rules["max_cosine"],
        "min_similarity": rules["min_cosine"],
    }
    given = {name: value for name, value in named.items() if value is not None}
    manifest = RunManifest("mine-hard-negatives", {"seed": seed, "encoder": encoder, **given})
    frames = {
        # A file with labels of its own may hold both classes; each list takes its class.
        label: pl.concat([reader.corpus(path, label=label) for path in paths]).filter(pl.col("label") == label)
        for label, paths in (("BENIGN", benign), ("MALICIOUS", malicious))
    }
    anchors = reader.fps(fps, prompts=prompts).frame if fps else None
    for path in (*benign, *malicious, fps, prompts):
        if path is not None:
            manifest.add_input(path)
    embedder = Embedder(encoder, cache_dir=cache_dir(cache))

    def encode(texts: Any) -> Any:
        with console.progress(f"embedding {len(texts):,} texts") as progress:
            return embedder(texts, progress=progress)

    with manifest.time("mine"):
        result = mine_hard_negatives(
            frames["BENIGN"],
            frames["MALICIOUS"],
            fps=anchors,
            encode=encode,
            config=MineConfig(**given),
            rng=np.random.default_rng(seed),
            index=IndexPlan(index, index_type, float16, lambda: embedder.key),
        )
    write_corpus(result.frame, out, force=force)
    write_review(result.review, review, force=True)
    reader.write_beside(out, force=force)
    show_mining(console, result)
    manifest.count("rules", vars(result.config))
    manifest.count("index", vars(result.index))
    manifest.count("hard_negatives", len(result.frame))
    manifest.count("review", len(result.review))
    for path in (out, review):
        manifest.add_output(path)
    manifest.write(out)
    console.result(
        "out", str(out), f"{out}: {len(result.frame):,} hard negatives; {review}: {len(result.review):,} to review"
    )
    console.finish()


def show_mining(console: Console, result: Any) -> None:
    """Show what each rule kept and dropped, and what to change if that was too little."""
    console.table("mining", "Hard negatives", result.table.columns, result.table.rows())
    found = result.index
    half = ", float16" if found.float16 else ""
    console.result(
        "index",
        asdict(found),
        f"index: {found.kind}{half}, {found.rows:,} rows, {found.origin}; recall@{found.k} {found.recall:.3f}",
    )
    for line in result.advice:
        console.say(line)
