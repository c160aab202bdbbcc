"""What a detector reacts to in its false positives: trigger words and openings, by group of false positives.

Takes false positives and a `score` callable (any detector: it is only asked, never opened) and gives for each word how
often leaving it out turns the verdict. Without a detector the words that stand out against ordinary benign text take
its place. `explain` groups the prompts and says which words trouble each group.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Encode, Progress

Score = Callable[[Sequence[str]], NDArray[np.float64]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_WORDS = 48
"""Words of a prompt that are left out one at a time; of a longer one, as many drawn by chance."""
OPENING = 3
"""Words of an opening: "how do i", "write a function"."""
_BLOCK = 4096
_LOGIT_CLIP = 1e-6
_PER_GROUP = 25
_MOST_GROUPS = 24
_PRIOR = 500.0
_WORD = re.compile(r"[^\W_]+(?:['’_-][^\W_]+)*")
_WORDS_SCHEMA = {
    "word": pl.String(),
    "fps": pl.Int64(),
    "turned": pl.Int64(),
    "drop": pl.Float64(),
}


def occlusion(
    texts: Sequence[str],
    score: Score,
    *,
    threshold: float,
    rng: np.random.Generator,
    most_words: int = MOST_WORDS,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Leave out each word of each text, and its opening, and see what the score does (Zeiler and Fergus 2014).

    Args:
        texts: prompts that the detector flags.
        score: texts to P(malicious), (n,).
        threshold: the verdict is "malicious" from here up.
        rng: draws the words of prompts longer than `most_words`.
        most_words: see `MOST_WORDS`.
        progress: told about texts scored.

    Returns:
        One row a left-out piece: `row` (position in `texts`), `piece` (lower-cased), `opening` (whether it is the first
        words of the text), `drop` (fall of the log-odds), `turned` (whether the verdict was malicious and is no more).
    """
    rows: list[tuple[int, str, bool]] = []
    variants: list[str] = []
    for row, text in enumerate(texts):
        for piece, opening, rest in _without(text, most_words, rng):
            rows.append((row, piece, opening))
            variants.append(rest)
    own = _scored(score, list(texts), None)
    left = _scored(score, variants, progress)
    at = np.array([row for row, _, _ in rows], dtype=np.int64)
    return pl.DataFrame(
        rows, schema={"row": pl.Int64(), "piece": pl.String(), "opening": pl.Boolean()}, orient="row"
    ).with_columns(
        drop=pl.Series(_logit(own[at]) - _logit(left)),
        turned=pl.Series((own[at] >= threshold) & (left < threshold)),
    )


def _without(text: str, most: int, rng: np.random.Generator) -> list[tuple[str, bool, str]]:
    """Return (piece, whether it is the opening, the text without it) for the pieces of a text."""
    spans = [match.span() for match in _WORD.finditer(text)]
    chosen = range(len(spans)) if len(spans) <= most else np.sort(rng.permutation(len(spans))[:most])
    out = [(text[a:b].lower(), False, _cut(text, a, b)) for a, b in (spans[i] for i in chosen)]
    if len(spans) > OPENING:
        end = spans[OPENING - 1][1]
        out.append((" ".join(text[a:b].lower() for a, b in spans[:OPENING]), True, _cut(text, 0, end)))
    return out


def _cut(text: str, start: int, end: int) -> str:
    before, after = text[:start], text[end:]
    return (before + after.lstrip(" ") if not before or before.endswith((" ", "\n")) else before + after).strip() or " "


def _scored(score: Score, texts: list[str], progress: Progress | None) -> Floats:
    out = np.empty(len(texts))
    for start in range(0, len(texts), _BLOCK):
        stop = min(start + _BLOCK, len(texts))
        out[start:stop] = score(texts[start:stop])
        if progress:
            progress(stop, len(texts))
    if not np.isfinite(out).all():
        raise BadInput("the detector gave scores that are not finite numbers; its triggers cannot be learned")
    return out


