"""Assembly: precedence, the budget's order, leaks refused or dropped, every row accounted for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus, text_id
from crywolf.train.rows.assemble import KEPT, Assembly, assemble


def _rows(texts: Sequence[str], **columns: Any) -> pl.DataFrame:
    return make_corpus([{"text": text, "label": "BENIGN", "source": "augmented", **columns} for text in texts])


def _words(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join("".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(6)) for _ in range(count)]


ORIGINALS = make_corpus(
    [{"text": text, "label": "BENIGN", "source": "original", "category": "education"} for text in _words(20, 1)]
    + [{"text": text, "label": "MALICIOUS", "source": "original"} for text in _words(10, 2)]
)


def _assemble(*args: Any, **kwargs: Any) -> Assembly:
    return assemble(*args, rng=np.random.default_rng(0), **kwargs)


def test_all_parts_are_joined_without_a_budget() -> None:
    grown = _rows(_words(5, 3), category="generic_variation", origin_id="a" * 16)
    hard = _rows(_words(4, 4), source="mined")
    result = _assemble(ORIGINALS, grown, hard)
    assert result.frame.height == 39
    assert result.kept == {"augmented": 5, "hard_negative": 4, "original": 30}
    assert result.dropped == {}
    assert result.frame.columns == ORIGINALS.columns
    assert result.frame["id"].is_sorted()


def test_parts_may_be_missing() -> None:
    assert _assemble(ORIGINALS, None, None, budget=5).frame.height == 30


def test_originals_win_over_hard_negatives_over_augmented() -> None:
    shared, twice = ORIGINALS["text"][0], _words(1, 5)[0]
    grown = _rows([shared, twice], category="generic_variation")
    hard = _rows([shared, twice], source="mined")
    result = _assemble(ORIGINALS, grown, hard)
    assert result.frame.height == 31
    assert result.frame.filter(pl.col("id") == text_id(shared))["source"].to_list() == ["original"]
    assert result.frame.filter(pl.col("id") == text_id(twice))["source"].to_list() == ["mined"]
    assert result.dropped == {"already in originals": 1, "duplicate text": 1}
    assert result.lent == 1


def test_a_hard_negative_that_is_an_original_raises_its_weight_and_never_lowers_it() -> None:
    benign = ORIGINALS.filter(pl.col("label").cast(pl.String) == "BENIGN")["text"].to_list()
    heavy = ORIGINALS.with_columns(
        weight=pl.when(pl.col("text") == benign[1]).then(pl.lit(3.0)).otherwise("weight").cast(pl.Float32)
    )
    hard = _rows(benign[:2], source="mined").with_columns(weight=pl.lit(2.0, pl.Float32))
    result = _assemble(heavy, None, hard)
    weights = dict(result.frame.select("text", "weight").rows())
    assert (weights[benign[0]], weights[benign[1]]) == (2.0, 3.0)
    assert {weight for text, weight in weights.items() if text not in benign[:2]} == {1.0}
    assert (result.frame.height, result.lent, result.dropped) == (30, 2, {})


def test_a_hard_negative_lends_no_weight_to_an_attack_of_the_same_text() -> None:
    attack = ORIGINALS.filter(pl.col("label").cast(pl.String) == "MALICIOUS")["text"][0]
    result = _assemble(ORIGINALS, None, _rows([attack]).with_columns(weight=pl.lit(9.0, pl.Float32)))
    assert result.frame["weight"].max() == 1.0
    assert result.dropped == {"an original labels this text differently": 1}


def test_a_grown_row_with_the_text_of_an_attack_is_dropped_for_that() -> None:
    attack = ORIGINALS.filter(pl.col("label").cast(pl.String) == "MALICIOUS")["text"][0]
    result = _assemble(ORIGINALS, _rows([attack]), None)
    assert result.dropped == {"an original labels this text differently": 1}


def test_originals_that_contradict_each_other_are_both_dropped() -> None:
    text = ORIGINALS["text"][0]
    quarrel = make_corpus([{"text": text, "label": "MALICIOUS", "source": "original"}])
    result = _assemble(pl.concat([ORIGINALS, quarrel]), None, None)
    assert result.dropped == {"two originals label this text differently": 2}
    assert text_id(text) not in result.frame["id"].to_list()


def _tiers() -> tuple[pl.DataFrame, pl.DataFrame]:
    grown = pl.concat(
        [
            _rows(_words(6, 10), category="hard_negative", subcategory="twin"),
            _rows(_words(10, 11), category="legitimate_programming", origin_id="a" * 16),
            _rows(_words(10, 12), category="legitimate_educational", origin_id="a" * 16),
            _rows(_words(30, 13), category="generic_variation", origin_id="a" * 16),
            _rows(_words(30, 14), category="generic_variation", origin_id="b" * 16),
        ]
    )
    return grown, _rows(_words(5, 15), source="mined", category="programming")


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (11, (11, 0, 0, 0)),
        (15, (11, 4, 0, 0)),
        (25, (11, 10, 4, 0)),
        (41, (11, 10, 10, 10)),
        (1000, (11, 10, 10, 60)),
        (3, (11, 0, 0, 0)),
    ],
)
def test_budget_keeps_hard_negatives_then_programming_then_educational(
    budget: int, kept: tuple[int, int, int, int]
) -> None:
    grown, hard = _tiers()
    result = _assemble(ORIGINALS, grown, hard, budget=budget)
    mined = pl.col("source") == "mined"
    category = pl.col("category")
    counts = tuple(
        result.frame.filter(condition).height
        for condition in (
            mined | (category == "hard_negative"),
            category == "legitimate_programming",
            category == "legitimate_educational",
            category == "generic_variation",
        )
    )
    assert counts == kept
    assert result.kept["original"] == 30
    assert bool(result.notes) == (budget < 11)


def test_the_sampled_rest_is_shared_evenly_among_origins() -> None:
    grown, hard = _tiers()
    frame = _assemble(ORIGINALS, grown, hard, budget=41).frame.filter(pl.col("category") == "generic_variation")
    assert sorted(frame.group_by("origin_id").len()["len"].to_list()) == [5, 5]


def test_what_is_sampled_depends_on_the_generator_alone() -> None:
    grown, hard = _tiers()
    mixed = grown.sample(fraction=1, shuffle=True, seed=1)
    one = assemble(ORIGINALS, grown, hard, budget=50, rng=np.random.default_rng(1)).frame
    two = assemble(ORIGINALS, mixed, hard, budget=50, rng=np.random.default_rng(1)).frame
    other = assemble(ORIGINALS, grown, hard, budget=50, rng=np.random.default_rng(2)).frame
    assert one.equals(two)
    assert not one.equals(other)


def test_growing_from_a_held_out_row_is_refused() -> None:
    held = make_corpus([{"text": "what is a buffer overflow", "label": "BENIGN"}])
    leak = _rows(["please tell me what buffer overflows are"], origin_id=held["id"][0])
    with pytest.raises(BadInput, match=r"1 grown rows come from rows of test .*training fold"):
        _assemble(ORIGINALS, leak, None, holdouts=[("test", held)])


def test_near_duplicates_of_held_out_rows_are_dropped_from_every_part() -> None:
    text = "How do I revert the last commit that I have already pushed to the remote branch?"
    held = make_corpus([{"text": text, "label": "BENIGN"}])
    originals = pl.concat([ORIGINALS, _rows([text + " Thanks"], source="original")])
    result = _assemble(originals, _rows([text.upper()]), _rows([text[:-1]]), holdouts=[("edge_cases", held)])
    assert result.dropped == {"near-duplicate of edge_cases": 3}
    assert result.frame.height == 30


def test_negative_budget_is_refused() -> None:
    with pytest.raises(BadInput, match="budget is -1"):
        _assemble(ORIGINALS, None, None, budget=-1)


@settings(max_examples=30, deadline=None)
@given(
    picks=st.lists(
        st.tuples(
            st.integers(0, 40),
            st.sampled_from(["hard_negative", "legitimate_programming", "legitimate_educational", "generic_variation"]),
            st.sampled_from(["a" * 16, "b" * 16, None]),
        ),
        max_size=60,
    ),
    budget=st.none() | st.integers(0, 50),
)
def test_every_row_is_kept_once_or_has_a_reason(picks: list[tuple[int, str, str | None]], budget: int | None) -> None:
    pool = [*ORIGINALS["text"].to_list(), *_words(11, 20)]
    rows = [
        {"text": pool[at], "label": "BENIGN", "category": category, "origin_id": origin}
        for at, category, origin in picks
    ]
    grown = make_corpus(rows) if rows else ORIGINALS.clear()
    result = _assemble(ORIGINALS, grown, None, budget=budget)
    assert result.table["rows"].sum() == ORIGINALS.height + grown.height
    assert result.table.filter(pl.col("outcome") == KEPT)["rows"].sum() == result.frame.height
    assert result.frame["id"].is_unique().all()
    added = result.frame.filter(~pl.col("id").is_in(ORIGINALS["id"].implode()))
    hard = added.filter(pl.col("category") == "hard_negative").height
    if budget is not None:
        assert added.height <= max(budget, hard)
