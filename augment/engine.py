"""Grows false positives into training data: proposes samples, removes near-duplicates, guards, fills up to N each.

Takes the false positives and what the samples must stay clear of (attacks, training corpora, holdouts) as contract
frames and an `encode` callable; gives a contract frame, a review queue, and the account of what was dropped and why.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BENIGN, SCHEMA, BadInput, Encode, Progress, empty_corpus, make_corpus
from crywolf.data.embedded.lexicons import Lexicons, lexicons
from crywolf.data.embedded.templates import Template
from crywolf.data.schema import EXTRA_FIELDS

from .dedup import THRESHOLD, deduplicate, nearest_reference
from .diversity import Diversity, diversity
from .guards import MARGIN, TEMPLATE_FLOOR, TOPIC_FLOOR, TWIN_CEILING, Guard
from .operators.templates import TemplatePicker
from .propose import KINDS, Proposer, Quotas

SOURCE = "augmented"
TWIN_SOURCE = "curated"
_ALREADY = "duplicate_of:"
_HOLDOUT = "holdout:"
_MALICIOUS = "malicious"
_FPS = "fps"

References = Sequence[tuple[str, pl.DataFrame]]


@dataclass(frozen=True)
class GrowConfig:
    """How much to grow and how strictly to guard.

    `per_fp` samples a prompt at most, of which `template_share` may be filled templates, `swap_share` swaps and
    `noise_share` noisy copies; rewrites make the rest and fill up what the others lack. `surplus` is how many
    candidates are made for each sample wanted, so that drops can be made good. `skip_held_out` leaves out prompts that
    are near-duplicates of a holdout's row: their rewrites would teach the test.
    """

    per_fp: int = 15
    noise_share: float = 0.05
    template_share: float = 0.2
    swap_share: float = 0.2
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
        shares = (self.noise_share, self.template_share, self.swap_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise BadInput(f"noise, template and swap shares are {shares}; they must be positive and sum to 1 at most")
        if not 0 < self.threshold <= 1:
            raise BadInput(f"threshold is {self.threshold}; it must be above 0 and at most 1")


@dataclass(frozen=True)
class GrowResult:
    """What was grown, what a person has to look at, and the account of the rest.

    `drops` counts candidates by reason; candidates beyond `per_fp` are no drops and stand in `stats["surplus"]`:
    candidates = samples + surplus + review + all drops.
    """

    frame: pl.DataFrame
    review: pl.DataFrame  # twins that look like attacks; extra.notes says why
    drops: dict[str, int]
    stats: dict[str, int | float | None]
    operators: pl.DataFrame  # kind, proposed, dropped, kept
    notes: tuple[str, ...] = ()
    _diversity: list[Diversity] = field(default_factory=list, repr=False, compare=False)

    def composition(self) -> pl.DataFrame:
        """Return the rows by category and subcategory, the most frequent first, with their share."""
        counts = self.frame.group_by("category", "subcategory").agg(rows=pl.len())
        total = max(self.frame.height, 1)
        ordered = counts.sort(["rows", "category", "subcategory"], descending=[True, False, False], nulls_last=True)
        return ordered.with_columns(share=pl.col("rows") / total)

    def diversity(self) -> Diversity:
        """Return how varied the samples are; computed once."""
        if not self._diversity:
            cosine = self.stats.get("mean_cosine")
            found = diversity(
                self.frame["text"], self.frame["origin_id"], fps=int(self.stats["fps"] or 0), mean_cosine=cosine
            )
            self._diversity.append(found)
        return self._diversity[0]

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values: stats, composition, operators, drops, diversity, notes."""
        return {
            "stats": dict(self.stats),
            "composition": self.composition().to_dicts(),
            "operators": self.operators.to_dicts(),
            "drops": dict(self.drops),
            "diversity": self.diversity().as_dict(),
            "review": self.review.height,
            "notes": list(self.notes),
        }


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
    candidates = proposer.propose(prompts, rng, cosines=cosines, progress=progress)
    twin_rows = _twins(twins) if config.twins else empty_corpus()
    drops: Counter[str] = Counter()
    references = _references(prompts, malicious, against, holdouts)
    kept = _deduplicate(_Stage(candidates, twin_rows, empty_corpus()), references, config, drops)
    kept = _judge_twins(kept, guard)
    chosen, surplus = _fill_up(kept.grown, prompts, guard, config, drops, progress)

    stats: dict[str, int | float | None] = {
        "fps": prompts.height,
        "held_out_fps": int(held_out.sum()),
        "candidates": candidates.height + twin_rows.height,
        "samples": chosen.height + kept.twins.height,
        "twins": kept.twins.height,
        "surplus": surplus,
        "review": kept.review.height,
        "mean_cosine": _mean(chosen, "to_fp"),
        "mean_nearest_attack": _mean(chosen, "to_attack"),
    }
    return GrowResult(
        frame=pl.concat([_contract(chosen, prompts), kept.twins]),
        review=kept.review,
        drops=dict(sorted(drops.items())),
        stats=stats,
        operators=_operators(candidates, chosen),
        notes=_notes(stats, encode, malicious),
    )


