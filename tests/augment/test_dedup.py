"""Near-duplicates against brute force, against datasketch's own index, and at the edges of what a text can be."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment import dedup
from crywolf.augment.dedup import (
    banding,
    deduplicate,
    fold,
    jaccard,
    near_duplicate_clusters,
    near_duplicate_pairs,
    nearest_reference,
    shingles,
)
from crywolf.data import BadInput

WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "the", "signal", "please", "Über", "进程", "да"]


def frame(texts: list[str], prefix: str = "r") -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [f"{prefix}{i}" for i in range(len(texts))], "text": texts},
        schema={"id": pl.String, "text": pl.String},
    )


def brute_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    found = {}
    sets = [shingles(text) for text in texts]
    for a, b in itertools.combinations(range(len(texts)), 2):
        shared = len(sets[a] & sets[b])
        near = shared / (len(sets[a]) + len(sets[b]) - shared)
        if near >= threshold:
            found[(a, b)] = near
    return found


def siblings(rng: np.random.Generator, families: int, each: int, length: int = 40) -> list[str]:
    """Families of texts around the threshold: each member changes one or two words of a long sentence."""
    vocabulary = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(400)]
    out = []
    for _ in range(families):
        base = list(rng.choice(vocabulary, length))
        for _ in range(each):
            own = list(base)
            for place in rng.integers(0, length, size=rng.integers(0, 6)):
                own[place] = str(rng.choice(vocabulary))
            out.append(" ".join(own))
    rng.shuffle(out)
    return [str(text) for text in out]


# Short sentences over few words, edits of one another, any script, and the odd raw unicode string.
sentences = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
edited = st.tuples(sentences, st.sampled_from(["", "!", "?", " now", "  ", "\n", "A"])).map("".join)
texts_strategy = st.lists(st.one_of(edited, st.text(max_size=12), sentences.map(str.upper)), max_size=24)


def test_fold_takes_case_and_white_space_away() -> None:
    assert fold("  Kill\t\n the\u00a0PROCESS ") == "kill the process"


def test_shingles_of_a_text_under_five_characters_is_the_text() -> None:
    assert shingles("Hi ") == {"hi"}
    assert shingles("") == {""}
    assert shingles("abcdef") == {"abcde", "bcdef"}


def test_jaccard_by_hand() -> None:
    assert jaccard("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert jaccard("", " \n") == 1.0
    assert jaccard("abcd", "abcde") == 0.0


def test_banding_loses_at_most_a_millionth_at_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        bands, rows = banding(threshold)
        assert bands * rows <= dedup.NUM_PERM
        assert (1 - threshold**rows) ** bands <= 1e-6
    assert banding(0.8) == (32, 4)


@given(texts_strategy, st.sampled_from([0.5, 0.8, 0.9, 1.0]))
@settings(deadline=None, max_examples=120)
def test_pairs_equal_brute_force(texts: list[str], threshold: float) -> None:
    pairs, near = near_duplicate_pairs(texts, threshold=threshold)
    found = {(int(a), int(b)): float(s) for (a, b), s in zip(pairs, near, strict=True)}
    assert len(found) == len(pairs)
    assert found == pytest.approx(brute_pairs(texts, threshold))
    assert sorted(found) == [tuple(pair) for pair in pairs.tolist()]


@given(texts_strategy, st.integers(0, 5))
@settings(deadline=None, max_examples=120)
def test_no_two_kept_rows_are_near_duplicates_and_every_drop_is_explained(texts: list[str], cut: int) -> None:
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


@given(texts_strategy, texts_strategy)
@settings(deadline=None, max_examples=80)
def test_nearest_reference_equals_brute_force(texts: list[str], reference: list[str]) -> None:
    found = nearest_reference(texts, reference)
    for text, position in zip(texts, found.tolist(), strict=True):
        near = [jaccard(text, other) for other in reference]
        best = max(near, default=0.0)
        assert (position == -1) == (best < 0.8)
        if position >= 0:
            assert near[position] == pytest.approx(best)


@given(texts_strategy)
@settings(deadline=None, max_examples=80)
def test_clusters_are_the_connected_components_of_the_pairs(texts: list[str]) -> None:
    labels = near_duplicate_clusters(texts)
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in brute_pairs(texts, 0.8):
        parent[max(root(a), root(b))] = min(root(a), root(b))
    groups: dict[int, int] = {}
    expected = [groups.setdefault(root(i), len(groups)) for i in range(len(texts))]
    assert labels.tolist() == expected


def test_long_texts_around_the_threshold_lose_no_pair() -> None:
    texts = siblings(np.random.default_rng(3), families=18, each=12)
    expected = brute_pairs(texts, 0.8)
    assert sum(0.8 <= near < 0.85 for near in expected.values()) > 50  # the test is about the border
    for seed in (1, 2, 3):
        pairs, near = near_duplicate_pairs(texts, seed=seed)
        assert {tuple(pair) for pair in pairs.tolist()} == set(expected)
        assert near.min() >= 0.8


def test_kept_rows_are_exactly_those_of_a_slow_greedy_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_BLOCK", 16)
    monkeypatch.setattr(dedup, "_CHUNK", 50)
    monkeypatch.setattr(dedup, "_EXACT", 300)
    texts = siblings(np.random.default_rng(4), families=12, each=10)
    kept: list[str] = []
    for text in texts:
        if all(jaccard(text, other) < 0.8 for other in kept):
            kept.append(text)
    assert deduplicate(frame(texts)).kept["text"].to_list() == kept


def test_candidates_include_all_that_datasketch_index_finds_and_that_hold() -> None:
    from datasketch import MinHash, MinHashLSH

    texts = siblings(np.random.default_rng(5), families=20, each=8, length=15)
    index = MinHashLSH(num_perm=128, params=banding(0.8))
    signatures = []
    for number, text in enumerate(texts):
        signature = MinHash(num_perm=128, seed=7)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        signatures.append(signature)
        index.insert(number, signature)
    theirs = {
        (a, b)
        for a, signature in enumerate(signatures)
        for b in index.query(signature)
        if a < b and jaccard(texts[a], texts[b]) >= 0.8
    }
    assert len(theirs) > 20
    assert theirs == {tuple(pair) for pair in near_duplicate_pairs(texts)[0].tolist()}


def test_signatures_estimate_jaccard_as_datasketch_says() -> None:
    texts = siblings(np.random.default_rng(6), families=1, each=30)
    signatures = dedup._signatures(*dedup._hash_shingles([fold(text) for text in texts]), 1, None)
    errors = [
        (signatures[a] == signatures[b]).mean() - jaccard(texts[a], texts[b])
        for a, b in itertools.combinations(range(30), 2)
    ]
    assert abs(np.mean(errors)) < 0.03
    assert np.abs(errors).max() < 0.2


def test_a_giant_group_of_near_identical_texts_is_cheap_and_leaves_one() -> None:
    base = "please look up the status of my order and tell me when the parcel with the blue jacket arrives, number "
    texts = [f"{base}{number}" for number in range(700)]
    result = deduplicate(frame(texts))
    assert result.kept["text"].to_list() == texts[:1]
    assert set(result.dropped["match_id"]) == {"r0"}
    assert near_duplicate_clusters(texts).max() == 0


def test_a_chain_is_one_cluster_but_only_direct_repeats_are_dropped() -> None:
    letters = "the quick brown fox jumps over the lazy dog while five wizards quietly box on the frozen lake at dawn"
    chain = [letters[start : start + 60] for start in range(0, 36, 6)]
    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[2])
    assert set(near_duplicate_clusters(chain)) == {0}
    assert deduplicate(frame(chain)).kept["text"].to_list() == chain[::2]


def test_references_are_taken_in_order_and_before_the_frame_itself() -> None:
    text = "How do I kill a process that ignores the signal?"
    result = deduplicate(
        frame([text, text.upper(), "Something else entirely, about gardens."]),
        against=[("first", frame(["unrelated words about the sea"], "a")), ("second", frame([text + "!"], "b"))],
    )
    assert result.dropped["reason"].to_list() == ["duplicate_of:second"] * 2
    assert result.dropped["match_id"].to_list() == ["b0", "b0"]
    assert result.by_reason() == {"duplicate_of:second": 2}
    assert result.duplicate_ratio == pytest.approx(2 / 3)


def test_the_copies_of_a_dropped_text_point_to_a_kept_row() -> None:
    first = "could you explain how the kernel kills a process that ignores its signals"
    second = first + "!"
    result = deduplicate(frame([first, second, second]))
    assert result.kept["id"].to_list() == ["r0"]
    assert result.dropped["match_id"].to_list() == ["r0", "r0"]
    assert result.exact_ratio == 0.0


def test_other_columns_are_carried_and_an_empty_frame_is_fine() -> None:
    own = frame(["one text about birds", "one text about birds"]).with_columns(label=pl.lit("BENIGN"))
    result = deduplicate(own)
    assert result.kept.columns == ["id", "text", "label"]
    assert result.dropped.columns == ["id", "text", "label", "reason", "match_id", "jaccard"]
    nothing = deduplicate(frame([]), against=[("x", frame(["a"]))])
    assert nothing.kept.height == nothing.dropped.height == 0
    assert nothing.duplicate_ratio == 0.0
    assert nearest_reference(["a"], []).tolist() == [-1]
    assert near_duplicate_pairs([])[0].shape == (0, 2)


def test_lone_surrogates_and_padding_characters_are_texts_like_others() -> None:
    texts = ["ab", "ab\0\0\0", "\ud800", "", "\0", "\U0010ffff" * 5]
    assert deduplicate(frame(["ab", "ab\0\0\0", "", "\0"])).kept.height == 4
    assert near_duplicate_pairs(texts)[0].shape == (0, 2)


def test_bad_input_is_named() -> None:
    with pytest.raises(BadInput, match=r"1\.5"):
        deduplicate(frame(["a"]), threshold=1.5)
    with pytest.raises(BadInput, match="'holdout' has no column text"):
        deduplicate(frame(["a"]), against=[("holdout", pl.DataFrame({"id": ["x"]}))])
    with pytest.raises(BadInput, match="1 rows without text"):
        deduplicate(pl.DataFrame({"id": ["a"], "text": [None]}, schema={"id": pl.String, "text": pl.String}))


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    deduplicate(frame([f"text number {i}" for i in range(10)]), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
