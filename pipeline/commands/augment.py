"""`crywolf augment`: benign training data grown from a file of false positives."""

from pathlib import Path
from typing import Any, Literal

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, encoder, max_rejected, review_path


@click.command()
@click.option(
    "--from-fps", "fps", type=FILE, required=True, help="False positives: benign_test_results.json or a corpus."
)
@click.option("--prompts", type=FILE, help="The harness's benign prompts, to make cut FPs whole by id.")
@click.option("--malicious", type=FILE, help="Known attacks: samples that drift towards them are dropped.")
@click.option(
    "--against", type=FILE, multiple=True, help="Training corpus: near-duplicates of it are dropped. Repeatable."
)
@click.option("--holdout", type=FILE, multiple=True, help="Evaluation set: nothing near it may be grown. Repeatable.")
@click.option(
    "--per-fp", type=click.IntRange(1, 200), default=15, show_default=True, help="Samples per false positive."
)
@click.option("--noise-share", type=click.FloatRange(0, 0.5), default=0.05, show_default=True, help="Share with typos.")
@click.option(
    "--guard-margin",
    type=click.FloatRange(0, 1),
    default=0.10,
    show_default=True,
    help="Rise in cosine to the nearest attack that a sample may show over its FP.",
)
@click.option("--twins/--no-twins", default=True, show_default=True, help="Add near-miss twins of attack phrasings.")
@click.option("--guards/--no-guards", default=True, show_default=True, help="Check topic and attacks by embeddings.")
@click.option("-o", "--out", type=FILE, required=True, help="Output: .jsonl, .csv, .parquet, also .gz and .zst.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["native", "augmented"]),
    default=None,
    help="augmented: a harness's JSONL (prompt, original_fp, why_hard).  [default: augmented for *augmented*.jsonl]",
)
@click.option(
    "--review", type=FILE, help="Where samples that a person should look at go.  [default: OUT with .review.jsonl]"
)
@max_rejected
@encoder
@cache
@common
def augment(
    fps: Path,
    prompts: Path | None,
    malicious: Path | None,
    against: tuple[Path, ...],
    holdout: tuple[Path, ...],
    out: Path,
    format_: Literal["native", "augmented"] | None,
    review: Path | None,
    max_rejected: float,
    encoder: str | None,
    cache: Path | None,
    force: bool,
    seed: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Grow benign training data from false positives.

    Each FP is rewritten across question, request and statement frames, its languages, frameworks and topics are
    swapped within what goes together, related templates are filled, and near-miss twins of attack phrasings are added.
    Samples that drift towards an attack or off their FP's topic are dropped, then near-duplicates (Jaccard >= 0.8 on
    character 5-grams) within the output, of --against and of --holdout. Cut prompts ("...") are made whole from
    --prompts by id or left out, never grown cut.

    \b
    Example:
      crywolf augment --from-fps benign_test_results.json --prompts benign_prompts.jsonl.gz \\
          --malicious attacks.jsonl.gz --against train.jsonl.gz --holdout golden.jsonl -o grown.jsonl
    """
    import numpy as np
    import polars as pl

    from crywolf.augment import GrowConfig, grow
    from crywolf.data import MALICIOUS, BadInput, RunManifest, check_output, rejected_path, write_corpus
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    review = review_path(out, review)
    format_ = format_ or ("augmented" if _looks_augmented(out) else "native")
    check_output(out, format=format_, force=force)
    for target in (review, rejected_path(out)):
        check_output(target, force=force)
    parameters = {"seed": seed, "encoder": encoder, "format": format_, **settings}
    manifest = RunManifest("augment", parameters)
    with manifest.time("read"):
        source = reader.fps(fps, prompts=prompts)
        # A file with labels of its own may hold both classes; only its attacks are attacks.
        attacks = reader.corpus(malicious, label=MALICIOUS).filter(pl.col("label") == MALICIOUS) if malicious else None
        if attacks is not None and attacks.is_empty():
            raise BadInput(f"{malicious}: no row of it is labelled MALICIOUS, there are no attacks to keep clear of")
        named, held = reader.references(against), reader.references(holdout)
    for path in (fps, prompts, malicious, *against, *holdout):
        if path is not None:
            manifest.add_input(path)
    console.say(
        f"{len(source.frame):,} false positives; {source.cut_joined:,} cut prompts made whole, "
        f"{source.cut_left_out:,} cut and left out, {len(source.rejected):,} rows rejected"
    )
    guards = settings.pop("guards")
    config = GrowConfig(**settings)
    encode = _encoder(console, encoder, cache) if guards else None
    with manifest.time("grow"), console.progress("growing") as progress:
        result = grow(
            source.frame,
            config=config,
            encode=encode,
            malicious=attacks,
            against=named,
            holdouts=held,
            rng=np.random.default_rng(seed),
            progress=progress,
        )
    if not result.stats["fps"]:
        raise BadInput(f"{fps}: all {len(source.frame):,} false positives are near rows of a holdout, none was grown")
    write_corpus(result.frame, out, format=format_, force=force)
    # Written without rows too: an older run's queue must not be taken for this one's.
    write_corpus(result.review, review, force=force)
    for path in (out, review):
        manifest.add_output(path)
    reader.write_beside(out, force=force)
    _show(console, result, {"cut_joined": source.cut_joined, "cut_left_out": source.cut_left_out})
    manifest.count("augment", console.document["augment"])
    manifest.write(out)
    console.result("out", str(out), f"{out}: {len(result.frame):,} rows; {review}: {len(result.review):,} to review")
    console.finish()


def _looks_augmented(out: Path) -> bool:
    """Whether the name is that of a harness's file: augmented_training_data.jsonl, x.augmented.jsonl.gz."""
    return "augmented" in out.name and ".jsonl" in out.suffixes


def _encoder(console: Console, name: str | None, cache: Path | None) -> Any:
    from crywolf.mining import Embedder

    embedder = Embedder(name, cache_dir=cache_dir(cache))

    def encode(texts: Any) -> Any:
        with console.progress(f"embedding {len(texts):,} texts") as progress:
            return embedder(texts, progress=progress)

    return encode


def _show(console: Console, result: Any, cut: dict[str, int]) -> None:
    """Show composition, drops by reason and diversity."""
    summary = result.summary()
    console.document["augment"] = {**summary, **cut}
    show_growth(console, result)


_SHOWN = 15


def show_growth(console: Console, result: Any) -> None:
    """Show a growth's tables: composition, drops by reason, diversity; and what the user should know of it."""
    for note in result.notes:
        console.warn(note)
    if result.stats["twins"] > len(result.frame) / 2:
        console.say(
            f"{result.stats['twins']:,} of {len(result.frame):,} rows are near-miss twins; --no-twins omits them"
        )
    composition = result.composition()
    shown = composition.head(_SHOWN).rows()
    rest = composition.slice(_SHOWN)
    if rest.height:
        shown.append((f"{rest.height} more", None, int(rest["rows"].sum()), float(rest["share"].sum())))
    console.table("composition", "Composition", composition.columns, shown)
    console.document["composition"] = composition.to_dicts()
    console.table("operators", "Operators", result.operators.columns, result.operators.rows())
    drops = sorted(result.drops.items(), key=lambda item: -item[1])
    console.table("drops", "Dropped", ["reason", "rows"], [[reason, n] for reason, n in drops])
    console.table(
        "diversity", "Diversity", ["measure", "value"], [[k, v] for k, v in result.diversity().as_dict().items()]
    )
