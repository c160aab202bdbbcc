"""Which rows enter, which may be attacks, and which say the same twice: the rules of mining over a `Near` of arrays.

Each rule adds its line to the table: what it kept, what it dropped, why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from crywolf.data import SCHEMA

from .config import MineConfig
from .index import Mask, Rows, Vectors
from .near import ALONE, Near

# The rules by which a row enters, the first one that holds naming it.
ENTRY_RULES = ("fp", "fp_neighbour", "attack_neighbour", "nearest_attack")
REVIEW_COLUMNS: dict[str, pl.DataType] = {
    **SCHEMA,
    "reason": pl.String(),
    "score": pl.Float64(),
    "nearest_id": pl.String(),
    "nearest_text": pl.String(),
}
_COLUMNS = {"rule": pl.String(), "kept": pl.Int64(), "dropped": pl.Int64(), "why": pl.String()}
_BLOCK = 1024  # rows held against each other at once
_ROUNDING = 2e-3  # of a cosine in half precision
_KEPT_BLOCK = 16_384  # rows that stay, held against a block at once


class Table:
    """What each rule kept and dropped, and why, under construction."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, int, str]] = []

    def add(self, rule: str, kept: int, dropped: int, why: str) -> None:
        """Add a rule's line."""
        self._rows.append((rule, int(kept), int(dropped), why))

    def dropped(self, rule: str) -> int:
        """Return how many rows a rule dropped."""
        return sum(row[2] for row in self._rows if row[0] == rule)

    def frame(self) -> pl.DataFrame:
        """Return the lines as a frame: rule, kept, dropped, why."""
        return pl.DataFrame(self._rows, schema=_COLUMNS, orient="row")


