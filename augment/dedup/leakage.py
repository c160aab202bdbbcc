"""Leakage: rows that stand, or nearly stand, in a holdout too, whatever file they arrived in.

It takes a frame and holdouts and gives a row for every (row, holdout) that match, by exact Jaccard and, with an
encoder, by meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import Encode

from .frames import need_columns
from .pairs import nearest_with_jaccard
from .semantic import COSINE, check_cosine, nearest_vector, unit_vectors
from .sketch import THRESHOLD, check_threshold, fold, jaccard

LEAKAGE_SCHEMA = {
    "id": pl.String,
    "holdout": pl.String,
    "match_id": pl.String,
    "jaccard": pl.Float64,
    "cosine": pl.Float64,
    "kind": pl.String,
}


def leakage(
    frame: pl.DataFrame,
    holdouts: Sequence[tuple[str, pl.DataFrame]],
    *,
    encode: Encode | None = None,
    threshold: float = THRESHOLD,
    cosine: float = COSINE,
) -> pl.DataFrame:
    """Find the rows that leak into a holdout: the same text, a near-duplicate, or (with encode) the same meaning.

    Args:
        frame: Rows with ``id`` and ``text``: what is trained on.
        holdouts: (name, frame) with ``id`` and ``text``: what is measured on.
        encode: list of str -> (n, d) unit vectors; without it meaning is not looked at.
        threshold: The least exact Jaccard of a near-duplicate.
        cosine: The least cosine of a semantic duplicate.

    Returns:
        A row for each (row, holdout) that match, in the order of the holdouts and then of the frame: ``id``,
        ``holdout``, ``match_id`` (the nearest row of the holdout, by Jaccard if that reaches the threshold, by cosine
        otherwise), ``jaccard`` and ``cosine`` of that pair (cosine null without an encoder) and ``kind``: "exact" (the
        same text but for case and white space), "near" or "semantic".

    Raises:
        BadInput: a threshold is not in (0, 1], a frame lacks an id or a text, or the encoder gives no unit vectors.
    """
    check_threshold(threshold)
    check_cosine(cosine)
    need_columns(frame, "the frame to check")
    for name, holdout in holdouts:
        need_columns(holdout, f"the holdout {name!r}")
    vectors = _encoded(frame, encode)
    found = [_leaks(frame, vectors, name, holdout, encode, threshold, cosine) for name, holdout in holdouts]
    return pl.concat([pl.DataFrame(schema=LEAKAGE_SCHEMA), *found])


def _encoded(frame: pl.DataFrame, encode: Encode | None) -> NDArray[np.float32] | None:
    if encode is None or frame.is_empty():
        return None
    return unit_vectors(encode(frame["text"].to_list()))


def _leaks(
    frame: pl.DataFrame,
    vectors: NDArray[np.float32] | None,
    name: str,
    holdout: pl.DataFrame,
    encode: Encode | None,
    threshold: float,
    cosine: float,
) -> pl.DataFrame:
    """Return the rows of one holdout."""
    texts, held = frame["text"].to_list(), holdout["text"].to_list()
    match, near = nearest_with_jaccard(texts, held, threshold=threshold)
    kind = np.where(match >= 0, "near", "").astype(object)
    for row in np.flatnonzero(near == 1.0).tolist():
        if fold(texts[row]) == fold(held[match[row]]):
            kind[row] = "exact"
    cosines = np.full(len(texts), np.nan)
    others = _encoded(holdout, encode) if vectors is not None else None
    if vectors is not None and others is not None:
        place, value = nearest_vector(vectors, others)
        known = np.flatnonzero(match >= 0)
        cosines[known] = np.einsum("ij,ij->i", vectors[known], others[match[known]])
        meant = np.flatnonzero((match < 0) & (value >= cosine))
        match[meant], cosines[meant], kind[meant] = place[meant], value[meant], "semantic"
        near[meant] = [jaccard(texts[row], held[match[row]]) for row in meant.tolist()]
    hit = np.flatnonzero(match >= 0)
    values = pl.Series("cosine", cosines[hit], dtype=pl.Float64).fill_nan(None)
    return pl.DataFrame(
        {
            "id": frame["id"].gather(hit),
            "holdout": pl.Series([name] * len(hit), dtype=pl.String),
            "match_id": holdout["id"].gather(match[hit]),
            "jaccard": pl.Series(near[hit], dtype=pl.Float64),
            "cosine": values,
            "kind": pl.Series(kind[hit].tolist(), dtype=pl.String),
        },
        schema=LEAKAGE_SCHEMA,
    )
