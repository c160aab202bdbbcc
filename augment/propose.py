"""Proposes candidates for each false positive: its rewrites, swaps in them, filled templates, a few noisy copies.

Takes contract rows and shares; gives one table of candidates with their kind and their rank among the prompt's own,
which the engine then guards, deduplicates and fills up from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import Progress
from crywolf.data.embedded.lexicons import Lexicons

from .operators.noise import noise
from .operators.rewrite import rewrites
from .operators.swaps import swaps
from .operators.templates import TemplatePicker
from .operators.types import Grown

KINDS = ("rewrite", "swap", "template", "noise")
"""In the order of preference: of two near-duplicates the one of the earlier kind stays."""
TEMPLATE_SURPLUS = 2.0
"""Template candidates for each one wanted: more of them are dropped than of rewrites, mostly as off topic."""

_CANDIDATES = {
    "origin_id": pl.String(),
    "text": pl.String(),
    "how": pl.String(),
    "kind": pl.Int8(),
    "rank": pl.Int32(),
    "category": pl.String(),
    "subcategory": pl.String(),
}
_LAST = 1_000_000
_GROWN = {
    "programming": "legitimate_programming",
    "technical_docs": "legitimate_programming",
    "education": "legitimate_educational",
}

Row = tuple[str, str, str, int, int, str | None, str | None]


@dataclass(frozen=True)
class Quotas:
    """How many samples of each kind a prompt is to get; rewrites fill up what the others lack."""

    total: int
    rewrite: int
    swap: int
    template: int
    noise: int

    @classmethod
    def of(cls, per_fp: int, *, swap: float, template: float, noise: float) -> "Quotas":
        """Split `per_fp` by shares; noise is rounded up, since its share is kept over all prompts, not in each."""
        swaps_, templates_ = int(swap * per_fp), int(template * per_fp)
        noisy = int(np.ceil(noise * per_fp))
        return cls(per_fp, per_fp - swaps_ - templates_, swaps_, templates_, noisy)


@dataclass(frozen=True)
class Proposer:
    """Makes the candidates of many prompts."""

    quotas: Quotas
    picker: TemplatePicker
    lexicon: Lexicons
    surplus: float = 1.35
    noise_share: float = 0.05
    noise_operators: tuple[str, ...] = ("keyboard", "spelling", "reserved")
    template_floor: float = 0.0

    def propose(
        self,
        prompts: pl.DataFrame,
        rng: np.random.Generator,
        *,
        cosines: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Return all candidates: origin_id, text, how, kind, rank, category, subcategory.

        A Python loop over prompts, since each is parsed and rewritten on its own, with a generator of its own.

        Args:
            prompts: id, text and, if known, category.
            rng: seeds the prompts' own generators.
            cosines: prompts by templates (see `TemplatePicker.samples`); without it keywords alone choose templates.
            progress: told about prompts done.
        """
        base = int(rng.integers(1 << 62))
        rows: list[Row] = []
        lent: list[tuple[str, Grown]] = []
        category = pl.col("category") if "category" in prompts.columns else pl.lit(None, dtype=pl.String())
        for done, (id_, text, category_) in enumerate(prompts.select("id", "text", category).iter_rows(), 1):
            own = np.random.default_rng((base, _number(id_)))
            near = None if cosines is None else cosines[done - 1]
            rows += self._of_prompt(id_, text, category_, near, own, lent)
            if progress and (done % 100 == 0 or done == prompts.height):
                progress(done, prompts.height)
        rows += self._noisy(lent, np.random.default_rng((base, 0)))
        frame = pl.DataFrame(rows, schema=_CANDIDATES, orient="row")
        # The prompt itself and a text that its operators made twice are no candidates.
        own_text = prompts.select(origin_id="id", _own="text")
        frame = frame.join(own_text, on="origin_id", how="left", maintain_order="left")
        frame = frame.filter(pl.col("text") != pl.col("_own")).drop("_own")
        return frame.unique(["origin_id", "text"], keep="first", maintain_order=True)

    def _of_prompt(
        self,
        id_: str,
        text: str,
        category: str | None,
        near: NDArray[np.float32] | None,
        rng: np.random.Generator,
        lent: list[tuple[str, Grown]],
    ) -> list[Row]:
        quotas = self.quotas
        noisy = _round_by_chance(self.noise_share * quotas.total, rng)
        wanted = int(np.ceil((quotas.total - quotas.template) * self.surplus))
        main = rewrites(text, n=wanted, rng=rng, category=category, lexicons=self.lexicon)
        # The last rewrites lend themselves to noise: beside its own clean copy a noisy one is a near-duplicate.
        borrowed = [main.pop() for _ in range(min(noisy, len(main) // 2))]
        swapped = self._swaps(text, main, rng)
        count = int(np.ceil(quotas.template * TEMPLATE_SURPLUS))
        filled = self.picker.samples(text, n=count, rng=rng, category=category, cosines=near, floor=self.template_floor)
        home = self._home(text, category, near)
        lent += [(id_, _settle(grown, home)) for grown in borrowed]
        groups = ([_settle(grown, home) for grown in main], [_settle(grown, home) for grown in swapped], filled)
        return [_row(id_, grown, kind, rank) for kind, group in enumerate(groups) for rank, grown in enumerate(group)]

    def _swaps(self, text: str, main: Sequence[Grown], rng: np.random.Generator) -> list[Grown]:
        """Swap in the prompt and in its rewrites by turns; give up after two texts with nothing to swap."""
        wanted = int(np.ceil(self.quotas.swap * self.surplus))
        out: list[Grown] = []
        empty = 0
        for source in (text, *(grown.text for grown in main)):
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

    def _noisy(self, lent: Sequence[tuple[str, Grown]], rng: np.random.Generator) -> list[Row]:
        """Return noisy copies of the lent rewrites, made in one call: operators are dear to build."""
        texts = [grown.text for _, grown in lent]
        made = noise(texts, rng=rng, lexicons=self.lexicon, operators=self.noise_operators) if texts else []
        out = []
        for place, ((id_, source), noisy) in enumerate(zip(lent, made, strict=True)):
            if noisy.text == source.text:  # no word of it could be touched: the rewrite goes back to its own, last
                out.append(_row(id_, source, KINDS.index("rewrite"), _LAST))
            else:
                changed = replace(source, text=noisy.text, how=noisy.how, operator=noisy.operator)
                out.append(_row(id_, changed, KINDS.index("noise"), place))
        return out


def _settle(grown: Grown, home: tuple[str, str]) -> Grown:
    """File a rewrite under its prompt's category and subcategory; its operator stands in `how`."""
    return replace(grown, category=home[0], subcategory=home[1])


def _row(id_: str, grown: Grown, kind: int, rank: int) -> Row:
    return id_, grown.text, grown.how, kind, rank, grown.category, grown.subcategory


def _round_by_chance(value: float, rng: np.random.Generator) -> int:
    """Round so that the mean over many draws is `value`."""
    return int(value) + int(rng.random() < value % 1)


def _number(id_: str) -> int:
    """Return a number that stands for an id, whatever an id looks like."""
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "big")