def table_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return lines that were kept as plain values as a frame again: rule, kept, dropped, why."""
    return pl.DataFrame(list(rows), schema=_COLUMNS)


def _entries(near: Near, config: MineConfig) -> list[tuple[str, Mask]]:
    """Return each entry rule with the rows it lets in, in the order of ENTRY_RULES."""
    close = (near.attack >= config.min_similarity) & ~near.is_fp
    masks = (
        near.is_fp,
        (near.fp >= config.fp_similarity) & (near.fp >= near.own - config.benign_margin) & ~near.is_fp,
        close & near.proposed & (near.attack >= near.own - config.proposed_margin),
        close & (near.attack >= near.own - config.benign_margin),
    )
    return list(zip(ENTRY_RULES, masks, strict=True))


def enter(near: Near, config: MineConfig, table: Table) -> Rows:
    """Return the number of the rule by which each row enters, -1 for the easy rows that none lets in."""
    why = {
        "fp": "a false positive is hard by its own record",
        "fp_neighbour": f"one of the {config.fp_neighbours} benign rows nearest to an FP; dropped: cosine under "
        f"{config.fp_similarity:g} (fp_similarity), or under its own kind by {config.benign_margin:g} (benign_margin)",
        "attack_neighbour": f"one of the {config.neighbours} benign rows nearest to an attack; dropped: cosine under "
        f"{config.min_similarity:g} (min_similarity), or under its own kind by {config.proposed_margin:g} "
        "(proposed_margin)",
        "nearest_attack": f"nearest attack at {config.min_similarity:g} (min_similarity) or more; dropped: under its "
        f"own kind by {config.benign_margin:g} (benign_margin)",
    }
    dropped = {
        "fp_neighbour": near.fp >= 0,
        "attack_neighbour": near.proposed,
        "nearest_attack": (near.attack >= config.min_similarity) & ~near.is_fp & ~near.proposed,
    }
    by = np.full(len(near.attack), -1, dtype=np.int64)
    for number, (rule, mask) in enumerate(_entries(near, config)):
        fresh = mask & (by < 0)
        by[fresh] = number
        table.add(rule, fresh.sum(), (dropped[rule] & (by < 0)).sum() if rule in dropped else 0, why[rule])
    table.add("easy", (by >= 0).sum(), (by < 0).sum(), "no rule above lets it in")
    return by


@dataclass(frozen=True)
class Suspects:
    """Rows that entered but may be attacks, each with the first guard that holds it."""

    mask: Mask
    reasons: list[tuple[str, Mask]]

    def frame(self, pool: pl.DataFrame, near: Near, attacks: pl.DataFrame) -> pl.DataFrame:
        """Return them as review rows."""
        parts = []
        for reason, mask in self.reasons:
            rows = np.flatnonzero(mask)
            nearest = attacks[near.attack_row[rows]]
            parts.append(
                pool[rows].with_columns(
                    pl.lit(reason).alias("reason"),
                    pl.Series("score", near.attack[rows], dtype=pl.Float64),
                    nearest["id"].alias("nearest_id"),
                    nearest["text"].alias("nearest_text"),
                )
            )
        return pl.concat(parts).select(*REVIEW_COLUMNS)


def guard(near: Near, entered: Mask, config: MineConfig, table: Table) -> Suspects:
    """Return the entered rows that are as near to an attack as attacks are: false negatives of the labelling, maybe."""
    rules = (
        (
            "too_close_to_attack",
            near.attack >= config.guard_similarity,
            f"cosine to an attack >= {config.guard_similarity:g} (guard_similarity): to review",
        ),
        (
            "attack_without_kin",
            (near.attack >= config.guard_floor) & (near.attack_own < config.guard_floor - config.guard_margin),
            f"cosine >= {config.guard_floor:g} (guard_floor) to an attack that no other attack is like, the attack may "
            "be the one that is labelled wrong: to review",
        ),
        (
            "like_the_attacks_own_kind",
            (near.attack >= config.guard_floor) & (near.attack >= near.attack_own - config.guard_margin),
            f"cosine >= {config.guard_floor:g} (guard_floor) and within {config.guard_margin:g} (guard_margin) of that "
            "attack's own kind: to review",
        ),
        (
            "among_the_attacks",
            (near.attack >= near.own + config.foreign_margin)
            & (near.own > ALONE)
            & (near.attack >= config.min_similarity)
            & ~near.is_fp,
            f"nearer to an attack than to its own kind by {config.foreign_margin:g} (foreign_margin): to review",
        ),
    )
    suspect = np.zeros(len(entered), dtype=bool)
    reasons: list[tuple[str, Mask]] = []
    for rule, mask, why in rules:
        fresh = mask & entered & ~suspect
        suspect |= fresh
        reasons.append((rule, fresh))
        table.add(rule, (entered & ~suspect).sum(), fresh.sum(), why)
    return Suspects(suspect, reasons)


def diversify(near: Near, by: Rows, rows: Rows, config: MineConfig, table: Table) -> Rows:
    """Return the rows to keep, the hardest first: no two alike, few of one neighbourhood, at most the limit."""
    hardness = near.attack[rows] - near.own[rows]
    ranked = rows[np.lexsort((rows, -hardness, ~near.is_fp[rows]))]
    # Only rows with a near neighbour in the whole pool can be alike; most have none, and are compared with nothing. An
    # approximate index may miss one now and then, and so let a row in that is like another.
    crowded = near.nearest[ranked] > config.alike - _ROUNDING
    kept = ~crowded
    kept[crowded] = unlike(near.vectors, ranked[crowded], config.alike)
    distinct = ranked[kept]
    table.add(
        "alike", len(distinct), len(ranked) - len(distinct), f"cosine above {config.alike:g} (alike) to a harder row"
    )
    # Its neighbourhood is what brought a row in: the false positive, or else its nearest attack.
    by_fp = by[distinct] == ENTRY_RULES.index("fp_neighbour")
    anchors = pl.DataFrame({"anchor": np.where(by_fp, -1 - near.fp_row[distinct], near.attack_row[distinct])})
    place = anchors.select(pl.int_range(pl.len()).over("anchor", pl.Series(near.is_fp[distinct]))).to_series()
    fits = near.is_fp[distinct] | (place.to_numpy() < config.per_neighbourhood)
    spread = distinct[fits]
    table.add(
        "per_neighbourhood",
        len(spread),
        len(distinct) - len(spread),
        f"{config.per_neighbourhood} harder rows came in by the same attack or FP (per_neighbourhood)",
    )
    if config.limit is None:
        return spread
    table.add("limit", min(len(spread), config.limit), max(len(spread) - config.limit, 0), "beyond the limit, easier")
    return spread[: config.limit]


def unlike(vectors: Vectors, ranked: Rows, alike: float) -> Mask:
    """Return which of the ranked rows stay when each that is like an earlier one that stays goes; no pair is listed."""
    stays = np.zeros(len(ranked), dtype=bool)
    for start in range(0, len(ranked), _BLOCK):
        block = vectors[ranked[start : start + _BLOCK]]
        kept = ranked[:start][stays[:start]]
        free = np.ones(len(block), dtype=bool)
        for first in range(0, len(kept), _KEPT_BLOCK):
            free &= ~(block @ vectors[kept[first : first + _KEPT_BLOCK]].T > alike).any(axis=1)
        earlier = np.triu(block @ block.T > alike, 1) & free[:, None]
        # A loop, for it is sequential by nature: a row goes only for one that stayed.
        for row in np.flatnonzero(earlier.any(axis=0)).tolist():
            free[row] &= not (earlier[:row, row] & free[:row]).any()
        stays[start : start + len(block)] = free
    return stays
