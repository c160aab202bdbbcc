"""Proposes candidates for each false positive: rewrites, swaps, templates, noise, contexts, long prompts, tasks.

Takes contract rows, shares, and what the detector reacts to in each prompt; gives one table of candidates with their
kind and their rank among the prompt's own, which the engine then guards, deduplicates and fills up from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress
from crywolf.data.embedded.lexicons import Lexicons
from crywolf.data.language import identify, language_of

from .operators.contexts import ContextPicker
from .operators.documents import DocumentPicker, TaskPicker
from .operators.noise import noise
from .operators.parse import is_english
from .operators.rewrite import rewrites
from .operators.swaps import swaps
from .operators.templates import TemplatePicker
from .operators.types import Grown

KINDS = ("rewrite", "swap", "template", "noise", "paraphrase", "context", "foreign", "document", "task")
"""In the order of preference: of two near-duplicates the one of the earlier kind stays.

`paraphrase` comes from a language model, where one is asked; `context` are trigger words in harmless sentences of the
prompt's own language, `foreign` the same in others, `document` long prompts, `task` everyday orders to a model.
"""
AUTHORED = frozenset({"context", "foreign", "document", "task"})
"""Kinds that are written by hand and not made of the prompt: their topic need not be the prompt's."""
TEMPLATE_SURPLUS = 2.0
"""Template candidates for each one wanted: more of them are dropped than of rewrites, mostly as off topic."""

_CANDIDATES = {
    "origin_id": pl.String(),
    "text": pl.String(),
    "how": pl.String(),
    "kind": pl.Int8(),
    "rank": pl.Int32(),
    "quota": pl.Int32(),
    "category": pl.String(),
    "subcategory": pl.String(),
}
_LAST = 1_000_000
_OWN_LANGUAGE = 0.7
"""How often a long prompt is in the language of the false positive."""
_GROWN = {
    "programming": "legitimate_programming",
    "technical_docs": "legitimate_programming",
    "education": "legitimate_educational",
}

Row = tuple[str, str, str, int, int, int, str | None, str | None]


@dataclass(frozen=True)
class Shares:
    """The shares of a prompt's samples by kind; rewrites make the rest and fill up what the others lack."""

    swap: float = 0.05
    template: float = 0.06
    noise: float = 0.05
    context: float = 0.13
    foreign: float = 0.05
    document: float = 0.07
    task: float = 0.08

    def __post_init__(self) -> None:
        values = vars(self)
        if min(values.values()) < 0 or sum(values.values()) > 1:
            raise BadInput(f"the shares {values} must be positive and sum to 1 at most")


@dataclass(frozen=True)
class Quotas:
    """How many samples of each kind a prompt is to get at most; fractions are rounded by chance, prompt by prompt."""

    total: int
    of: Mapping[str, int]

    @classmethod
    def draw(cls, per_fp: int, shares: Shares, rng: np.random.Generator) -> "Quotas":
        """Draw a prompt's quotas, so that the shares hold over all prompts."""
        counts = {name: _round_by_chance(share * per_fp, rng) for name, share in vars(shares).items()}
        while sum(counts.values()) > per_fp:  # rounding may ask for one too many
            largest = max(counts, key=lambda name: (counts[name], name))
            counts[largest] -= 1
        return cls(per_fp, {"rewrite": per_fp - sum(counts.values()), **counts})


