"""Flipped labels are found by both witnesses, copies have no vote, and what is found is a review queue."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crywolf.data import make_corpus
from crywolf.mining import read_review, write_review
from crywolf.train.audit.config import AuditConfig
from crywolf.train.audit.label_errors import BOTH, LabelErrors, find_label_errors, neighbour_votes
from crywolf.train.audit.ranking import make_folds


def two_clouds(rows: int, attacks: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of two overlapping clouds, and which rows are attacks."""
    malicious = np.arange(rows) < attacks
    centres = np.where(malicious[:, None], 1.0, -1.0) * np.ones(24) * 0.5
    vectors = centres + rng.normal(size=(rows, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), malicious


@pytest.fixture(scope="module")
def judged() -> tuple[LabelErrors, set[str], pl.DataFrame]:
    rng = np.random.default_rng(7)
    vectors, malicious = two_clouds(1500, 250, rng)
    flipped = np.concatenate([rng.permutation(250)[:20], 250 + rng.permutation(1250)[:25]])
    malicious[flipped] = ~malicious[flipped]
    frame = make_corpus(
        [{"text": f"row {at}", "label": "MALICIOUS" if attack else "BENIGN"} for at, attack in enumerate(malicious)]
    )
    clusters = np.arange(1500)
    folds = make_folds(malicious, clusters, rng=rng)
    found = find_label_errors(frame, vectors, clusters, folds, config=AuditConfig())
    return found, set(frame["id"].gather(flipped)), frame


def test_flipped_labels_are_found_and_stand_first(judged: tuple[LabelErrors, set[str], pl.DataFrame]) -> None:
    found, flipped, _ = judged
    assert len(flipped & set(found.frame["id"])) >= 0.9 * len(flipped)
    assert len(flipped & set(found.frame["id"].head(45))) >= 0.75 * len(flipped)
    assert found.frame["score"].is_sorted(descending=True)
    assert found.counts[BOTH] >= 0.7 * len(flipped)
    assert found.judged == 1500


def test_the_accused_are_a_review_queue_with_the_nearest_row_of_the_other_label(
    judged: tuple[LabelErrors, set[str], pl.DataFrame], tmp_path: Path
) -> None:
    found, _, frame = judged
    back = read_review(write_review(found.review, tmp_path / "review.jsonl"))
    assert back["id"].to_list() == found.frame["id"].to_list()
    labels = dict(frame.select("id", pl.col("label").cast(pl.String)).iter_rows())
    texts = dict(frame.select("id", "text").iter_rows())
    for row in back.iter_rows(named=True):
        assert labels[row["nearest_id"]] != labels[row["id"]]
        assert texts[row["nearest_id"]] == row["nearest_text"]


def test_copies_of_a_row_have_no_vote_on_it() -> None:
    rng = np.random.default_rng(2)
    vectors, malicious = two_clouds(200, 100, rng)
    # Four copies of a benign row, all of them with the wrong label: they must not vouch for each other.
    copies = np.concatenate([vectors, np.repeat(vectors[150:151], 4, axis=0)])
    labels = np.concatenate([malicious, [True] * 4])
    apart = np.concatenate([np.arange(200), np.arange(200, 204)])
    together = np.concatenate([np.arange(200), [150] * 4])
    vouched, _ = neighbour_votes(copies, labels, apart, 5)
    accused, nearest = neighbour_votes(copies, labels, together, 5)
    assert vouched[200] < 0.5 < accused[200]
    assert together[nearest[200]] != 150


def test_a_row_whose_every_neighbour_is_a_copy_is_not_accused() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 0]]
    other, nearest = neighbour_votes(vectors, np.array([True, False, True]), np.zeros(3, dtype=np.int64), 5)
    assert other.tolist() == [0, 0, 0]
    assert nearest.tolist() == [-1, -1, -1]
