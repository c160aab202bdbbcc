"""Grows false positives into training data: proposes samples, removes near-duplicates, guards, fills up to N each.

Takes the false positives and what the samples must stay clear of (attacks, training corpora, holdouts) as contract
frames, an `encode` callable and, if there is one, the detector as a `score`; gives a contract frame, a review queue,
what the detector reacts to, and the account of what was dropped and why.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BENIGN, MALICIOUS, SCHEMA, BadInput, Encode, Progress, empty_corpus, make_corpus
from crywolf.data.embedded.contexts import all_contexts
from crywolf.data.embedded.lexicons import Lexicons, lexicons
from crywolf.data.embedded.templates import Template
from crywolf.data.language import language_of
from crywolf.data.schema import EXTRA_FIELDS

from .attribution import Explanation, Score, explain
from .border import Wanted, border_rows
from .dedup import THRESHOLD, deduplicate, nearest_reference
from .diversity import Diversity, diversity
from .growth import Growth
from .guards import MARGIN, TEMPLATE_FLOOR, TOPIC_FLOOR, TWIN_CEILING, Guard
from .operators.contexts import ContextPicker
from .operators.documents import DocumentPicker, TaskPicker
from .operators.templates import TemplatePicker
from .propose import AUTHORED, KINDS, Proposer, Shares, paraphrase_rows

SOURCE = "augmented"
TWIN_SOURCE = "curated"
_ALREADY = "duplicate_of:"
_HOLDOUT = "holdout:"
_MALICIOUS = "malicious"
_FPS = "fps"

_AUTHORED = [number for number, name in enumerate(KINDS) if name in AUTHORED]
_FILL_UP = ("rewrite", "swap", "paraphrase")
_TELLING = 25
"""A holdout's text of so many characters inside an attack is no chance."""
_ORDINARY = 20_000
"""Rows of a training corpus that false positives are compared with where no detector is at hand."""

References = Sequence[tuple[str, pl.DataFrame]]


class Detector(Protocol):
    """What growing asks of a detector: scores, and from which one on it flags."""

    @property
    def score(self) -> Score:
        """Texts to P(malicious), (n,)."""

    @property
    def threshold(self) -> float:
        """A score from here up is a verdict of malicious."""