@dataclass(frozen=True)
class Proposer:
    """Makes the candidates of many prompts."""

    per_fp: int
    shares: Shares
    picker: TemplatePicker
    lexicon: Lexicons
    contexts: ContextPicker
    documents: DocumentPicker
    tasks: TaskPicker
    languages: tuple[str, ...]
    surplus: float = 1.35
    noise_operators: tuple[str, ...] = ("keyboard", "spelling", "reserved")
    template_floor: float = 0.0

    def propose(
        self,
        prompts: pl.DataFrame,
        rng: np.random.Generator,
        *,
        cosines: NDArray[np.float32] | None = None,
        triggers: Sequence[Mapping[str, float]] | None = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Return all candidates: origin_id, text, how, kind, rank, quota, category, subcategory.

        A Python loop over prompts, since each is parsed and rewritten on its own, with a generator of its own.

        Args:
            prompts: id, text and, if known, category.
            rng: seeds the prompts' own generators.
            cosines: prompts by templates (see `TemplatePicker.samples`); without it keywords alone choose templates.
            triggers: for each prompt, how much each trigger word matters (see `attribution`).
            progress: told about prompts done.
        """
        base = int(rng.integers(1 << 62))
        rows: list[Row] = []
        lent: list[tuple[_Prompt, Grown]] = []
        category = pl.col("category") if "category" in prompts.columns else pl.lit(None, dtype=pl.String())
        for done, (id_, text, category_) in enumerate(prompts.select("id", "text", category).iter_rows(), 1):
            own = np.random.default_rng((base, _number(id_)))
            prompt = _Prompt(
                id_,
                text,
                category_,
                None if cosines is None else cosines[done - 1],
                {} if triggers is None else triggers[done - 1],
                language_of(text, tuple(self.contexts.languages)),
                identify(text),
                Quotas.draw(self.per_fp, self.shares, own),
            )
            rows += self._of_prompt(prompt, own, lent)
            if progress and (done % 100 == 0 or done == prompts.height):
                progress(done, prompts.height)
        rows += self._noisy(lent, np.random.default_rng((base, 0)))
        frame = pl.DataFrame(rows, schema=_CANDIDATES, orient="row")
        # The prompt itself and a text that its operators made twice are no candidates.
        own_text = prompts.select(origin_id="id", _own="text")
        frame = frame.join(own_text, on="origin_id", how="left", maintain_order="left")
        frame = frame.filter(pl.col("text") != pl.col("_own")).drop("_own")
        return frame.unique(["origin_id", "text"], keep="first", maintain_order=True)

    def _of_prompt(self, prompt: "_Prompt", rng: np.random.Generator, lent: list[tuple["_Prompt", Grown]]) -> list[Row]:
        quotas = prompt.quotas.of
        wanted = int(np.ceil((prompt.quotas.total - quotas["template"]) * self.surplus))
        main = rewrites(
            prompt.text, n=wanted, rng=rng, category=prompt.category, lexicons=self.lexicon, language=prompt.written_in
        )
        # The last rewrites lend themselves to noise: beside its own clean copy a noisy one is a near-duplicate.
        borrowed = [main.pop() for _ in range(min(quotas["noise"], len(main) // 2))]
        home = self._home(prompt.text, prompt.category, prompt.near)
        groups = {
            "rewrite": [_settle(grown, home) for grown in main],
            "swap": [_settle(grown, home) for grown in self._swaps(prompt, main, rng)],
            "template": self.picker.samples(
                prompt.text,
                n=int(np.ceil(quotas["template"] * TEMPLATE_SURPLUS)),
                rng=rng,
                category=prompt.category,
                cosines=prompt.near,
                floor=self.template_floor,
            ),
            "context": self._contexts(prompt, wanted - len(main), rng),
            "foreign": self._foreign(prompt, rng),
            "document": self._long(prompt, rng),
            "task": self._tasks(prompt, rng),
        }
        lent += [(prompt, _settle(grown, home)) for grown in borrowed]
        return [_row(prompt, grown, kind, rank) for kind, group in groups.items() for rank, grown in enumerate(group)]

    def _contexts(self, prompt: "_Prompt", lacking: int, rng: np.random.Generator) -> list[Grown]:
        """Trigger words in the prompt's own language; more of them where the prompt could not be rewritten enough."""
        wanted = prompt.quotas.of["context"]
        if not wanted:
            return []
        code = prompt.language if prompt.language in self.languages else self.languages[0]
        return self.contexts.samples(_with_surplus(wanted) + max(lacking, 0), rng, language=code, words=prompt.triggers)

    def _foreign(self, prompt: "_Prompt", rng: np.random.Generator) -> list[Grown]:
        others = [code for code in self.languages if code != prompt.language]
        if not others:
            return []
        wanted = _with_surplus(prompt.quotas.of["foreign"])
        drawn = [others[int(rng.integers(len(others)))] for _ in range(wanted)]
        return [grown for code in drawn for grown in self.contexts.samples(1, rng, language=code)]

    def _long(self, prompt: "_Prompt", rng: np.random.Generator) -> list[Grown]:
        """Long prompts, mostly of the prompt's own language where there are documents in it."""
        shelves = [code for code in self.documents.shelves if code in self.languages]
        out: list[Grown] = []
        for _ in range(_with_surplus(prompt.quotas.of["document"])):
            own = prompt.language in shelves and rng.random() < _OWN_LANGUAGE
            if own or shelves:
                code = prompt.language if own else shelves[int(rng.integers(len(shelves)))]
                short = [grown.text for grown in self.contexts.samples(12, rng, language=code, remember=False)]
                out += self.documents.samples(1, rng, language=code, short=short)
        return out

    def _tasks(self, prompt: "_Prompt", rng: np.random.Generator) -> list[Grown]:
        """Everyday orders to a model, mostly in the prompt's own language."""
        shelves = [code for code in self.tasks.shelves if code in self.languages]
        own = [prompt.language] if prompt.language in shelves else shelves
        if not shelves:
            return []
        drawn = [
            own if rng.random() < _OWN_LANGUAGE else shelves for _ in range(_with_surplus(prompt.quotas.of["task"]))
        ]
        return [
            grown
            for codes in drawn
            for grown in self.tasks.samples(1, rng, language=codes[int(rng.integers(len(codes)))])
        ]

    def _swaps(self, prompt: "_Prompt", main: Sequence[Grown], rng: np.random.Generator) -> list[Grown]:
        """Swap in the prompt and in its rewrites by turns; give up after two texts with nothing to swap."""
        wanted = int(np.ceil(prompt.quotas.of["swap"] * self.surplus))
        if not is_english(prompt.text, prompt.written_in):
            return []  # the mentions known are English
        out: list[Grown] = []
        empty = 0
        for source in (prompt.text, *(grown.text for grown in main)):
            if len(out) >= wanted or empty == 2:
                break
            found = swaps(source, n=1, rng=rng, lexicons=self.lexicon)
            empty += not found
            out += found
        return out

    def _home(self, text: str, category: str | None, near: NDArray[np.float32] | None) -> tuple[str, str]:
        """Return the grown category and the subcategory of a prompt's own rewrites."""
        grown = _GROWN.get(category, "generic_variation") if category else None
        group = self.picker.home(text, grown, category=category, cosines=near)
        return grown or (group.category if group else "generic_variation"), group.subcategory if group else "other"

    def _noisy(self, lent: Sequence[tuple["_Prompt", Grown]], rng: np.random.Generator) -> list[Row]:
        """Return noisy copies of the lent rewrites, made in one call: operators are dear to build."""
        texts = [grown.text for _, grown in lent]
        languages = [prompt.written_in for prompt, _ in lent]
        made = (
            noise(texts, rng=rng, lexicons=self.lexicon, operators=self.noise_operators, language=languages)
            if texts
            else []
        )
        out = []
        for place, ((prompt, source), noisy) in enumerate(zip(lent, made, strict=True)):
            if noisy.text == source.text:  # no word of it could be touched: the rewrite goes back to its own, last
                out.append(_row(prompt, source, "rewrite", _LAST))
            else:
                changed = replace(source, text=noisy.text, how=noisy.how, operator=noisy.operator)
                out.append(_row(prompt, changed, "noise", place))
        return out


@dataclass(frozen=True)
class _Prompt:
    """One false positive with all that its candidates depend on."""

    id: str
    text: str
    category: str | None
    near: NDArray[np.float32] | None
    triggers: Mapping[str, float]
    language: str  # of those that there are contexts in
    written_in: str  # of all that are known, "und" where nothing tells
    quotas: Quotas


def _settle(grown: Grown, home: tuple[str, str]) -> Grown:
    """File a rewrite under its prompt's category and subcategory; its operator stands in `how`."""
    return replace(grown, category=home[0], subcategory=home[1])


def _row(prompt: _Prompt, grown: Grown, kind: str, rank: int) -> Row:
    quota = prompt.quotas.of.get(kind, 0)
    return prompt.id, grown.text, grown.how, KINDS.index(kind), rank, quota, grown.category, grown.subcategory


def paraphrase_rows(paraphrases: pl.DataFrame, prompts: pl.DataFrame, per_fp: int) -> pl.DataFrame:
    """Return paraphrases (origin_id, text, how) as candidates of their prompts; a third of the samples at most.

    Those of prompts that are not grown from are left out.
    """
    known = prompts.select(origin_id="id", _category="category")
    rows = paraphrases.join(known, on="origin_id", how="inner", maintain_order="left")
    category = pl.col("_category").replace_strict(_GROWN, default="generic_variation", return_dtype=pl.String())
    return rows.select(
        "origin_id",
        "text",
        "how",
        kind=pl.lit(KINDS.index("paraphrase"), pl.Int8()),
        rank=pl.int_range(pl.len(), dtype=pl.Int32()).over("origin_id"),
        quota=pl.lit(max(per_fp // 3, 1), pl.Int32()),
        category=category,
        subcategory=pl.lit("paraphrase"),
    )


def _with_surplus(wanted: int) -> int:
    """Return how many hand-written candidates to draw for those wanted: hardly one is dropped."""
    return wanted + (wanted + 3) // 4


def _round_by_chance(value: float, rng: np.random.Generator) -> int:
    """Round so that the mean over many draws is `value`."""
    return int(value) + int(rng.random() < value % 1)


def _number(id_: str) -> int:
    """Return a number that stands for an id, whatever an id looks like."""
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "big")
