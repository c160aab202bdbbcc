"""Rows that draw the border by intent, beside what is grown of the false positives.

Takes the attacks that may be used, the twins and how many rows are wanted; gives contract rows of both labels: attacks
quoted and in use, plain attacks, attacks in other words and disguises, harmless text in the same disguises. Benign rows
full of trigger words would otherwise teach a detector to let the plainest attacks pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from crywolf.data import empty_corpus, make_corpus
from crywolf.data.embedded.attacks import malicious_seeds
from crywolf.data.embedded.intent import LANGUAGES

from .operators.attacks import OPERATORS, grow_attacks
from .operators.intent import intent_pairs, quotable
from .operators.obfuscate import benign_obfuscations

_MOST_PAIRS, _MOST_GROWN = 4, 2
"""How often one attack is quoted and used, and grown from; more of one teaches little more."""
_PLAIN, _REWORDED, _DISGUISED = 0.3, 0.3, 0.2
"""Parts of the grown attacks: as they were written, in other words, carried or disguised; the rest is harmless text in
the same disguises."""
_ABROAD = ("reply", "native")
"""Operators that ask for another language or put an attack in one beside it."""
_ORDER = 200
"""A longer attack is no plain order."""


@dataclass(frozen=True)
class Wanted:
    """How many rows: attacks quoted and in use together, attacks grown, and the languages that frames may be in."""

    pairs: int
    grown: int
    languages: tuple[str, ...] | None = None


def border_rows(
    attacks: pl.DataFrame, twins: pl.DataFrame, wanted: Wanted, rng: np.random.Generator, *, source: str
) -> pl.DataFrame:
    """Return the rows; fewer than wanted if the attacks give no more.

    Args:
        attacks: contract rows; the embedded attacks among them serve the twins as the other side.
        twins: near-miss twins, each family of which gets as many attacks: what is benign only by its intent needs them.
        wanted: how many.
        rng: draws everything.
        source: the source of the rows.
    """
    if attacks.is_empty():
        return empty_corpus()
    seeds = attacks.filter(pl.col("id").is_in(malicious_seeds()["id"].implode()))
    # An attack beside one in another language names that one's id in `how`; it may be one that may not be used.
    barred = malicious_seeds().filter(~pl.col("id").is_in(seeds["id"].implode()))["id"].to_list()
    grown = min(wanted.grown, _MOST_GROWN * attacks.height)
    counterparts = _counterparts(twins, seeds, rng)
    languages = [code for code in LANGUAGES if code in (wanted.languages or LANGUAGES)] or ["en"]
    parts = [
        counterparts,
        intent_pairs(attacks, min(wanted.pairs // 2, _MOST_PAIRS * attacks.height), rng, languages=languages),
        _plain(seeds, counterparts, round(_PLAIN * grown), rng),
        _reworded(attacks, round(_REWORDED * grown), rng),
        _without(_disguised(attacks, round(_DISGUISED * grown), wanted.languages, rng), barred),
        benign_obfuscations(grown - round((_PLAIN + _REWORDED + _DISGUISED) * grown), rng),
    ]
    rows = pl.concat([make_corpus(part) for part in parts])
    return make_corpus(rows, source=source).unique("id", keep="first", maintain_order=True)


def _counterparts(twins: pl.DataFrame, seeds: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """As many embedded attacks of each family as there are twins of it."""
    wanted = twins.group_by("subcategory").agg(wanted=pl.len())
    drawn = seeds[rng.permutation(seeds.height)].join(wanted, on="subcategory", how="inner", maintain_order="left")
    kept = drawn.filter(pl.int_range(pl.len()).over("subcategory") < pl.col("wanted")).drop("wanted")
    return kept.with_columns(how=pl.concat_str(pl.lit("counterpart:"), "subcategory"))


def _plain(seeds: pl.DataFrame, taken: pl.DataFrame, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """Embedded attacks as they are, of all families alike."""
    left = seeds.filter(~pl.col("id").is_in(taken["id"].implode()))
    shuffled = left[rng.permutation(left.height)]
    in_turn = shuffled.with_columns(_turn=pl.int_range(pl.len()).over("subcategory")).sort("_turn", maintain_order=True)
    return in_turn.drop("_turn").head(n).with_columns(how=pl.concat_str(pl.lit("plain:"), "subcategory"))


def _reworded(attacks: pl.DataFrame, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """Plain orders in other words: the same verbs and nouns stand in harmless contexts among the benign rows."""
    orders = quotable(attacks, max_length=_ORDER)
    drawn = orders[rng.permutation(orders.height)]
    return grow_attacks(drawn, _MOST_GROWN, rng, operators=("paraphrase",)).head(n)


def _disguised(
    attacks: pl.DataFrame, n: int, languages: tuple[str, ...] | None, rng: np.random.Generator
) -> pl.DataFrame:
    """Attacks carried, disguised, or beside another language, where languages are not restricted."""
    drawn = attacks[np.sort(rng.permutation(attacks.height)[: max(n, 1)])]
    operators = OPERATORS if languages is None else [name for name in OPERATORS if name not in _ABROAD]
    return grow_attacks(drawn, 1, rng, operators=operators).head(n)


def _without(rows: pl.DataFrame, barred: Sequence[str]) -> pl.DataFrame:
    """Rows whose `how` names none of the ids."""
    return rows.filter(~pl.col("how").str.contains_any(list(barred))) if barred else rows
