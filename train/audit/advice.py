"""What to do about a shortcut: one sentence for each trait, with the command and option of this product that does it.

Takes a flagged trait with its cells, gives the sentence. The figures in it are this corpus's own.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BENIGN, MALICIOUS
from crywolf.data.embedded.contexts import all_contexts

from ..report.texts import plain
from .traits import Trait

_NAMED = 8
_WORD = {BENIGN: "benign", MALICIOUS: "malicious"}


def advise(trait: Trait, cells: pl.DataFrame, table: pl.DataFrame, malicious: NDArray[np.bool_]) -> str:
    """Return what to do about a flagged trait.

    Args:
        trait: the trait.
        cells: its cells.
        table: the traits of all rows.
        malicious: by row.
    """
    if trait.name in ("characters", "words", "line breaks"):
        said = _of_length(trait, table, malicious)
    elif trait.name in ("language", "main language or not", "script"):
        said = _of_language(trait, cells)
    else:
        said = _of_others(trait, cells)
    return said[:1].upper() + said[1:]


def _of_length(trait: Trait, table: pl.DataFrame, malicious: NDArray[np.bool_]) -> str:
    values = table[trait.numeric[0]].to_numpy()
    if trait.name == "line breaks":
        benign, attacks = 100 * float((values[~malicious] > 0).mean()), 100 * float((values[malicious] > 0).mean())
        medians = f"{benign:.1f}% of the benign rows and {attacks:.1f}% of the attacks have any"
    else:
        benign, attacks = float(np.median(values[~malicious])), float(np.median(values[malicious]))
        medians = f"the median is {benign:,.0f} in benign rows and {attacks:,.0f} in attacks"
    if attacks >= benign:
        return (
            f"{medians}: grow long benign prompts (`crywolf augment` with long prompts, instructions with pasted code, "
            "logs and documents) until both labels fill the same bands."
        )
    return (
        f"{medians}: add short attacks (`crywolf augment --label MALICIOUS` rewrites those there are), or leave out "
        "the benign rows longer than any attack."
    )


def _of_language(trait: Trait, cells: pl.DataFrame) -> str:
    lone = cells.filter(pl.col("side") == MALICIOUS)
    rows, benign = int(lone["malicious"].sum()), int(lone["benign"].sum())
    names = "another language than most" if trait.name == "main language or not" else _names(lone["cell"])
    if lone.height:
        return (
            f"{rows:,} attacks and {benign:,} benign rows are in {names}: grow benign prompts "
            f"{'in languages of these scripts' if trait.name == 'script' else 'in these'} "
            f"(`crywolf augment --languages`, which knows {', '.join(sorted(all_contexts()))}), or leave these attacks "
            "out until there are some."
        )
    lone = cells.filter(pl.col("side") == BENIGN)
    return (
        f"{int(lone['benign'].sum()):,} benign rows are in {_names(lone['cell'])} with hardly an attack: add "
        "attacks in these, or an attack in them will pass."
    )


def _of_others(trait: Trait, cells: pl.DataFrame) -> str:
    sentences = {
        "letter case": "write both labels in the same mix of cases: lower-case or capitalise a part of one label's "
        "rows before `crywolf train`.",
        "punctuation": "grow benign prompts that carry code, quotes and lists (`crywolf augment` with long prompts).",
        "digits": "grow benign prompts with numbers, logs and code, or attacks without (`crywolf augment`).",
        "symbols": "grow benign prompts with code and markup (`crywolf augment` with long prompts).",
        "last character": "add or take away final marks in a part of both labels before `crywolf train`.",
        "opening word": "grow benign prompts that open as attacks do (`crywolf augment --twins`).",
        "kind of opening": "grow benign prompts that open as attacks do: orders, role-play, talk to the assistant "
        "(`crywolf augment --twins`).",
        "all of these together": "a model needs to read nothing to get this far: deal with the traits above, train, "
        "and trust only sources held out whole (`data.holdout_sources` in crywolf.yaml).",
        "source": "hold whole sources out (`data.holdout_sources` in crywolf.yaml), add sources that have both labels, "
        "and lower the `weight` of the rows of large one-label sources.",
        "category": "keep the category from the model, and lower the `weight` of categories that only one label has.",
    }
    lone = cells.filter(pl.col("side").is_not_null()).head(3)
    shown = "; ".join(
        f"{plain(cell)!r}: {benign:,} benign, {attacks:,} malicious"
        for cell, benign, attacks in lone.select("cell", "benign", "malicious").iter_rows()
    )
    return f"{shown}: {sentences[trait.name]}" if shown else sentences[trait.name]


def _names(cells: pl.Series) -> str:
    names = [plain(name) for name in cells.head(_NAMED).to_list()]
    rest = len(cells) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest > 0 else "")