@dataclass(frozen=True)
class GrowConfig:
    """How much to grow and how strictly to guard.

    `per_fp` samples a prompt at most. The shares say how many of them are swaps, filled templates, noisy copies,
    trigger words in harmless contexts of the prompt's language (`context`), the same in other languages (`foreign`),
    long prompts (`document`) and everyday orders to a model (`task`); rewrites make the rest, and rewrites and contexts
    fill up what others lack. `languages` are codes of those that may be grown in, None for all. `twins` adds, beyond
    `per_fp`: near-miss twins of the embedded attacks, at most `twin_share` of the samples, each family beside as many
    of the attacks themselves; attacks quoted (benign) and as many in use (malicious), together `intent_share` of the
    samples; and plain attacks, attacks in other words and disguises, with harmless text in the same disguises, together
    `attack_share`. Benign rows alone would teach a detector to let attacks pass.
    `own_weight` is what a sample made of its prompt weighs beside one written by hand or drawing the border; all weigh
    1 on average. `surplus` is how many candidates are made for each sample wanted, so that drops can be made good.
    `skip_held_out` leaves out prompts that are near-duplicates of a holdout's row: their rewrites would teach the test.
    """

    per_fp: int = 15
    noise_share: float = 0.05
    template_share: float = 0.06
    swap_share: float = 0.05
    context_share: float = 0.13
    foreign_share: float = 0.05
    document_share: float = 0.07
    task_share: float = 0.08
    intent_share: float = 0.40
    attack_share: float = 0.30
    twin_share: float = 0.10
    own_weight: float = 3.0
    languages: tuple[str, ...] | None = None
    surplus: float = 1.35
    twins: bool = True
    noise_operators: tuple[str, ...] = ("keyboard", "spelling", "reserved")
    guard_margin: float = MARGIN
    topic_floor: float = TOPIC_FLOOR
    template_floor: float = TEMPLATE_FLOOR
    twin_ceiling: float = TWIN_CEILING
    threshold: float = THRESHOLD
    skip_held_out: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_fp < 1:
            raise BadInput(f"per_fp is {self.per_fp}; it must be at least 1")
        if self.surplus < 1:
            raise BadInput(f"surplus is {self.surplus}; it must be at least 1")
        if not self.own_weight > 0:
            raise BadInput(f"own_weight is {self.own_weight}; it must be above 0")
        for name in ("intent_share", "attack_share", "twin_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.languages is not None and not self.languages:
            raise BadInput(f"languages is empty; leave it out for all, or choose of {', '.join(all_contexts())}")
        if unknown := set(self.languages or ()) - set(all_contexts()):
            raise BadInput(f"no contexts in language {min(unknown)!r}; there are {', '.join(all_contexts())}")
        _ = self.shares
        if not 0 < self.threshold <= 1:
            raise BadInput(f"threshold is {self.threshold}; it must be above 0 and at most 1")

    @property
    def shares(self) -> Shares:
        """The shares of the kinds."""
        return Shares(
            self.swap_share,
            self.template_share,
            self.noise_share,
            self.context_share,
            self.foreign_share,
            self.document_share,
            self.task_share,
        )

    def border(self, samples: int) -> Wanted:
        """How many rows that draw the border by intent go with so many samples."""
        return Wanted(round(self.intent_share * samples), round(self.attack_share * samples), self.languages)


@dataclass(frozen=True)
class GrowResult(Growth):
    """A growth with all that was learned on the way.

    Attributes:
        review: twins that look like attacks, which a person has to look at; extra.notes says why.
        explanation: what the detector reacts to in each group of the prompts.
        prompts: those grown from.
    """

    review: pl.DataFrame
    explanation: Explanation
    prompts: pl.DataFrame = field(repr=False)

    def growth_by_group(self) -> pl.DataFrame:
        """Return how many samples of each kind (columns) were grown for each group of the explanation (rows)."""
        labels = self.explanation.labels.tolist()
        if not labels:
            return pl.DataFrame(schema={"group": pl.Int64()})
        groups = self.prompts.select(origin_id="id", group=pl.Series(labels, dtype=pl.Int64()))
        rows = self.frame.select("origin_id", kind=pl.col("how").str.split(":").list.first())
        found = rows.join(groups, on="origin_id", how="inner").group_by("group", "kind").agg(n=pl.len())
        return found.pivot("kind", index="group", values="n").fill_null(0).sort("group")


def grow(
    fps: pl.DataFrame,
    *,
    config: GrowConfig | None = None,
    encode: Encode | None,
    rng: np.random.Generator | None = None,
    malicious: pl.DataFrame | None = None,
    against: References = (),
    holdouts: References = (),
    twins: pl.DataFrame | None = None,
    templates: Sequence[Template] | None = None,
    lexicon: Lexicons | None = None,
    detector: Detector | None = None,
    paraphrases: pl.DataFrame | None = None,
    progress: Progress | None = None,
) -> GrowResult:
    """Grow up to `config.per_fp` samples of each false positive.

    Args:
        fps: the false positives, as contract rows.
        config: how much and how strictly; the defaults if not given.
        encode: texts to unit vectors. If this is None, the semantic guards are skipped and the result says so.
        rng: draws everything; seeded by `config.seed` if not given. What a prompt is given depends on its id and on the
            prompts before it, not on those after it.
        malicious: attacks that no sample may drift towards or repeat.
        against: named frames (training corpora) that no sample may repeat.
        holdouts: named frames (tests) that no sample may repeat; counted apart, as leakage.
        twins: near-miss twins instead of the embedded ones; used if `config.twins`.
        templates: templates instead of the embedded ones.
        lexicon: lexicons instead of the embedded ones.
        detector: whose false positives these are. It is asked which words turn its verdict, and those are put into
            harmless contexts; without it, the words that stand out against `against` are.
        paraphrases: what a language model made of the prompts: origin_id, text, how.
        progress: told (done, total), first prompts, then texts encoded.

    Raises:
        BadInput: a frame lacks a column, or two references share a name.
    """
    config = config or GrowConfig()
    rng = rng or np.random.default_rng(config.seed)
    _check(fps, malicious, against, holdouts)
    held_out = _held_out(fps.unique("id", keep="first", maintain_order=True), holdouts, config)
    prompts = fps.unique("id", keep="first", maintain_order=True).filter(~held_out)

    proposer = _proposer(config, templates, lexicon or lexicons())
    guard = _guard(encode, malicious, config)
    cosines = None if guard is None else _template_cosines(proposer, prompts, guard)
    why = _explain(prompts, guard, detector, against, rng, progress)
    weights = [group.weights() for group in why.groups]
    triggers = [weights[label] for label in why.labels]
    candidates = proposer.propose(prompts, rng, cosines=cosines, triggers=triggers, progress=progress)
    if paraphrases is not None:
        candidates = pl.concat([candidates, paraphrase_rows(paraphrases, prompts, config.per_fp)])
    most = round(config.twin_share * config.per_fp * prompts.height)
    twin_rows = _twins(twins, most, config, rng) if config.twins else empty_corpus()
    attacks = _attacks(malicious, holdouts, config)
    pairs = border_rows(attacks, twin_rows, config.border(config.per_fp * prompts.height), rng, source=SOURCE)
    drops: Counter[str] = Counter()
    references = _references(prompts, malicious, against, holdouts)
    kept = _deduplicate(_Stage(candidates, twin_rows, empty_corpus(), pairs), references, config, drops)
    kept = _judge_twins(kept, guard)
    chosen, surplus = _fill_up(kept.grown, prompts, guard, config, drops, progress)

    stats: dict[str, int | float | None] = {
        "fps": prompts.height,
        "held_out_fps": int(held_out.sum()),
        "candidates": candidates.height + twin_rows.height + pairs.height,
        "samples": chosen.height + kept.twins.height + kept.pairs.height,
        "twins": kept.twins.height,
        "benign_counterparts": kept.pairs.filter(pl.col("label") == BENIGN).height,
        "attacks": kept.pairs.filter(pl.col("label") == MALICIOUS).height,
        "surplus": surplus,
        "review": kept.review.height,
        "mean_cosine": _mean(chosen.filter(~pl.col("kind").is_in(_AUTHORED)), "to_fp"),
        "mean_nearest_attack": _mean(chosen, "to_attack"),
    }
    frame = _weigh([_contract(chosen, prompts, config.own_weight), kept.twins, kept.pairs])
    return GrowResult(
        frame=frame,
        drops=dict(sorted(drops.items())),
        stats=stats,
        operators=_operators(candidates, chosen),
        notes=(*_notes(stats, encode, malicious), *why.notes),
        diversity=_diversity(frame, prompts, stats["mean_cosine"]),
        review=kept.review,
        explanation=why,
        prompts=prompts,
    )


def _explain(
    prompts: pl.DataFrame,
    guard: Guard | None,
    detector: Detector | None,
    against: References,
    rng: np.random.Generator,
    progress: Progress | None,
) -> Explanation:
    """Group the prompts and find what troubles the detector in each group."""
    ordinary = [text for _, frame in against for text in _benign(frame)["text"].head(_ORDINARY).to_list()]
    return explain(
        prompts["text"].to_list(),
        rng=np.random.default_rng(rng.integers(1 << 62)),
        encode=None if guard is None else guard.remembering,
        score=None if detector is None else detector.score,
        threshold=0.5 if detector is None else detector.threshold,
        ordinary=ordinary,
        progress=progress,
    )


def _benign(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("label") == BENIGN) if "label" in frame.columns else frame


def usable_attacks(attacks: pl.DataFrame, holdouts: References, *, threshold: float = THRESHOLD) -> pl.DataFrame:
    """Return the attacks that may be quoted, used and grown from: those that no holdout has.

    An attack goes if it is a near-duplicate of a holdout's row, or holds one of 25 or more characters whole, after a
    harmless sentence say: its rewrites would teach the test.
    """
    texts = [text for _, frame in holdouts for text in frame["text"].drop_nulls().to_list()]
    if not texts or attacks.is_empty():
        return attacks
    held = pl.Series(nearest_reference(attacks["text"].to_list(), texts, threshold=threshold) >= 0)
    inside = [text for text in texts if len(text) >= _TELLING]
    if inside:
        held |= attacks["text"].str.contains_any(inside, ascii_case_insensitive=True)
    return attacks.filter(~held)


def _attacks(malicious: pl.DataFrame | None, holdouts: References, config: GrowConfig) -> pl.DataFrame:
    """The given attacks and the embedded ones of the languages that may be grown in, without those of a holdout."""
    if not config.twins:
        return empty_corpus()
    from crywolf.data.embedded.attacks import malicious_seeds

    own = [] if malicious is None else [make_corpus(malicious, label=MALICIOUS)]
    embedded = _of_languages(malicious_seeds(), config)
    attacks = pl.concat([*own, embedded]).unique("id", keep="first", maintain_order=True)
    return usable_attacks(attacks, holdouts, threshold=config.threshold)


def _of_languages(rows: pl.DataFrame, config: GrowConfig) -> pl.DataFrame:
    """Embedded rows of the languages that may be grown in: that which their notes name, else that of their text."""
    if config.languages is None:
        return rows
    named = rows["extra"].struct.field("notes").str.extract(r"\blang=([a-z]{2})\b")
    # What a cipher disguises (named in `how`) is English where its notes do not say otherwise.
    plain = zip(named, rows["text"], rows["how"], strict=True)
    codes = [code or ("en" if how else language_of(text, tuple(all_contexts()))) for code, text, how in plain]
    return rows.filter(pl.Series(codes, dtype=pl.String).is_in(list(config.languages)))


def _proposer(config: GrowConfig, templates: Sequence[Template] | None, lexicon: Lexicons) -> Proposer:
    return Proposer(
        config.per_fp,
        config.shares,
        TemplatePicker(templates, lexicon),
        lexicon,
        ContextPicker(),
        DocumentPicker(),
        TaskPicker(),
        tuple(all_contexts()) if config.languages is None else config.languages,
        surplus=config.surplus,
        noise_operators=config.noise_operators,
        template_floor=config.template_floor,
    )


def _guard(encode: Encode | None, malicious: pl.DataFrame | None, config: GrowConfig) -> Guard | None:
    if encode is None:
        return None
    return Guard(encode, malicious, config.guard_margin, config.topic_floor, config.template_floor, config.twin_ceiling)


def _template_cosines(proposer: Proposer, prompts: pl.DataFrame, guard: Guard) -> NDArray[np.float32] | None:
    """Return the cosine of each prompt to a specimen of each template: what the templates are chosen by."""
    if not prompts.height or not proposer.picker.templates:
        return None
    own, specimens = guard.remembering(prompts["text"].to_list()), guard.remembering(proposer.picker.specimens())
    return np.asarray(own @ specimens.T, dtype=np.float32)


def _notes(
    stats: Mapping[str, int | float | None], encode: Encode | None, malicious: pl.DataFrame | None
) -> tuple[str, ...]:
    notes = []
    if encode is None:
        notes.append("no encoder: the guards against drift towards attacks and off the topic were skipped")
    elif malicious is None:
        notes.append("no malicious corpus: drift towards attacks was not checked; pass --malicious")
    if stats["held_out_fps"]:
        notes.append(f"{stats['held_out_fps']} prompts are near-duplicates of holdout rows and were not grown from")
    return tuple(notes)


def _check(fps: pl.DataFrame, malicious: pl.DataFrame | None, against: References, holdouts: References) -> None:
    for name, frame in (("fps", fps), ("malicious", malicious), *against, *holdouts):
        if frame is not None and (missing := {"id", "text"} - set(frame.columns)):
            raise BadInput(
                f"frame {name!r} has no column {min(missing)}; pass contract rows (read_corpus, make_corpus)"
            )
    names = [*(name for name, _ in against), *(_HOLDOUT + name for name, _ in holdouts)]
    taken = [name for name, count in Counter([*names, _FPS, _MALICIOUS]).items() if count > 1]
    if taken:
        raise BadInput(f"two references are named {taken[0]!r}; give each --against and --holdout a name of its own")


def _held_out(prompts: pl.DataFrame, holdouts: References, config: GrowConfig) -> pl.Series:
    """Return which prompts are near-duplicates of a holdout's row."""
    texts = [text for _, frame in holdouts for text in frame["text"].to_list()]
    if not config.skip_held_out or not texts:
        return pl.Series([False] * prompts.height, dtype=pl.Boolean())
    return pl.Series(nearest_reference(prompts["text"].to_list(), texts, threshold=config.threshold) >= 0)


# ---------------------------------------------------------------------------------------------------- guards and dedup


@dataclass(frozen=True)
class _Stage:
    """What is still in the running: candidates, twins, twins that a person has to look at, rows about intent."""

    grown: pl.DataFrame
    twins: pl.DataFrame
    review: pl.DataFrame
    pairs: pl.DataFrame


def _twins(given: pl.DataFrame | None, most: int, config: GrowConfig, rng: np.random.Generator) -> pl.DataFrame:
    """The given twins, or so many of the embedded ones that they do not swamp what is grown of a few prompts."""
    if given is None:
        from crywolf.data.embedded.attacks import near_miss_twins

        given = _of_languages(near_miss_twins(), config)
        given = given[np.sort(rng.permutation(given.height)[:most])]
    frame = make_corpus(given, source=TWIN_SOURCE, label=BENIGN)
    return frame.with_columns(category=pl.lit("hard_negative")).unique("id", keep="first", maintain_order=True)


def _judge_twins(stage: _Stage, guard: Guard | None) -> _Stage:
    """Move twins that read like an attack to the review queue."""
    if guard is None:
        return stage
    judged = guard.check_twins(stage.twins)
    why = pl.format("twin_too_close: cosine {} to the nearest attack", pl.col("to_attack").round(3))
    queued = _queue(judged.dropped, why)
    return replace(stage, twins=judged.kept.select(list(SCHEMA)), review=pl.concat([stage.review, queued]))


def _fill_up(
    pool: pl.DataFrame,
    prompts: pl.DataFrame,
    guard: Guard | None,
    config: GrowConfig,
    drops: Counter[str],
    progress: Progress | None,
) -> tuple[pl.DataFrame, int]:
    """Choose samples, guard them, and choose others for those dropped, until every prompt is full or has no more.

    Only what is chosen is encoded, which is what a run spends most of its time on.

    Returns:
        The samples with their similarities, and how many candidates were left over.
    """
    if guard is None:
        chosen = _choose(pool, config)
        return chosen, pool.height - chosen.height
    pool = pool.with_row_index("row")
    passed: list[pl.DataFrame] = []
    while True:
        chosen = _choose(pool, config)
        new = chosen.join(pl.concat(passed), on="row", how="anti", maintain_order="left") if passed else chosen
        if passed and not new.height:
            break
        result = guard.check(new, prompts, progress=progress)
        drops.update(result.drops)
        passed.append(result.kept.select("row", "to_fp", "to_attack", "fp_to_attack"))
        pool = pool.join(result.dropped, on="row", how="anti", maintain_order="left")
    return chosen.join(pl.concat(passed), on="row", how="left", maintain_order="left"), pool.height - chosen.height


def _queue(rows: pl.DataFrame, why: pl.Expr) -> pl.DataFrame:
    """Return contract rows for the review queue, with the reason in extra.notes."""
    # Rebuilt field by field: a null struct would swallow the note.
    fields = [why.alias(name) if name == "notes" else pl.col("extra").struct.field(name) for name in EXTRA_FIELDS]
    return rows.with_columns(extra=pl.struct(fields)).select(list(SCHEMA))


def _references(
    prompts: pl.DataFrame, malicious: pl.DataFrame | None, against: References, holdouts: References
) -> list[tuple[str, pl.DataFrame]]:
    """Return what nothing may repeat, holdouts first: a leak is counted as a leak, whatever else it repeats."""
    attacks = [] if malicious is None else [(_MALICIOUS, malicious)]
    named = [*((_HOLDOUT + name, frame) for name, frame in holdouts), *attacks, *against, (_FPS, prompts)]
    return [(name, frame.select("id", "text").drop_nulls("text")) for name, frame in named]


def _deduplicate(stage: _Stage, references: References, config: GrowConfig, drops: Counter[str]) -> _Stage:
    """Drop what repeats a reference or something better: twins win over rewrites, rewrites over swaps and templates.

    Within a kind candidates go in by rank, so that a spare one doesn't push out another prompt's first.
    """
    order = stage.grown.sort("kind", "rank", maintain_order=True).with_row_index("row")
    entries = pl.concat(
        [
            pl.concat([stage.twins, stage.pairs]).select("text", id="id", row=pl.lit(None, dtype=pl.UInt32())),
            order.select("text", id=pl.format("{}", pl.col("row")), row="row"),
        ]
    )
    result = deduplicate(entries, against=references, threshold=config.threshold)
    reasons = result.dropped.with_columns(reason=pl.col("reason").str.replace("^" + _ALREADY + _HOLDOUT, _HOLDOUT))
    # A twin that repeats an attack is a matter of opinion, not of counting: a person decides.
    ours = pl.col("row").is_null() & pl.col("id").is_in(stage.twins["id"].implode())
    disputed = ours & (pl.col("reason") == _ALREADY + _MALICIOUS)
    drops.update(reasons.filter(~disputed)["reason"].to_list())
    review = stage.twins.filter(pl.col("id").is_in(reasons.filter(disputed)["id"].to_list()))
    grown = order.join(result.kept.drop_nulls("row").select("row"), on="row", how="semi", maintain_order="left")
    left = pl.col("id").is_in(result.kept.filter(pl.col("row").is_null())["id"].implode())
    queued = _queue(review, pl.lit("near-duplicate of a row of the malicious corpus"))
    queue = pl.concat([stage.review, queued])
    return _Stage(grown.drop("row"), stage.twins.filter(left), queue, stage.pairs.filter(left))


def _choose(kept: pl.DataFrame, config: GrowConfig) -> pl.DataFrame:
    """Return at most per_fp rows a prompt: each kind up to its quota, then more rewrites and swaps, then contexts."""
    kinds = {name: number for number, name in enumerate(KINDS)}
    paid = (pl.col("kind") == kinds["paraphrase"]).sum().over("origin_id").clip(0, max(config.per_fp // 3, 1))
    # What a language model was paid for takes the place of rewrites.
    limit = pl.col("quota") - pl.when(pl.col("kind") == kinds["rewrite"]).then(paid).otherwise(0)
    place = pl.int_range(pl.len()).over("origin_id", "kind")
    ranked = kept.sort("origin_id", "kind", "rank", maintain_order=True).with_columns(_place=place, _limit=limit)
    # Noise replaces rewrites rather than coming after them, or it would never be chosen where rewrites abound.
    tier = (
        pl.when((pl.col("kind") == kinds["noise"]) & (pl.col("_place") < pl.col("_limit")))
        .then(0)
        .when(pl.col("_place") < pl.col("_limit"))
        .then(1)
        .when(pl.col("kind").is_in([kinds[name] for name in _FILL_UP]))
        .then(2)
        .when(pl.col("kind") == kinds["context"])
        .then(3)
    )
    ranked = (
        ranked.with_columns(_tier=tier)
        .drop_nulls("_tier")
        .sort("origin_id", "_tier", "kind", "rank", maintain_order=True)
    )
    chosen = ranked.filter(pl.int_range(pl.len()).over("origin_id") < config.per_fp)
    return chosen.sort("origin_id", "kind", "rank", maintain_order=True).drop("_place", "_limit", "_tier")


def _weigh(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Join the rows and bring their mean weight to 1: how much all of them count is not for growing to say."""
    rows = pl.concat(parts)
    return rows.with_columns((pl.col("weight") / pl.col("weight").mean()).cast(SCHEMA["weight"]))


def _contract(chosen: pl.DataFrame, prompts: pl.DataFrame, own_weight: float) -> pl.DataFrame:
    """Return the chosen candidates as contract rows, in the order of their prompts."""
    order = prompts.select(origin_id="id", original_fp="text").with_row_index("_order")
    rows = chosen.join(order, on="origin_id", how="left").sort("_order", "kind", "rank", maintain_order=True)
    if not rows.height:
        return empty_corpus()
    weight = pl.when(pl.col("kind").is_in(_AUTHORED)).then(1.0).otherwise(own_weight)
    columns = rows.select(
        "text", "category", "subcategory", "origin_id", "how", weight=weight, extra=pl.struct("original_fp")
    )
    return make_corpus(columns, source=SOURCE, label=BENIGN)


def _operators(candidates: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """Return how many candidates of each kind were proposed and how many samples they became."""
    names = pl.DataFrame({"kind": range(len(KINDS)), "operator": KINDS}, schema_overrides={"kind": pl.Int8()})
    made = candidates.group_by("kind").agg(proposed=pl.len())
    kept = chosen.group_by("kind").agg(samples=pl.len())
    joined = names.join(made, on="kind", how="left").join(kept, on="kind", how="left").sort("kind")
    return joined.select("operator", pl.col("proposed", "samples").fill_null(0).cast(pl.Int64()))


def _diversity(frame: pl.DataFrame, prompts: pl.DataFrame, mean_cosine: float | None) -> Diversity:
    """Return how varied the rows are, and how many of them each prompt has."""
    # An attack that is quoted or in use is the origin of its row too, and no prompt.
    own = pl.col("origin_id").is_in(prompts["id"].implode()) & (pl.col("label") == BENIGN)
    origins = frame.select(pl.when(own).then("origin_id")).to_series()
    return diversity(frame["text"], origins, fps=prompts.height, mean_cosine=mean_cosine)


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    value = rows[column].mean() if column in rows.columns else None
    return float(value) if isinstance(value, float) else None
