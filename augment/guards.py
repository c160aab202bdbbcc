"""Keeps grown samples away from attacks and on their topic, by the cosine of sentence embeddings.

Takes frames of grown samples with their false positives, an `encode` callable and a frame of attacks; gives what may
stay and what is dropped, each row with the similarities that decided and the reason. Near-miss twins are close to
attacks by design and are judged by a ceiling of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Encode, Progress

from .propose import AUTHORED

TOWARD_ATTACK = "toward_attack"
OFF_TOPIC = "off_topic"
TWIN_TOO_CLOSE = "twin_too_close"

MARGIN = 0.10
TOPIC_FLOOR = 0.40
"""A rewrite, swap or noisy copy below this cosine to its prompt has left the topic.

Seen on 300 real FPs with all-MiniLM-L6-v2: their rewrites lie at 0.8 on average and one in 700 under the floor, mostly
where a swap replaced the very subject of a short prompt.
"""
TEMPLATE_FLOOR = 0.30
"""The floor for templates, which only have to be about the same subject.

On the same FPs, what lies under 0.25 shares a word with the prompt at best; from 0.30 on the subject is the same.
"""
TWIN_CEILING = 0.80
"""A twin nearer than this to some attack reads like the attack itself: a person decides."""
_BY_HAND = tuple(f"{kind}:" for kind in sorted(AUTHORED))
"""How samples begin that were written by hand as harmless: trigger words are meant to stand in them, and their topic
need not be their prompt's. They are held to the twins' ceiling, where an encoder of English can read them."""
TOO_CLOSE = "too_close_to_attack"

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_BLOCK = 4_096


@dataclass(frozen=True)
class GuardResult:
    """What a guard let through and what it dropped; both carry to_fp, to_attack and fp_to_attack."""

    kept: pl.DataFrame
    dropped: pl.DataFrame  # with reason

    @property
    def drops(self) -> dict[str, int]:
        """The number of rows dropped, by reason."""
        counts = self.dropped["reason"].value_counts().sort("reason")
        return dict(counts.iter_rows())

    @property
    def mean_to_fp(self) -> float | None:
        """The mean cosine of the kept rows to their prompts, None without rows."""
        value = self.kept["to_fp"].mean()
        return float(value) if isinstance(value, float) else None


def nearest_cosine(vectors: Floats, reference: Floats) -> Floats:
    """Return for each vector the highest cosine to any of `reference` (-1 if there are none); unit vectors both."""
    out = np.full(len(vectors), -1.0, dtype=np.float32)
    if len(reference):
        transposed = np.ascontiguousarray(reference.T)
        for start in range(0, len(vectors), _BLOCK):
            out[start : start + _BLOCK] = (vectors[start : start + _BLOCK] @ transposed).max(axis=1)
    return out


def cosine_rows(left: Floats, left_rows: Ints, right: Floats, right_rows: Ints) -> Floats:
    """Return the cosine of each pair left[left_rows[i]], right[right_rows[i]] of unit vectors."""
    out = np.empty(len(left_rows), dtype=np.float32)
    for start in range(0, len(left_rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        out[part] = np.einsum("ij,ij->i", left[left_rows[part]], right[right_rows[part]])
    return out


@dataclass
class Remembering:
    """An encoder that keeps the vectors it has made: for the prompts and attacks that every check needs again."""

    encode: Encode
    _rows: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _vectors: Floats | None = field(default=None, init=False, repr=False)

    def __call__(self, texts: Sequence[str], *, progress: Progress | None = None) -> Floats:
        """Return the vectors of `texts`, encoding only what is new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            made = _encode(self.encode, new, progress)
            start = len(self._rows)
            self._rows.update({text: start + i for i, text in enumerate(new)})
            self._vectors = made if self._vectors is None else np.concatenate([self._vectors, made])
        if self._vectors is None:
            return np.empty((0, 0), dtype=np.float32)
        return self._vectors[[self._rows[text] for text in texts]]


