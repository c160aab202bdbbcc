"""What deduplication keeps and drops, held against brute force and a slow greedy, and at the edges of a text."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import (
    deduplicate,
    jaccard,
    lineage,
    near_duplicate_clusters,
    near_duplicate_pairs,
    nearest_reference,
)
from crywolf.data import BadInput

WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "the", "signal", "please", "Über", "进程", "да"]
# Short sentences over few words, edits of one another, any script, and the odd raw unicode string.
sentences = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
edited = st.tuples(sentences, st.sampled_from(["", "!", "?", " now", "  ", "\n", "A"])).map("".join)
texts_strategy = st.lists(st.one_of(edited, st.text(max_size=12), sentences.map(str.upper)), max_size=24)

Frame = Callable[..., pl.DataFrame]
Brute = Callable[[list[str], float], dict[tuple[int, int], float]]
Siblings = Callable[..., list[str]]


@given(texts_strategy, st.integers(0, 5))
@settings(deadline=None, max_examples=120)
def test_kept_rows_are_no_near_duplicates_and_every_drop_is_explained(
    frame: Frame, brute_pairs: Brute, texts: list[str], cut: int
) -> None:
    reference, own = frame(texts[:cut], "ref"), frame(texts[cut:])
    result = deduplicate(own, against=[("holdout", reference)])
    kept = result.kept["text"].to_list()
    assert not brute_pairs(kept, 0.8)
    assert all(jaccard(a, b) < 0.8 for a in kept for b in texts[:cut])
    assert result.kept.height + result.dropped.height == own.height
    assert result.kept["id"].to_list() == sorted(result.kept["id"].to_list(), key=lambda i: int(i[1:]))
    known = dict(zip(reference["id"], reference["text"], strict=True)) | dict(
        zip(result.kept["id"], result.kept["text"], strict=True)
    )
    order = {row: number for number, row in enumerate(own["id"])}
    for row in result.dropped.iter_rows(named=True):
        assert row["jaccard"] == pytest.approx(jaccard(row["text"], known[row["match_id"]]))
        assert row["jaccard"] >= 0.8
        if row["reason"] == "duplicate_within":
            assert order[row["match_id"]] < order[row["id"]]  # earlier rows win
        else:
            assert row["reason"] == "duplicate_of:holdout"
            assert row["match_id"].startswith("ref")


@pytest.mark.parametrize("many", [0, 256])
@pytest.mark.parametrize("rounds", [0, 1, 64])
def test_kept_rows_are_exactly_those_of_a_slow_greedy(
    many: int, rounds: int, frame: Frame, siblings: Siblings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crywolf.augment.dedup.pairs._BUDGET", 300)
    monkeypatch.setattr("crywolf.augment.dedup.pairs._MANY", many)
    monkeypatch.setattr("crywolf.augment.dedup.pairs._ROUNDS", rounds)
    texts = siblings(np.random.default_rng(4), families=12, each=10)
    kept: list[str] = []
    for text in texts:
        if all(jaccard(text, other) < 0.8 for other in kept):
            kept.append(text)
    assert 12 < len(kept) < 110
    assert deduplicate(frame(texts)).kept["text"].to_list() == kept


def test_a_giant_group_of_near_identical_texts_is_cheap_and_leaves_one(frame: Frame) -> None:
    base = "please look up the status of my order and tell me when the parcel with the blue jacket arrives, number "
    texts = [f"{base}{number}" for number in range(700)]
    result = deduplicate(frame(texts))
    assert result.kept["text"].to_list() == texts[:1]
    assert set(result.dropped["match_id"]) == {"r0"}
    assert near_duplicate_clusters(texts).max() == 0


@pytest.mark.parametrize("rounds", [0, 1, 64])
def test_a_chain_is_one_cluster_but_only_direct_repeats_are_dropped(
    rounds: int, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crywolf.augment.dedup.pairs._ROUNDS", rounds)
    letters = "the quick brown fox jumps over the lazy dog while five wizards quietly box on the frozen lake at dawn"
    chain = [letters[start : start + 60] for start in range(0, 36, 6)]
    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[2])
    assert set(near_duplicate_clusters(chain)) == {0}
    assert deduplicate(frame(chain)).kept["text"].to_list() == chain[::2]


def test_references_are_taken_in_order_and_before_the_frame_itself(frame: Frame) -> None:
    text = "How do I kill a process that ignores the signal?"
    result = deduplicate(
        frame([text, text.upper(), "Something else entirely, about gardens."]),
        against=[("first", frame(["unrelated words about the sea"], "a")), ("second", frame([text + "!"], "b"))],
    )
    assert result.dropped["reason"].to_list() == ["duplicate_of:second"] * 2
    assert result.dropped["match_id"].to_list() == ["b0", "b0"]
    assert result.by_reason() == {"duplicate_of:second": 2}
    assert result.duplicate_ratio == pytest.approx(2 / 3)


def test_the_copies_of_a_dropped_text_point_to_a_kept_row(frame: Frame) -> None:
    first = "could you explain how the kernel kills a process that ignores its signals"
    second = first + "!"
    result = deduplicate(frame([first, second, second]))
    assert result.kept["id"].to_list() == ["r0"]
    assert result.dropped["match_id"].to_list() == ["r0", "r0"]


def test_other_columns_are_carried_and_an_empty_frame_is_fine(frame: Frame) -> None:
    own = frame(["one text about birds", "one text about birds"]).with_columns(label=pl.lit("BENIGN"))
    result = deduplicate(own)
    assert result.kept.columns == ["id", "text", "label"]
    assert result.dropped.columns == ["id", "text", "label", "reason", "match_id", "jaccard"]
    nothing = deduplicate(frame([]), against=[("x", frame(["a"]))])
    assert nothing.kept.height == nothing.dropped.height == 0
    assert nothing.duplicate_ratio == 0.0
    assert nearest_reference(["a"], []).tolist() == [-1]
    assert near_duplicate_pairs([])[0].shape == (0, 2)


def test_lone_surrogates_and_padding_characters_are_texts_like_others(frame: Frame) -> None:
    texts = ["ab", "ab\0\0\0", "\ud800", "", "\0", "\U0010ffff" * 5]
    assert deduplicate(frame(["ab", "ab\0\0\0", "", "\0"])).kept.height == 4
    assert near_duplicate_pairs(texts)[0].shape == (0, 2)


def test_bad_input_is_named(frame: Frame) -> None:
    with pytest.raises(BadInput, match=r"1\.5"):
        deduplicate(frame(["a"]), threshold=1.5)
    with pytest.raises(BadInput, match="'holdout' has no column text"):
        deduplicate(frame(["a"]), against=[("holdout", pl.DataFrame({"id": ["x"]}))])
    with pytest.raises(BadInput, match="1 rows without text"):
        deduplicate(pl.DataFrame({"id": ["a"], "text": [None]}, schema={"id": pl.String, "text": pl.String}))


def test_progress_reaches_the_end(frame: Frame) -> None:
    seen: list[tuple[int, int]] = []
    deduplicate(frame([f"text number {i}" for i in range(10)]), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)


def lined(**columns: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def test_lineage_counts_the_steps_from_an_original() -> None:
    rows = lined(
        id=["a", "b", "c", "d", "e", "f", "g", "h"],
        origin_id=[None, "a", "b", "elsewhere", None, None, "g", None],
        source=["original", "augmented", "augmented", "feedback", "augmented", "pool", "pool", None],
        how=[None, "swap:1", "typo:2", None, None, "template:x", None, None],
    )
    assert lineage(rows).tolist() == [0, 1, 2, 1, 1, 1, 0, 0]


def test_lineage_of_a_long_line_and_of_a_circle() -> None:
    rows = 1000
    line = lined(id=[str(i) for i in range(rows)], origin_id=[None, *(str(i) for i in range(rows - 1))])
    assert lineage(line).tolist() == list(range(rows))
    circle = lined(id=["a", "b", "c", "d"], origin_id=["b", "a", "a", None])
    steps = lineage(circle)
    assert steps[3] == 0
    assert (steps[:3] > rows).all()


def test_lineage_needs_no_column_but_the_id() -> None:
    assert lineage(lined(id=["a", "b"])).tolist() == [0, 0]
    assert lineage(lined(id=[])).tolist() == []


BASE = "please write a short story about a lighthouse keeper who finds an old map in the sand"


def test_the_original_stays_wherever_it_stands_and_of_grown_rows_the_one_with_fewer_steps(frame: Frame) -> None:
    grown = frame(
        [f"{BASE}!!", f"{BASE}!", BASE, "another text that stands alone here", f"{BASE}?"],
        origin_id=["r1", "r2", None, None, None],
        source=["augmented", "augmented", "original", "original", "original"],
    )
    assert deduplicate(grown, keep="original").kept["id"].to_list() == ["r2", "r3"]
    assert deduplicate(grown, keep="original").dropped["match_id"].to_list() == ["r2"] * 3
    assert deduplicate(grown[:2], keep="original").kept["id"].to_list() == ["r1"]
    assert deduplicate(grown).kept["id"].to_list() == ["r0", "r3"]


def test_an_original_that_is_an_exact_copy_of_an_earlier_grown_row_stays(frame: Frame) -> None:
    rows = frame([BASE.upper(), BASE], origin_id=["x", None])
    result = deduplicate(rows, keep="original")
    assert result.kept["id"].to_list() == ["r1"]
    assert result.dropped.select("reason", "match_id", "jaccard").rows() == [("duplicate_within", "r1", 1.0)]


@given(texts_strategy, st.data())
@settings(deadline=None, max_examples=80)
def test_a_dropped_row_repeats_one_of_no_longer_lineage(frame: Frame, texts: list[str], data: st.DataObject) -> None:
    ids = [f"r{i}" for i in range(len(texts))]
    origins = data.draw(st.lists(st.sampled_from([None, "x", *ids]), min_size=len(texts), max_size=len(texts)))
    rows = frame(texts, origin_id=origins)
    steps = dict(zip(ids, lineage(rows).tolist(), strict=True))
    place = {id_: number for number, id_ in enumerate(ids)}
    result = deduplicate(rows, keep="original")
    for id_, match in result.dropped.select("id", "match_id").rows():
        assert (steps[match], place[match]) < (steps[id_], place[id_])
    assert result.kept["id"].to_list() == sorted(result.kept["id"].to_list(), key=place.__getitem__)


@given(texts_strategy)
@settings(deadline=None, max_examples=60)
def test_with_chains_one_row_of_each_component_is_kept(frame: Frame, texts: list[str]) -> None:
    rows = frame(texts)
    result = deduplicate(rows, chains=True)
    labels = near_duplicate_clusters(texts)
    first = [f"r{int(np.flatnonzero(labels == label)[0])}" for label in np.unique(labels)]
    assert result.kept["id"].to_list() == first
    known = dict(zip(rows["id"], rows["text"], strict=True))
    for text, match, near, reason in result.dropped.select("text", "match_id", "jaccard", "reason").rows():
        assert near == jaccard(text, known[match])
        assert reason == ("duplicate_within" if near >= 0.8 else "chain_within")


def test_a_chain_keeps_its_first_row_alone_where_chains_are_asked_for(frame: Frame) -> None:
    letters = "the quick brown fox jumps over the lazy dog while five wizards quietly box on the frozen lake at dawn"
    chain = [letters[start : start + 60] for start in range(0, 36, 6)]
    result = deduplicate(frame(chain), chains=True)
    assert result.kept["text"].to_list() == chain[:1]
    assert result.by_reason() == {"chain_within": 4, "duplicate_within": 1}
