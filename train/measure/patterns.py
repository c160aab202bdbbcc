"""What flagged benign rows have in common, one property at a time: words, openings, length, language, shape.

Takes benign rows with their verdicts and gives, for each property that surely goes with being flagged, the rate of
flagged rows inside and outside it with counts and 95% intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from crywolf.augment.attribution import contrast

from .intervals import Estimate, Rate, difference_arrays

MIN_FLAGGED = 3
"""Flagged rows that a property must hold for before it is looked at."""
MOST_ORDINARY = 5000
"""Unflagged rows that words are compared with."""
_MOST_WORDS = 60
_WORD = r"[\p{L}\p{N}]+(?:['’_-][\p{L}\p{N}]+)*"
_OPENING_WORDS = (1, 2, 3)

SHAPES: tuple[tuple[str, str], ...] = (
    ("more than one line", r"\S\s*\n\s*\S"),
    ("holds a code block", r"```|~~~"),
    ("holds a link", r"(?i)\bhttps?://\S"),
    ("holds a quotation", r"[\"“«„][^\"”»“]{8,}[\"”»“]"),
    ("holds a long run of letters and digits", r"[A-Za-z0-9+/]{24,}"),
    ("holds a word in capitals", r"\b\p{Lu}{4,}\b"),
    ("holds an exclamation mark", r"[!！]"),
    ("ends with a question mark", r"[?？؟]\s*$"),
    ("holds a list", r"(?m)^\s*(?:[-*•]|\d+[.)])\s"),
    ("holds tags or a template's slots", r"<[/\w][^<>]*>|\{\{?\w[^{}]*\}"),
)
"""Properties of form: what they are called, and a regular expression in the syntax of Rust's regex."""
LENGTHS: tuple[tuple[str, pl.Expr], ...] = (
    ("no longer than 30 characters", pl.col("text").str.len_chars() <= 30),
    ("longer than 200 characters", pl.col("text").str.len_chars() > 200),
    ("longer than 500 characters", pl.col("text").str.len_chars() > 500),
    ("longer than 2,000 characters", pl.col("text").str.len_chars() > 2000),
)


@dataclass(frozen=True)
class Pattern:
    """A property that goes with being flagged.

    Attributes:
        name: for people: 'opens with "you are"', 'longer than 500 characters', 'not English'.
        kind: word, opening, length, language or shape.
        inside: flagged rows of those that have it.
        outside: flagged rows of those that do not.
        difference: inside minus outside, with the 95% interval of Newcombe (1998).
    """

    name: str
    kind: str
    inside: Rate
    outside: Rate
    difference: Estimate

    @property
    def share(self) -> Rate:
        """Of the flagged rows, those that have it."""
        return Rate(self.inside.k, self.inside.k + self.outside.k)

    @property
    def excess(self) -> float:
        """Flagged rows inside beyond what the rate outside would give: what there is to gain."""
        return self.inside.k - self.inside.n * self.outside.value

    @property
    def text(self) -> str:
        """For people, in a sentence."""
        return f"{self.name}: flagged {self.inside.text}, otherwise {self.outside.text}"

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.name,
            "kind": self.kind,
            "inside": self.inside.to_dict(),
            "outside": self.outside.to_dict(),
            "difference": self.difference.to_dict(),
            "share": self.share.to_dict(),
            "excess": self.excess,
        }


def find_patterns(rows: pl.DataFrame, rng: np.random.Generator, *, level: float = 0.05) -> tuple[Pattern, ...]:
    """The properties that surely go with being flagged, those with the most flagged rows too many (`excess`) first.

    Words come from log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008) of flagged against
    unflagged rows; then each property is counted over all rows. It is kept if its difference in rate excludes 0 at the
    level divided by the number of properties looked at (Bonferroni), as words chosen for standing out would otherwise
    prove themselves. Of properties that hold for the same rows one alone is kept: language before length, shape,
    opening and word. A property need not be the cause.

    Args:
        rows: benign rows, with the columns text, flagged and language.
        rng: draws the unflagged rows that words are compared with.
        level: chance of any false pattern.
    """
    rows = rows.with_row_index("row").with_columns(
        pl.col("text").str.to_lowercase().str.extract_all(_WORD).alias("words")
    )
    flagged = rows["flagged"].to_numpy()
    if not flagged.any() or flagged.all():
        return ()
    found, looks = _candidates(rows, rng)
    if not found:
        return ()
    has = np.stack([holds.to_numpy() for _, _, holds in found])
    n_in = has.sum(axis=1)
    k_in = (has & flagged).sum(axis=1)
    n_out, k_out = len(flagged) - n_in, int(flagged.sum()) - k_in
    value, low, high = difference_arrays(k_in, n_in, k_out, n_out)
    strict = NormalDist().inv_cdf(1.0 - level / (2.0 * max(looks, 1)))
    sure = difference_arrays(k_in, n_in, k_out, n_out, strict)[1] > 0
    kept: list[Pattern] = []
    seen: set[bytes] = set()
    for at in np.argsort(n_in * (k_out / n_out) - k_in, kind="stable"):
        same = np.packbits(has[at]).tobytes()
        if not sure[at] or same in seen:
            continue
        seen.add(same)
        kind, name, _ = found[at]
        inside, outside = Rate(int(k_in[at]), int(n_in[at])), Rate(int(k_out[at]), int(n_out[at]))
        kept.append(Pattern(name, kind, inside, outside, Estimate(float(value[at]), float(low[at]), float(high[at]))))
    return tuple(kept)