@dataclass
class Guard:
    """The semantic guards; attacks and prompts are encoded once for all checks.

    A sample is dropped as `toward_attack` when its cosine to the nearest attack exceeds that of its prompt by more than
    `margin` and exceeds its own cosine to the prompt, and as `off_topic` when its cosine to the prompt is below the
    floor. Both conditions of the first matter: a prompt that is itself near attacks may stay as near as it is, and a
    sample that is still nearer to its prompt than to any attack has not turned into one.
    """

    encode: Encode
    malicious: pl.DataFrame | None = None
    margin: float = MARGIN
    topic_floor: float = TOPIC_FLOOR
    template_floor: float = TEMPLATE_FLOOR
    twin_ceiling: float = TWIN_CEILING
    remembering: Remembering = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.remembering = Remembering(self.encode)

    def check(self, grown: pl.DataFrame, fps: pl.DataFrame, *, progress: Progress | None = None) -> GuardResult:
        """Judge grown samples.

        Args:
            grown: text, origin_id, and how ("operator:params"; an operator `template` gets the lower floor).
            fps: id and text of the prompts that `grown` came from.
            progress: told about texts encoded.

        Raises:
            BadInput: a sample names a prompt that is not in `fps`.
        """
        prompts = fps.select("id", "text").unique("id", keep="first", maintain_order=True).with_row_index("_fp")
        rows = grown.join(prompts.select("_fp", origin_id="id"), on="origin_id", how="left", maintain_order="left")
        if rows["_fp"].null_count():
            missing = rows.filter(pl.col("_fp").is_null())["origin_id"][0]
            raise BadInput(f"grown sample of unknown prompt {missing!r}: pass the frame that it was grown from as fps")
        attacks = self._attack_vectors()
        own = self.remembering(prompts["text"].to_list())
        vectors, (at,) = encode_unique(self.encode, [grown["text"]], progress=progress)
        at_fp = rows["_fp"].to_numpy().astype(np.int64)
        judged = grown.with_columns(
            to_fp=pl.Series(cosine_rows(vectors, at, own, at_fp)),
            to_attack=pl.Series(nearest_cosine(vectors, attacks)[at]),
            fp_to_attack=pl.Series(nearest_cosine(own, attacks)[at_fp]),
        )
        return _split(judged.with_columns(reason=self._reason()))

    def _reason(self) -> pl.Expr:
        toward = (pl.col("to_attack") - pl.col("fp_to_attack") > self.margin) & (pl.col("to_attack") > pl.col("to_fp"))
        is_template = pl.col("how").str.starts_with("template:")
        authored = pl.any_horizontal(pl.col("how").str.starts_with(prefix) for prefix in _BY_HAND)
        readable = pl.col("text").str.count_matches(r"[A-Za-z]") * 2 >= pl.col("text").str.count_matches(r"\p{L}")
        floor = pl.when(is_template).then(self.template_floor).otherwise(self.topic_floor)
        return (
            pl.when(authored & readable & (pl.col("to_attack") >= self.twin_ceiling))
            .then(pl.lit(TOO_CLOSE))
            .when(authored)
            .then(pl.lit(None, dtype=pl.String()))
            .when(toward)
            .then(pl.lit(TOWARD_ATTACK))
            .when(pl.col("to_fp") < floor)
            .then(pl.lit(OFF_TOPIC))
            .otherwise(pl.lit(None, dtype=pl.String()))
        )

    def check_twins(self, twins: pl.DataFrame) -> GuardResult:
        """Judge near-miss twins by their nearest attack alone; those at the ceiling belong in the review queue."""
        vectors, (at,) = encode_unique(self.encode, [twins["text"]])
        near = nearest_cosine(vectors, self._attack_vectors())[at]
        judged = twins.with_columns(
            to_attack=pl.Series(near),
            reason=pl.when(pl.Series(near) >= self.twin_ceiling)
            .then(pl.lit(TWIN_TOO_CLOSE))
            .otherwise(pl.lit(None, dtype=pl.String())),
        )
        return _split(judged)

    def _attack_vectors(self) -> Floats:
        if self.malicious is None or not self.malicious.height:
            return np.empty((0, 0), dtype=np.float32)
        return self.remembering(self.malicious["text"].unique(maintain_order=True).to_list())


def guard(
    grown: pl.DataFrame,
    fps: pl.DataFrame,
    *,
    encode: Encode,
    malicious: pl.DataFrame | None = None,
    margin: float = MARGIN,
    topic_floor: float = TOPIC_FLOOR,
    template_floor: float = TEMPLATE_FLOOR,
) -> GuardResult:
    """Judge grown samples once (see `Guard.check`, which keeps the encoded attacks for more)."""
    return Guard(encode, malicious, margin, topic_floor, template_floor).check(grown, fps)


def encode_unique(
    encode: Encode, columns: Sequence[pl.Series], *, progress: Progress | None = None
) -> tuple[Floats, list[Ints]]:
    """Encode each distinct text of the columns once.

    Returns:
        The vectors, and for each column the row of `vectors` of each of its texts.
    """
    codes = pl.concat([column.rename("text").cast(pl.String()) for column in columns])
    distinct = codes.unique(maintain_order=True)
    place = pl.DataFrame({"text": distinct}).with_row_index("_at")
    at = pl.DataFrame({"text": codes}).join(place, on="text", how="left", maintain_order="left")["_at"]
    ends = np.cumsum([len(column) for column in columns])[:-1]
    positions = np.split(at.to_numpy().astype(np.int64), ends)
    return _encode(encode, distinct.to_list(), progress), positions


def _encode(encode: Encode, texts: list[str], progress: Progress | None) -> Floats:
    """Encode in large blocks of similar length: little padding, and a progress bar that moves."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    out: Floats | None = None
    for start in range(0, len(texts), _BLOCK):
        rows = order[start : start + _BLOCK]
        vectors = np.asarray(encode([texts[i] for i in rows]), dtype=np.float32)
        if out is None:
            out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
        out[rows] = vectors
        if progress:
            progress(min(start + _BLOCK, len(texts)), len(texts))
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def _split(judged: pl.DataFrame) -> GuardResult:
    bad = pl.col("reason").is_not_null()
    return GuardResult(judged.filter(~bad).drop("reason"), judged.filter(bad))
