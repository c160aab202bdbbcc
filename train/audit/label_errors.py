"""Rows whose label is probably wrong, by two witnesses that see different things.

One is the neighbourhood: the nearest rows in embedding space that are no copies of the row carry the other label. The
other is confident learning (cleanlab) over a linear probe's out-of-fold probabilities. Takes contract rows, their
vectors and folds; gives the accused rows as a review queue, ranked by what both witnesses say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.mining import REVIEW_COLUMNS, build_index, search

from .config import AuditConfig
from .ranking import Floats, Folds, Ints, Mask, out_of_fold

BOTH, PROBE, NEIGHBOURS = "label_error_both", "label_error_probe", "label_error_neighbours"
"""Reasons in the review queue: who accuses the row."""
ERROR_COLUMNS: dict[str, pl.DataType] = {
    **REVIEW_COLUMNS,
    "other_neighbours": pl.Float64(),
    "given_label": pl.Float64(),
}
_SIBLINGS = 4  # neighbours fetched for each one that votes, for copies of the row have no vote
_VOTE_POWER = -0.25


@dataclass(frozen=True)
class LabelErrors:
    """The accused rows.

    Attributes:
        judged: rows that were looked at.
        frame: the accused, worst first: a review queue with two more columns, other_neighbours (weighted share of
            neighbours with the other label) and given_label (the probe's out-of-fold probability of the label that the
            row has); score is how suspicious the row is, 0 to 1.
    """

    judged: int
    frame: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Accused rows by who accuses them."""
        found = dict(self.frame["reason"].value_counts().iter_rows())
        return {reason: int(found.get(reason, 0)) for reason in (BOTH, PROBE, NEIGHBOURS)}

    @property
    def review(self) -> pl.DataFrame:
        """The review queue, in the shape that mining writes too."""
        return self.frame.select(*REVIEW_COLUMNS)

    def table(self) -> pl.DataFrame:
        """Accused rows by label, source and reason."""
        return (
            self.frame.group_by(pl.col("label").cast(pl.String), "source", "reason")
            .agg(pl.len().cast(pl.Int64).alias("rows"))
            .sort("rows", "label", "source", "reason", descending=[True, False, False, False])
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines: counts, and the accused by id."""
        columns = ("id", "label", "source", "reason", "score", "other_neighbours", "given_label", "nearest_id")
        rows = self.frame.select(*columns).with_columns(pl.col("label").cast(pl.String))
        return {"judged": self.judged, "counts": self.counts, "rows": rows.to_dicts()}


def find_label_errors(
    frame: pl.DataFrame, vectors: NDArray[np.float32], clusters: Ints, folds: Folds, *, config: AuditConfig
) -> LabelErrors:
    """Judge the label of every row.

    Args:
        frame: contract rows of both labels.
        vectors: one unit vector a row.
        clusters: near-duplicate cluster of each row; rows of one cluster have no vote on each other.
        folds: of the same rows.
        config: number of neighbours.
    """
    other, nearest = neighbour_votes(vectors, folds.malicious, clusters, config.neighbours)
    given, issue = _probe(vectors, folds)
    accused_by_neighbours = other > 0.5
    reason = np.select(
        [issue & accused_by_neighbours, issue, accused_by_neighbours], [BOTH, PROBE, NEIGHBOURS], default=""
    )
    suspicion = (other + 1.0 - given) / 2
    texts, ids = frame["text"], frame["id"]
    known = nearest >= 0
    at = pl.Series(np.where(known, nearest, 0))
    judged = frame.with_columns(
        reason=pl.Series(reason.tolist(), dtype=pl.String),
        score=pl.Series(suspicion),
        nearest_id=pl.select(pl.when(pl.Series(known)).then(ids.gather(at))).to_series(),
        nearest_text=pl.select(pl.when(pl.Series(known)).then(texts.gather(at))).to_series(),
        other_neighbours=pl.Series(other),
        given_label=pl.Series(given),
    )
    accused = judged.filter(pl.col("reason") != "").sort("score", "id", descending=[True, False])
    return LabelErrors(frame.height, accused.select(*ERROR_COLUMNS))


def neighbour_votes(
    vectors: NDArray[np.float32], malicious: Mask, clusters: Ints, neighbours: int
) -> tuple[Floats, Ints]:
    """Return the share of each row's neighbours with the other label, and the nearest of those (-1 for none).

    A neighbour's vote weighs by its cosine, and by its label's number of rows to the power of -1/4: with twenty benign
    rows to an attack, plain votes accuse every lone attack, and fully balanced ones every benign row that has one
    attack near it. Of the powers 0, -1/4, -1/2, -3/4 and -1 this one ranked planted flips best at ten to one.
    """
    index = build_index(vectors)
    fetched = min(len(vectors), neighbours * _SIBLINGS + 1)
    cosines, places = search(index, vectors, fetched)
    stranger = clusters[places] != clusters[:, None]
    voting = stranger & (np.cumsum(stranger, axis=1) <= neighbours)
    counts = np.array([max((~malicious).sum(), 1), max(malicious.sum(), 1)], dtype=np.float64)
    by_label = counts**_VOTE_POWER
    differs = malicious[places] != malicious[:, None]
    votes = np.clip(cosines, 0.0, None) * by_label[malicious[places].astype(np.int64)] * voting
    total = votes.sum(axis=1)
    other = np.divide((votes * differs).sum(axis=1), total, out=np.zeros(len(total)), where=total > 0)
    candidates = voting & differs
    first = candidates.argmax(axis=1)
    nearest = np.where(candidates.any(axis=1), places[np.arange(len(places)), first], -1)
    return np.asarray(other, dtype=np.float64), nearest.astype(np.int64)


def _probe(vectors: NDArray[np.float32], folds: Folds) -> tuple[Floats, Mask]:
    """Return the out-of-fold probability of each row's own label, and whether confident learning calls it an issue."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression

    def fit_score(fit: Ints, test: Ints) -> Floats:
        # Unweighted: confident learning has a threshold for each label, and needs no help with the balance.
        model = LogisticRegression(C=3.0, max_iter=500)
        model.fit(vectors[fit], folds.malicious[fit])
        return np.asarray(model.predict_proba(vectors[test])[:, 1], dtype=np.float64)

    attack = out_of_fold(folds, fit_score)
    probabilities = np.column_stack([1.0 - attack, attack])
    labels = folds.malicious.astype(np.int64)
    issue = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    return probabilities[np.arange(len(labels)), labels], np.asarray(issue, dtype=np.bool_)
