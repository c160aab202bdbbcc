"""`crywolf augment`: training data grown from a file of false positives, or more attacks from a file of attacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, encoder, llm, max_rejected, review_path

_NOT_OF_ATTACKS = frozenset(
    {"fps", "prompts", "detector", "explain", "review", "languages", "noise_share", "guard_margin"}
    | {"guards", "twins", "encoder", "cache"}
)
"""Parameters, beside those of the language model, that growing attacks has no use for."""
_HOLDOUT = "holdout:"
_SURPLUS = 3
"""Attacks are made for each one wanted, so that near-duplicates can be made good."""


@click.command()
@click.option("--from-fps", "fps", type=FILE, help="False positives: benign_test_results.json or a corpus.")
@click.option("--prompts", type=FILE, help="The harness's benign prompts, to make cut FPs whole by id.")
@click.option("--malicious", type=FILE, help="Known attacks: samples that drift towards them are dropped.")
@click.option(
    "--against", type=FILE, multiple=True, help="Training corpus: near-duplicates of it are dropped. Repeatable."
)
@click.option("--holdout", type=FILE, multiple=True, help="Evaluation set: nothing near it may be grown. Repeatable.")
@click.option(
    "--per-fp",
    type=click.IntRange(1, 200),
    default=15,
    show_default=True,
    help="Samples per FP or attack.",
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
    help="Add near-miss twins of attack phrasings, attacks that are only quoted, and the same attacks in use, which "
    "are MALICIOUS rows, many of them.",
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
    help="MALICIOUS grows attacks: --malicious in other words, carriers, languages and disguises. It takes no option "
    "about false positives, guards or language models.",
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
@click.pass_context
def augment(
    ctx: click.Context,
    /,
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
    phrasings are added, and attacks that are quoted beside the same attacks in use. Those in use keep the label
    MALICIOUS, so the output holds rows of both labels; --no-twins leaves all of these out and gives BENIGN ones alone.
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
    from crywolf.data import RunManifest, check_output, rejected_path, write_corpus
    from crywolf.reading import Reader

    _check_options(ctx, label)
    console = Console(as_json=as_json)
    reader = Reader(console, max_rejected)
    format_ = format_ or ("augmented" if _looks_augmented(out) else "native")
    check_output(out, format=format_, force=force)
    check_output(rejected_path(out), force=force)
    asked, settings = _apart(settings)
    parameters = {"seed": seed, "encoder": encoder, "format": format_, "label": label, **settings, **asked}
    manifest = RunManifest("augment", {**parameters, "detector": detector, "languages": languages})
    if label == "MALICIOUS":
        grown = _grow_attacks(reader, malicious, against, holdout, manifest, settings["per_fp"], seed)
        write_corpus(grown, out, format=format_, force=force)
        _finish(console, reader, manifest, out, grown.height, force=force)
        return
    review = review_path(out, review)
    check_output(review, force=force)
    config = _config(settings, languages)
    with manifest.time("read"):
        source, references = _read(reader, manifest, fps, prompts, malicious, against, holdout)
    console.say(
        f"{len(source.frame):,} false positives; {source.cut_joined:,} cut prompts made whole, "
        f"{source.cut_left_out:,} cut and left out, {len(source.rejected):,} rows rejected"
    )
    ready = _Ready(config, _detector(detector), _usable_fps(fps, source.frame, references["holdouts"], config))
    encode = _encoder(console, encoder, cache) if settings["guards"] and not asked["dry_run"] else None
    # The model is asked last: what is wrong with the rest must show before anything is paid for.
    references["paraphrases"] = _paraphrases(console, manifest, asked, ready.fps, out)
    if asked["dry_run"]:
        console.finish()
        return
    result = _grow(console, manifest, source.frame, references, ready, encode, seed)
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


def _check_options(ctx: click.Context, label: str) -> None:
    """Refuse options that would have no effect: whoever gave them expects one."""
    from crywolf.data import BadInput

    of_llm = {str(param.name) for param in ctx.command.params if str(param.name).startswith("llm_")} | {"dry_run"}
    given = _given(ctx)
    if label == "MALICIOUS":
        if useless := [spelt for name, spelt in given.items() if name in _NOT_OF_ATTACKS | of_llm]:
            raise BadInput(
                f"{useless[0]} has no effect with --label MALICIOUS, which grows the attacks of --malicious: "
                "leave it out"
            )
        return
    if "llm_url" not in given and (useless := [spelt for name, spelt in given.items() if name in of_llm]):
        raise BadInput(f"{useless[0]} has no effect without --llm, the endpoint to ask; give that too or leave it out")
    if "fps" not in given:
        raise BadInput("--from-fps is missing: the false positives to grow; --label MALICIOUS grows --malicious")


def _given(ctx: click.Context) -> dict[str, str]:
    """Return the parameters given on the command line, each with the option's name as it was given."""
    from click.core import ParameterSource

    given = {}
    for param in ctx.command.params:
        name = str(param.name)
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            off = param.secondary_opts and ctx.params[name] is False
            given[name] = (param.secondary_opts if off else param.opts)[0]
    return given