def _proposer(config: GrowConfig, templates: Sequence[Template] | None, lexicon: Lexicons) -> Proposer:
    quotas = Quotas.of(config.per_fp, swap=config.swap_share, template=config.template_share, noise=config.noise_share)
    picker = TemplatePicker(templates, lexicon)
    return Proposer(
        quotas,
        picker,
        lexicon,
        surplus=config.surplus,
        noise_share=config.noise_share,
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
    """What is still in the running: candidates, twins, and twins that a person has to look at."""

    grown: pl.DataFrame
    twins: pl.DataFrame
    review: pl.DataFrame


def _twins(given: pl.DataFrame | None) -> pl.DataFrame:
    if given is None:
        from crywolf.data.embedded.attacks import near_miss_twins

        given = near_miss_twins()
    frame = make_corpus(given, source=TWIN_SOURCE, label=BENIGN)
    return frame.with_columns(category=pl.lit("hard_negative")).unique("id", keep="first", maintain_order=True)


def _judge_twins(stage: _Stage, guard: Guard | None) -> _Stage:
    """Move twins that read like an attack to the review queue."""
    if guard is None:
        return stage
    judged = guard.check_twins(stage.twins)
    why = pl.format("twin_too_close: cosine {} to the nearest attack", pl.col("to_attack").round(3))
    queued = _queue(judged.dropped, why)
    return _Stage(stage.grown, judged.kept.select(list(SCHEMA)), pl.concat([stage.review, queued]))


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
            stage.twins.select("text", id="id", row=pl.lit(None, dtype=pl.UInt32())),
            order.select("text", id=pl.format("{}", pl.col("row")), row="row"),
        ]
    )
    result = deduplicate(entries, against=references, threshold=config.threshold)
    reasons = result.dropped.with_columns(reason=pl.col("reason").str.replace("^" + _ALREADY + _HOLDOUT, _HOLDOUT))
    # A twin that repeats an attack is a matter of opinion, not of counting: a person decides.
    disputed = pl.col("row").is_null() & (pl.col("reason") == _ALREADY + _MALICIOUS)
    drops.update(reasons.filter(~disputed)["reason"].to_list())
    review = stage.twins.filter(pl.col("id").is_in(reasons.filter(disputed)["id"].to_list()))
    grown = order.join(result.kept.drop_nulls("row").select("row"), on="row", how="semi", maintain_order="left")
    twins = stage.twins.filter(pl.col("id").is_in(result.kept.filter(pl.col("row").is_null())["id"].to_list()))
    queued = _queue(review, pl.lit("near-duplicate of a row of the malicious corpus"))
    return _Stage(grown.drop("row"), twins, pl.concat([stage.review, queued]))


def _choose(kept: pl.DataFrame, config: GrowConfig) -> pl.DataFrame:
    """Return at most per_fp rows a prompt: each kind up to its quota, then more rewrites and swaps."""
    quotas = Quotas.of(config.per_fp, swap=config.swap_share, template=config.template_share, noise=config.noise_share)
    limit = pl.col("kind").replace_strict({kind: getattr(quotas, name) for kind, name in enumerate(KINDS)})
    capped = pl.col("kind") >= KINDS.index("template")
    place = pl.int_range(pl.len()).over("origin_id", "kind")
    ranked = kept.sort("origin_id", "kind", "rank", maintain_order=True).with_columns(_place=place)
    ranked = ranked.filter(~capped | (pl.col("_place") < limit))
    # Noise replaces rewrites rather than coming after them, or it would never be chosen where rewrites abound.
    tier = pl.when(pl.col("kind") == KINDS.index("noise")).then(0).when(pl.col("_place") < limit).then(1).otherwise(2)
    ranked = ranked.with_columns(_tier=tier).sort("origin_id", "_tier", "kind", "rank", maintain_order=True)
    chosen = ranked.filter(pl.int_range(pl.len()).over("origin_id") < config.per_fp)
    return chosen.sort("origin_id", "kind", "rank", maintain_order=True).drop("_place", "_tier")


def _contract(chosen: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Return the chosen candidates as contract rows, in the order of their prompts."""
    order = prompts.select(origin_id="id", original_fp="text").with_row_index("_order")
    rows = chosen.join(order, on="origin_id", how="left").sort("_order", "kind", "rank", maintain_order=True)
    if not rows.height:
        return empty_corpus()
    columns = rows.select("text", "category", "subcategory", "origin_id", "how", extra=pl.struct("original_fp"))
    return make_corpus(columns, source=SOURCE, label=BENIGN)


def _operators(candidates: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """Return how many candidates of each kind were proposed and how many samples they became."""
    names = pl.DataFrame({"kind": range(len(KINDS)), "operator": KINDS}, schema_overrides={"kind": pl.Int8()})
    made = candidates.group_by("kind").agg(proposed=pl.len())
    kept = chosen.group_by("kind").agg(samples=pl.len())
    joined = names.join(made, on="kind", how="left").join(kept, on="kind", how="left").sort("kind")
    return joined.select("operator", pl.col("proposed", "samples").fill_null(0).cast(pl.Int64()))


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    value = rows[column].mean() if column in rows.columns else None
    return float(value) if isinstance(value, float) else None
