"""`crywolf augment`: training data grown from a file of false positives, or more attacks from a file of attacks."""

from pathlib import Path
from typing import Any, Literal

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, encoder, llm, max_rejected, review_path


@click.command()
@click.option("--from-fps", "fps", type=FILE, help="False positives: benign_test_results.json or a corpus.")
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
@click.option(
    "--twins/--no-twins",
    default=True,
    show_default=True,
    help="Add near-miss twins of attack phrasings, attacks that are only quoted, and the same attacks in use.",
)
@click.option(
    "--detector",
    help="DETECTOR whose false positives these are: it is asked which words turn its verdict.",
)
@click.option("--languages", help="Languages to grow in, as codes: en,de,zh.  [default: all there are]")
@click.option("--explain", is_flag=True, help="Show what the detector reacts to, group by group, and what was grown.")
@click.option(
    "--label",
    type=click.Choice(["BENIGN", "MALICIOUS"]),
    default="BENIGN",
    show_default=True,
    help="MALICIOUS grows attacks: --malicious in other words, carriers, languages and disguises.",
)
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
@llm
@max_rejected
@encoder
@cache
@common
def augment(
    fps: Path | None,
    prompts: Path | None,
    malicious: Path | None,
    against: tuple[Path, ...],
    holdout: tuple[Path, ...],
    out: Path,
    format_: Literal["native", "augmented"] | None,
    review: Path | None,
    detector: str | None,
    languages: str | None,
    explain: bool,
    label: str,
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
    swapped within what goes together, and related templates are filled. The words that the detector reacts to are put
    into harmless sentences, one to three at a time, in many languages and into long prompts; near-miss twins of attack
    phrasings are added, and attacks that are quoted beside the same attacks in use, which keep the label MALICIOUS.
    Samples that drift towards an attack or off their FP's topic are dropped, then near-duplicates (Jaccard >= 0.8 on
    character 5-grams) within the output, of --against and of --holdout. Cut prompts ("...") are made whole from
    --prompts by id or left out, never grown cut.

    \b
    Example:
      crywolf augment --from-fps benign_test_results.json --prompts benign_prompts.jsonl.gz \\
          --malicious attacks.jsonl.gz --against train.jsonl.gz --holdout golden.jsonl -o grown.jsonl
      crywolf augment --from-fps fps.jsonl --detector my-package --explain -o grown.jsonl
      crywolf augment --label MALICIOUS --malicious attacks.jsonl --per-fp 3 -o more-attacks.jsonl
    """
    from crywolf.data import BadInput, RunManifest, check_output, rejected_path, write_corpus
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    review = review_path(out, review)
    format_ = format_ or ("augmented" if _looks_augmented(out) else "native")
    check_output(out, format=format_, force=force)
    for target in (review, rejected_path(out)):
        check_output(target, force=force)
    asked, settings = _apart(settings)
    parameters = {"seed": seed, "encoder": encoder, "format": format_, "label": label, **settings, **asked}
    manifest = RunManifest("augment", {**parameters, "detector": detector, "languages": languages})
    if label == "MALICIOUS":
        grown = _grow_attacks(reader, malicious, against, holdout, manifest, settings["per_fp"], seed)
        write_corpus(grown, out, format=format_, force=force)
        _finish(console, reader, manifest, out, grown.height, force=force)
        return
    if fps is None:
        raise BadInput("--from-fps is missing: the false positives to grow; --label MALICIOUS grows --malicious")
    settings["languages"] = _codes(languages)
    with manifest.time("read"):
        source, references = _read(reader, manifest, fps, prompts, malicious, against, holdout)
    console.say(
        f"{len(source.frame):,} false positives; {source.cut_joined:,} cut prompts made whole, "
        f"{source.cut_left_out:,} cut and left out, {len(source.rejected):,} rows rejected"
    )
    paraphrases = _paraphrases(console, manifest, asked, source.frame, out)
    if asked["dry_run"]:
        console.finish()
        return
    encode = _encoder(console, encoder, cache) if settings.pop("guards") else None
    references["paraphrases"] = paraphrases
    result = _grow(console, manifest, source, references, detector, encode, settings, seed)
    if not result.stats["fps"]:
        raise BadInput(f"{fps}: all {len(source.frame):,} false positives are near rows of a holdout, none was grown")
    write_corpus(result.frame, out, format=format_, force=force)
    # Written without rows too: an older run's queue must not be taken for this one's.
    write_corpus(result.review, review, force=force)
    manifest.add_output(review)
    _show(console, result, {"cut_joined": source.cut_joined, "cut_left_out": source.cut_left_out})
    if explain:
        show_explanation(console, result)
    manifest.count("augment", console.document["augment"])
    console.say(f"{review}: {len(result.review):,} to review")
    _finish(console, reader, manifest, out, result.frame.height, force=force)


def _read(
    reader: Any,
    manifest: Any,
    fps: Path,
    prompts: Path | None,
    malicious: Path | None,
    against: tuple[Path, ...],
    holdout: tuple[Path, ...],
) -> tuple[Any, dict[str, Any]]:
    """Read the false positives, and what samples must keep clear of."""
    source = reader.fps(fps, prompts=prompts)
    references = {
        "malicious": _attacks(reader, malicious) if malicious else None,
        "against": reader.references(against),
        "holdouts": reader.references(holdout),
    }
    for path in (fps, prompts, malicious, *against, *holdout):
        if path is not None:
            manifest.add_input(path)
    return source, references


def _attacks(reader: Any, path: Path) -> Any:
    """Read attacks; a file with labels of its own may hold both classes, and only its attacks are attacks."""
    import polars as pl

    from crywolf.data import MALICIOUS, BadInput

    attacks = reader.corpus(path, label=MALICIOUS).filter(pl.col("label") == MALICIOUS)
    if attacks.is_empty():
        raise BadInput(f"{path}: no row of it is labelled MALICIOUS, there are no attacks in it")
    return attacks


def _codes(languages: str | None) -> tuple[str, ...] | None:
    if languages is None or languages.strip() == "all":
        return None
    return tuple(code.strip().lower() for code in languages.split(",") if code.strip())


def _grow(
    console: Console,
    manifest: Any,
    source: Any,
    references: dict[str, Any],
    detector: str | None,
    encode: Any,
    settings: dict[str, Any],
    seed: int,
) -> Any:
    import numpy as np

    from crywolf.augment import GrowConfig, grow
    from crywolf.export import load_detector

    config = GrowConfig(**settings)
    asked = None if detector is None else load_detector(detector)
    with manifest.time("grow"), console.progress("growing") as progress:
        return grow(
            source.frame,
            config=config,
            encode=encode,
            rng=np.random.default_rng(seed),
            detector=asked,
            progress=progress,
            **references,
        )


def _apart(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what concerns the language model from the rest."""
    asked = {name: value for name, value in settings.items() if name.startswith("llm_") or name == "dry_run"}
    return asked, {name: value for name, value in settings.items() if name not in asked}