def _logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, _LOGIT_CLIP, 1 - _LOGIT_CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def contrast(texts: Sequence[str], ordinary: Sequence[str]) -> pl.DataFrame:
    """Return the words that stand out in `texts` against ordinary prompts, without asking any detector.

    Log-odds ratios with an informative Dirichlet prior, as z-scores (Monroe, Colaresi and Quinn 2008), over the number
    of prompts that hold a word.

    Returns:
        `word`, `fps` (how many of `texts` hold it), `z`, the largest first.
    """
    return _contrast(_holding(texts), _holding(ordinary))


def _contrast(ours: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    joined = ours.join(theirs, on="word", how="full", coalesce=True, suffix="_other").fill_null(0)
    mine, other = joined["fps"].to_numpy().astype(float), joined["fps_other"].to_numpy().astype(float)
    prior = (mine + other) / max((mine + other).sum(), 1.0) * _PRIOR
    n, m, total = mine.sum(), other.sum(), prior.sum()
    left = np.log((mine + prior) / np.maximum(n + total - mine - prior, 1e-9))
    right = np.log((other + prior) / np.maximum(m + total - other - prior, 1e-9))
    z = (left - right) / np.sqrt(1 / (mine + prior) + 1 / (other + prior))
    found = joined.select("word", "fps").with_columns(z=pl.Series(z)).filter(pl.col("fps") > 0)
    return found.sort(["z", "word"], descending=[True, False])


def _holding(texts: Sequence[str]) -> pl.DataFrame:
    """Return how many of the texts hold each word."""
    rows = [(row, word) for row, text in enumerate(texts) for word in {m[0].lower() for m in _WORD.finditer(text)}]
    frame = pl.DataFrame(rows, schema={"row": pl.Int64(), "word": pl.String()}, orient="row")
    return frame.group_by("word").agg(fps=pl.len().cast(pl.Int64())).sort("word")


# ------------------------------------------------------------------------------------------------------------- groups


@dataclass(frozen=True)
class Group:
    """False positives that are alike.

    Attributes:
        number: 0 for the largest group.
        rows: positions of its prompts, the most typical first.
        words: word, fps (prompts of the group that hold it), turned (in how many the verdict turned without it), drop
            (mean fall of the log-odds), the most telling first.
        openings: the same for the first words of the prompts.
    """

    number: int
    rows: Ints
    words: pl.DataFrame
    openings: pl.DataFrame

    def weights(self, most: int = 40) -> dict[str, float]:
        """Return how much each trigger word matters: prompts turned, with a part of those it only pushed."""
        top = self.words.head(most)
        values = top["turned"].to_numpy() + 0.25 * top["fps"].to_numpy() * np.maximum(top["drop"].to_numpy(), 0.0)
        return {word: float(value) for word, value in zip(top["word"], values, strict=True) if value > 0}


@dataclass(frozen=True)
class Explanation:
    """The groups of a set of false positives and what the detector reacts to in each.

    `method` is "occlusion" where a detector was asked, "contrast" where words were only compared with ordinary text,
    and "none" where neither could be had; then words carry counts alone.
    """

    groups: tuple[Group, ...]
    labels: Ints  # the group of each prompt
    method: str
    looked_at: int = 0
    notes: tuple[str, ...] = field(default=())

    def as_dicts(self, texts: Sequence[str], *, examples: int = 3, words: int = 12) -> list[dict[str, Any]]:
        """Return the groups as plain values, with examples of their prompts."""
        return [
            {
                "group": group.number,
                "size": len(group.rows),
                "triggers": group.words.head(words).to_dicts(),
                "openings": group.openings.head(5).to_dicts(),
                "examples": [texts[row] for row in group.rows[:examples]],
            }
            for group in self.groups
        ]


def explain(
    texts: Sequence[str],
    *,
    rng: np.random.Generator,
    encode: Encode | None = None,
    score: Score | None = None,
    threshold: float = 0.5,
    ordinary: Sequence[str] = (),
    most: int = 2_000,
    progress: Progress | None = None,
) -> Explanation:
    """Group false positives and find what the detector reacts to in each group.

    Args:
        texts: the false positives.
        rng: draws the prompts that the detector is asked about, and the words of long ones.
        encode: texts to unit vectors, for the groups; without it all prompts are one group.
        score: the detector; without it `ordinary` is compared with.
        threshold: the detector's own.
        ordinary: benign prompts, for the comparison.
        most: at most this many prompts are taken to the detector, drawn evenly over the groups.
        progress: told about texts scored.
    """
    if not len(texts):
        return Explanation((), np.empty(0, dtype=np.int64), "none")
    labels, order = _group(texts, encode, rng)
    numbers = range(int(labels.max()) + 1)
    members = [order[labels[order] == number] for number in numbers]
    if score is None:
        method = "contrast" if len(ordinary) else "none"
        # Counted once for all groups: the ordinary prompts are by far the most of the words.
        theirs = _holding(ordinary) if len(ordinary) else None
        groups = [_by_contrast(number, rows, texts, theirs) for number, rows in enumerate(members)]
        return Explanation(tuple(groups), labels, method)
    share = min(1.0, most / len(texts))
    asked = [np.sort(rng.permutation(rows)[: max(int(np.ceil(share * len(rows))), 1)]) for rows in members]
    at = np.concatenate(asked)
    pieces = occlusion([texts[i] for i in at], score, threshold=threshold, rng=rng, progress=progress)
    pieces = pieces.with_columns(group=pl.Series(labels[at])[pieces["row"]])
    groups = [
        _by_occlusion(number, rows, pieces.filter(pl.col("group") == number)) for number, rows in enumerate(members)
    ]
    flagged = "" if not pieces.height else _unflagged(pieces, len(at))
    return Explanation(tuple(groups), labels, "occlusion", len(at), (flagged,) if flagged else ())


def _unflagged(pieces: pl.DataFrame, asked: int) -> str:
    turned = pieces.filter(pl.col("turned"))["row"].n_unique()
    if turned >= 0.1 * asked:
        return ""
    return (
        f"leaving out one word turned the verdict of only {turned:,} of {asked:,} prompts: the detector reacts to "
        "whole prompts, or these are not its false positives at this threshold"
    )


def _group(texts: Sequence[str], encode: Encode | None, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the group of each text, the largest group first, and all rows, the most typical of their group first."""
    count = int(np.clip(len(texts) // _PER_GROUP, 1, _MOST_GROUPS))
    if encode is None or count == 1:
        return np.zeros(len(texts), dtype=np.int64), np.arange(len(texts), dtype=np.int64)
    from sklearn.cluster import KMeans

    vectors = np.asarray(encode(list(texts)), dtype=np.float32)
    model = KMeans(count, n_init=4, random_state=int(rng.integers(1 << 31))).fit(vectors)
    sizes = np.bincount(model.labels_, minlength=count)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
    far = np.linalg.norm(vectors - model.cluster_centers_[model.labels_], axis=1)
    return rank[model.labels_], np.argsort(far, kind="stable").astype(np.int64)


def _by_occlusion(number: int, rows: Ints, pieces: pl.DataFrame) -> Group:
    found = pieces.group_by("piece", "opening").agg(
        fps=pl.col("row").n_unique().cast(pl.Int64()),
        turned=pl.col("row").filter(pl.col("turned")).n_unique().cast(pl.Int64()),
        drop=pl.col("drop").mean(),
    )
    ranked = found.sort(["turned", "drop", "piece"], descending=[True, True, False]).rename({"piece": "word"})
    columns = list(_WORDS_SCHEMA)
    return Group(
        number,
        rows,
        ranked.filter(~pl.col("opening")).select(columns),
        ranked.filter("opening").select(columns),
    )


def _by_contrast(number: int, rows: Ints, texts: Sequence[str], ordinary: pl.DataFrame | None) -> Group:
    own = _holding([texts[i] for i in rows])
    if ordinary is not None:
        found = _contrast(own, ordinary).filter(pl.col("z") > 0).rename({"z": "drop"})
    else:
        found = own.with_columns(drop=pl.lit(0.0)).sort(["fps", "word"], descending=[True, False])
    words = found.with_columns(turned=pl.lit(0, dtype=pl.Int64())).select(list(_WORDS_SCHEMA))
    return Group(number, rows, words, pl.DataFrame(schema=_WORDS_SCHEMA))
