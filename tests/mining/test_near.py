"""The benign rows' index: kept, found again, grown, made anew, and never mixed up, whatever the order of the pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crywolf.data import BadInput, make_corpus
from crywolf.mining import IndexPlan, MineConfig, MineResult, mine_hard_negatives

DIMENSION = 24


def encode(texts: Any) -> np.ndarray:
    """Vectors that follow from the text alone: four crowds, and a little of each text's own."""
    rows = []
    for text in texts:
        rng = np.random.default_rng(list(text.encode()))
        centre = np.zeros(DIMENSION)
        centre[int(text.split()[-1]) % 4] = 1.0
        rows.append(centre + 0.25 * rng.standard_normal(DIMENSION))
    vectors = np.asarray(rows, dtype=np.float32).reshape(len(rows), DIMENSION)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(label: str, numbers: range) -> pl.DataFrame:
    words = np.array([a + b + c for a in "bdfgklmn" for b in "aeiou" for c in "prstvz"])
    return make_corpus(
        [{"text": f"{' '.join(np.random.default_rng(n).choice(words, 7))} {n}", "label": label} for n in numbers]
    )


BENIGN, FPS = rows("BENIGN", range(300)), rows("BENIGN", range(2000, 2006))
ATTACKS = rows("MALICIOUS", range(1000, 1030))
TURNED = BENIGN[np.arange(299, -1, -1)]
CONFIG = MineConfig(guard_similarity=0.99, guard_floor=0.99, foreign_margin=2.0)


def mine(plan: IndexPlan | None, benign: pl.DataFrame = BENIGN) -> MineResult:
    return mine_hard_negatives(benign, ATTACKS, fps=FPS, encode=encode, config=CONFIG, index=plan)


@pytest.fixture(scope="module")
def exact() -> MineResult:
    result = mine(None)
    assert result.frame.height > 30
    assert result.by_rule()["fp_neighbour"] > 0
    return result


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_a_kept_index_is_used_again_and_changes_nothing(tmp_path: Path, kind: Any, exact: MineResult) -> None:
    plan = IndexPlan(tmp_path / "index", kind, encoder=lambda: "a")
    first, second = mine(plan), mine(plan)
    assert (first.index.origin, second.index.origin) == ("built", "reused")
    assert (second.index.kind, second.index.rows) == (kind, 306)
    assert second.index.recall >= 0.95
    assert second.frame.equals(first.frame)
    if kind == "exact":
        assert first.frame.equals(exact.frame)
        assert first.index.recall == 1.0


def test_a_kept_index_serves_a_pool_in_another_order_and_grows(tmp_path: Path, exact: MineResult) -> None:
    plan = IndexPlan(tmp_path / "index", "exact", encoder=lambda: "a")
    mine(plan, BENIGN[50:250])
    grown = mine(plan, BENIGN)
    assert (grown.index.origin, grown.index.rows) == ("grown", 306)
    assert grown.frame.equals(exact.frame)
    turned = mine(plan, TURNED)
    assert turned.index.origin == "reused"
    assert set(turned.frame["id"]) == set(mine(None, TURNED).frame["id"])


def test_an_index_of_rows_that_are_gone_or_of_another_kind_is_made_anew(tmp_path: Path) -> None:
    def plan(kind: Any, half: bool = False) -> IndexPlan:
        return IndexPlan(tmp_path / "index", kind, half, encoder=lambda: "a")

    mine(plan("exact"))
    fewer = mine(plan("exact"), BENIGN[:200])
    assert (fewer.index.origin, fewer.index.rows) == ("rebuilt", 206)
    assert fewer.frame.equals(mine(None, BENIGN[:200]).frame)
    assert mine(plan("auto"), BENIGN[:200]).index.origin == "reused"
    other = mine(plan("ivf", True), BENIGN[:200]).index
    assert (other.origin, other.kind, other.float16) == ("rebuilt", "ivf", True)
    assert mine(plan("auto"), BENIGN[:200]).index.kind == "ivf"


def test_half_precision_picks_nearly_the_same(exact: MineResult) -> None:
    half = mine(IndexPlan(kind="exact", float16=True))
    assert half.index.float16
    ours, theirs = set(half.frame["id"]), set(exact.frame["id"])
    assert len(ours & theirs) >= 0.95 * len(ours | theirs)


@pytest.mark.parametrize("spoil", ["encoder", "damage", "foreign"])
def test_an_index_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "index"
    names: list[str] = ["a"]
    encoder: Callable[[], str] = lambda: names[0]  # noqa: E731  # said late, as a command does
    mine(IndexPlan(path, encoder=encoder))
    if spoil == "encoder":
        names[0] = "b"
    elif spoil == "damage":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (tmp_path / "index.json").unlink()
    before = path.read_bytes()
    with pytest.raises(BadInput, match=str(path)):
        mine(IndexPlan(path, encoder=encoder))
    assert path.read_bytes() == before


def test_the_summary_says_what_was_searched() -> None:
    assert mine(IndexPlan(kind="ivf")).summary()["index"]["kind"] == "ivf"