def _paraphrases(console: Console, manifest: Any, asked: dict[str, Any], fps: Any, out: Path) -> Any:
    """Have a language model paraphrase the false positives, after saying what that will take; None without --llm."""
    from crywolf.augment.operators.llm import Endpoint, estimate, paraphrase
    from crywolf.data import BadInput

    if asked["llm_url"] is None:
        if asked["dry_run"]:
            raise BadInput("--dry-run says what --llm would ask; there is no --llm here")
        return None
    endpoint = Endpoint(
        asked["llm_url"],
        asked["llm_model"] or "",
        per_prompt=asked["llm_per_prompt"],
        concurrency=asked["llm_concurrency"],
        timeout=asked["llm_timeout"],
        key=asked["llm_key"],
    )
    kept = out.with_name(out.name + ".llm.jsonl")
    plan = estimate(fps, endpoint, kept)
    price = asked["llm_price"]
    cost = "give --llm-price to see a cost" if price is None else f"cost about {plan.cost(*price):,.2f}"
    console.say(
        f"{endpoint.model}: {plan.requests:,} requests to make ({plan.known:,} answered before or too long), about "
        f"{plan.tokens_in:,} tokens in and {plan.tokens_out:,} out; {cost}"
    )
    console.document["llm"] = {**vars(plan), "cost": None if price is None else plan.cost(*price)}
    if asked["dry_run"]:
        return None
    with manifest.time("llm"), console.progress("asking") as progress:
        found = paraphrase(fps, endpoint, kept, progress=progress)
    console.say(f"{found.frame.height:,} paraphrases; answers are kept in {kept}")
    for reason, n in sorted(found.failed.items()):
        console.warn(f"{n:,} prompts without paraphrases: {reason}")
    return found.frame