def _config(settings: dict[str, Any], languages: str | None) -> Any:
    from crywolf.augment import GrowConfig

    return GrowConfig(languages=_codes(languages), **{k: v for k, v in settings.items() if k != "guards"})


def _detector(name: str | None) -> Any:
    from crywolf.export import load_detector

    return None if name is None else load_detector(name)


def _usable_fps(path: Path | None, fps: Any, holdouts: Any, config: Any) -> Any:
    """Return the false positives that will be grown: those near a row of a holdout are not."""
    import polars as pl

    from crywolf.augment import nearest_reference
    from crywolf.data import BadInput

    held = [text for _, frame in holdouts for text in frame["text"].drop_nulls().to_list()]
    if not held or fps.is_empty():
        return fps
    near = nearest_reference(fps["text"].to_list(), held, threshold=config.threshold)
    left = fps.filter(pl.Series(near < 0))
    if left.is_empty():
        raise BadInput(f"{path}: all {len(fps):,} false positives are near rows of a holdout, none was grown")
    return left


@dataclass(frozen=True)
class _Ready:
    """What is checked and loaded before anybody is asked: the configuration, the detector, the FPs that are grown."""

    config: Any
    detector: Any
    fps: Any


def _read(
    reader: Any,
    manifest: Any,
    fps: Path | None,
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
    console: Console, manifest: Any, fps: Any, references: dict[str, Any], ready: _Ready, encode: Any, seed: int
) -> Any:
    import numpy as np

    from crywolf.augment import grow

    with manifest.time("grow"), console.progress("growing") as progress:
        return grow(
            fps,
            config=ready.config,
            encode=encode,
            rng=np.random.default_rng(seed),
            detector=ready.detector,
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

    if asked["llm_url"] is None:
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
    """Grow attacks that no holdout has; near-duplicates of holdouts, all the attacks and --against are dropped."""
    import numpy as np
    import polars as pl

    from crywolf.augment import deduplicate, usable_attacks
    from crywolf.augment.dedup import THRESHOLD
    from crywolf.augment.operators.attacks import grow_attacks
    from crywolf.data import BadInput

    if malicious is None:
        raise BadInput("--malicious is missing: the attacks to grow with --label MALICIOUS")
    given = _attacks(reader, malicious).unique("id", keep="first", maintain_order=True)
    holdouts = reader.references(holdout)
    # Holdouts first: a leak is counted as a leak, whatever else it repeats.
    references = [(_HOLDOUT + name, frame) for name, frame in holdouts]
    references += [("malicious", given), *reader.references(against)]
    for path in (malicious, *against, *holdout):
        manifest.add_input(path)
    with manifest.time("grow"):
        attacks = usable_attacks(given, holdouts)
        if attacks.is_empty():
            raise BadInput(f"{malicious}: all {len(given):,} attacks are near rows of a holdout, none was grown")
        made = grow_attacks(attacks, _SURPLUS * per_row, np.random.default_rng(seed), threshold=THRESHOLD)
        made = _without_held_seeds(made, holdouts)
        result = deduplicate(made, against=references)
        kept = result.kept.filter(pl.int_range(pl.len()).over("origin_id") < per_row)
    counts = {
        "attacks": len(attacks),
        "held_out_attacks": len(given) - len(attacks),
        "made": len(made),
        "surplus": len(result.kept) - len(kept),
        "kept": len(kept),
        "without_any": len(attacks) - kept["origin_id"].n_unique(),
    }
    drops = {reason.replace("duplicate_of:" + _HOLDOUT, _HOLDOUT): n for reason, n in result.by_reason().items()}
    _show_attacks(reader.console, kept, counts, drops)
    manifest.count("augment", {**counts, "drops": drops})
    return kept


def _without_held_seeds(made: Any, holdouts: Any) -> Any:
    """Leave out attacks beside one in another language that a holdout has: `how` names the id of that one."""
    import polars as pl

    from crywolf.augment import usable_attacks
    from crywolf.data.embedded.attacks import malicious_seeds

    usable = usable_attacks(malicious_seeds(), holdouts)["id"].implode()
    barred = malicious_seeds().filter(~pl.col("id").is_in(usable))["id"].to_list()
    return made.filter(~pl.col("how").str.contains_any(barred)) if barred else made


def _show_attacks(console: Console, kept: Any, counts: dict[str, int], drops: dict[str, int]) -> None:
    """Show what became of the attacks: those left out, those that gave nothing, samples by operator, drops."""
    console.say(
        f"{counts['attacks']:,} attacks; {counts['made']:,} samples made, {counts['kept']:,} kept, "
        f"{counts['surplus']:,} more than was asked for"
    )
    if counts["held_out_attacks"]:
        console.warn(f"{counts['held_out_attacks']:,} attacks left out: a holdout has them, or they are near its rows")
    if counts["without_any"]:
        console.warn(
            f"{counts['without_any']:,} of {counts['attacks']:,} attacks got no samples: whatever is made of them "
            "repeats them or others, as with long attacks that no operator changes enough"
        )
    made = kept["how"].str.split(":").list.first().alias("operator").value_counts()
    operators = made.sort("count", "operator", descending=[True, False])
    console.document["augment"] = counts
    console.table("operators", "Operators", ["operator", "samples"], operators.rows())
    ordered = sorted(drops.items(), key=lambda item: -item[1])
    console.table("drops", "Dropped", ["reason", "rows"], [[reason, n] for reason, n in ordered])


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
    show_growth(console, result, omit="--no-twins")


_SHOWN = 15


def show_growth(console: Console, result: Any, *, omit: str = "augment.twins: false") -> None:
    """Show a growth's tables: composition, drops by reason, diversity; and what the user should know of it.

    Args:
        console: where to.
        result: a `Growth`.
        omit: the option that leaves out twins and the rows that draw the border.
    """
    for note in result.notes:
        console.warn(note)
    console.say(_parts(result.stats, omit))
    composition = _by_label(result.frame)
    shown = composition.head(_SHOWN).rows()
    rest = composition.slice(_SHOWN)
    if rest.height:
        total = (int(rest["rows"].sum()), float(rest["share"].sum()))
        shown.append((None, f"{rest.height} more", None, *total))
    console.table("composition", "Composition", composition.columns, shown)
    console.document["composition"] = composition.to_dicts()
    console.table("operators", "Operators", result.operators.columns, result.operators.rows())
    drops = sorted(result.drops.items(), key=lambda item: -item[1])
    console.table("drops", "Dropped", ["reason", "rows"], [[reason, n] for reason, n in drops])
    console.table(
        "diversity", "Diversity", ["measure", "value"], [[k, v] for k, v in result.diversity.as_dict().items()]
    )


def _parts(stats: Mapping[str, Any], omit: str) -> str:
    """Say in one line what the rows are: which are made of prompts, and which, of either label, are not."""
    twins, benign, attacks = stats["twins"], stats["benign_counterparts"], stats["attacks"]
    line = f"{stats['samples'] - twins - benign - attacks:,} samples of {stats['fps']:,} false positives"
    if not twins + benign + attacks:
        return line
    border = f"{twins:,} twins, {benign:,} benign and {attacks:,} MALICIOUS rows that draw the border"
    return f"{line}, {border} ({omit} leaves these out)"


def _by_label(frame: Any) -> Any:
    """Return the rows by label, category and subcategory, the most frequent first, with their share."""
    import polars as pl

    counts = frame.group_by(pl.col("label").cast(pl.String), "category", "subcategory").agg(rows=pl.len())
    keys = ["rows", "label", "category", "subcategory"]
    ordered = counts.sort(keys, descending=[True, False, False, False], nulls_last=True)
    return ordered.with_columns(share=pl.col("rows") / max(frame.height, 1))


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