Candidate = tuple[str, str, pl.Series]
"""Kind, name, and for each row whether it has the property."""


def _candidates(rows: pl.DataFrame, rng: np.random.Generator) -> tuple[list[Candidate], int]:
    """The properties to be counted, and how many were looked at to find them."""
    english, known = pl.col("language") == "en", ~pl.col("language").is_in(["en", "und"])
    codes = rows.filter(known)["language"].unique().sort().to_list()
    simple = [("language", f"in language {code}", pl.col("language") == code) for code in codes]
    simple += [("language", "not English", known), ("language", "in English", english)]
    simple += [("length", name, holds) for name, holds in LENGTHS]
    simple += [("shape", name, pl.col("text").str.contains(pattern)) for name, pattern in SHAPES]
    found = [(kind, name, rows.select(holds.fill_null(value=False)).to_series()) for kind, name, holds in simple]
    found = [entry for entry in found if _enough(rows, entry[2])]
    openings, looked_at = _openings(rows)
    words, looked_up = _words(rows, rng)
    return [*found, *openings, *words], len(found) + looked_at + looked_up


def _enough(rows: pl.DataFrame, holds: pl.Series) -> bool:
    """Whether enough flagged rows have a property, and it says something: some row lacks it."""
    return int((holds & rows["flagged"]).sum()) >= MIN_FLAGGED and not holds.all()


def _openings(rows: pl.DataFrame) -> tuple[list[Candidate], int]:
    """The first one, two and three words that enough flagged rows share."""
    found: list[Candidate] = []
    for count in _OPENING_WORDS:
        first = pl.when(pl.col("words").list.len() >= count).then(pl.col("words").list.head(count).list.join(" "))
        opening = rows.select(first.alias("opening")).to_series()
        frequent = rows.select("flagged", opening).filter("flagged").drop_nulls()["opening"].value_counts()
        texts = frequent.filter(pl.col("count") >= MIN_FLAGGED)["opening"].sort().to_list()
        found += [("opening", f'opens with "{text}"', (opening == text).fill_null(value=False)) for text in texts]
    # The longest first: of openings that hold for the same rows it says the most.
    found = [entry for entry in reversed(found) if _enough(rows, entry[2])]
    return found, len(found)


def _words(rows: pl.DataFrame, rng: np.random.Generator) -> tuple[list[Candidate], int]:
    """The words that stand out most in flagged rows, and how many had enough flagged rows to be looked at."""
    flagged, ordinary = rows.filter("flagged")["text"], rows.filter(~pl.col("flagged"))["text"]
    standing = contrast(drawn(flagged, MOST_ORDINARY, rng), drawn(ordinary, MOST_ORDINARY, rng))
    standing = standing.filter(pl.col("fps") >= MIN_FLAGGED)
    chosen = standing.filter(pl.col("z") > 0).head(_MOST_WORDS)["word"].to_list()
    words = rows.select("row", pl.col("words").list.unique().alias("word")).explode("word")
    holding = words.filter(pl.col("word").is_in(chosen)).group_by("word").agg("row")
    where = dict(zip(holding["word"].to_list(), holding["row"].to_list(), strict=True))
    found: list[Candidate] = []
    for word in chosen:
        holds = np.zeros(rows.height, dtype=bool)
        holds[where.get(word, [])] = True
        found.append(("word", f'holds the word "{word}"', pl.Series(holds)))
    return [entry for entry in found if _enough(rows, entry[2])], standing.height


def drawn(texts: pl.Series, most: int, rng: np.random.Generator) -> Sequence[str]:
    """At most so many of the texts, drawn, in their order."""
    if len(texts) <= most:
        return texts.to_list()
    return texts.gather(np.sort(rng.permutation(len(texts))[:most])).to_list()