def _grow_attacks(
    reader: Any,
    malicious: Path | None,
    against: tuple[Path, ...],
    holdout: tuple[Path, ...],
    manifest: Any,
    per_row: int,
    seed: int,
) -> Any:
    """Grow attacks; near-duplicates of the attacks themselves, of --against and of --holdout are dropped."""
    import numpy as np

    from crywolf.augment import deduplicate
    from crywolf.augment.operators.attacks import grow_attacks
    from crywolf.data import BadInput

    if malicious is None:
        raise BadInput("--malicious is missing: the attacks to grow with --label MALICIOUS")
    attacks = _attacks(reader, malicious)
    references = [("malicious", attacks), *reader.references(against), *reader.references(holdout)]
    for path in (malicious, *against, *holdout):
        manifest.add_input(path)
    with manifest.time("grow"):
        grown = grow_attacks(attacks, per_row, np.random.default_rng(seed))
        result = deduplicate(grown, against=references)
    reader.console.say(f"{len(attacks):,} attacks; {grown.height:,} samples made, {len(result.kept):,} kept")
    made = result.kept["how"].str.split(":").list.first().value_counts(sort=True)
    reader.console.table("operators", "Operators", ["operator", "samples"], made.rows())
    drops = sorted(result.by_reason().items(), key=lambda item: -item[1])
    reader.console.table("drops", "Dropped", ["reason", "rows"], [[reason, n] for reason, n in drops])
    manifest.count("augment", {"attacks": len(attacks), "made": grown.height, "kept": len(result.kept)})
    return result.kept


def _finish(console: Console, reader: Any, manifest: Any, out: Path, rows: int, *, force: bool) -> None:
    manifest.add_output(out)
    reader.write_beside(out, force=force)
    manifest.write(out)
    console.result("out", str(out), f"{out}: {rows:,} rows")
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


_WORDS, _EXAMPLES, _WIDTH = 6, 2, 90


def show_explanation(console: Console, result: Any) -> None:
    """Show, group by group, what the detector reacts to, which prompts those are, and what was grown for them."""
    grown = result.growth_by_group()
    texts = result.prompts["text"].to_list()
    groups = result.explanation.as_dicts(texts, examples=_EXAMPLES, words=_WORDS)
    by_group = {row.pop("group"): row for row in grown.to_dicts()}
    rows, examples = [], []
    for group in groups:
        group["grown"] = {kind: n for kind, n in by_group.get(group["group"], {}).items() if n}
        triggers = ", ".join(f"{item['word']} ({item['turned'] or item['fps']})" for item in group["triggers"])
        openings = ", ".join(item["word"] for item in group["openings"][:2] if item["turned"])
        rows.append([group["group"], group["size"], triggers, openings, _counted(group["grown"])])
        examples += [[group["group"], _short(text)] for text in group["examples"]]
    asked = {
        "occlusion": f"words whose loss turns the verdict, of {result.explanation.looked_at:,} prompts asked about",
        "contrast": "words that stand out against --against; --detector asks the detector itself",
        "none": "words by count; --detector asks the detector, --against compares with ordinary prompts",
    }[result.explanation.method]
    heads = ["group", "FPs", "trigger words (prompts)", "openings", "grown"]
    console.table("triggers", f"What the detector reacts to: {asked}", heads, rows)
    console.table("examples", "Typical false positives of each group", ["group", "prompt"], examples)
    console.document["explanation"] = {"method": result.explanation.method, "groups": groups}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: -item[1]))
