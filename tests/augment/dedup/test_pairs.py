"""Pairs, clusters and nearest references against brute force, and against datasketch's own index."""

import dataclasses
from collections.abc import Callable

import networkx
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import (
    banding,
    jaccard,
    near_duplicate_clusters,
    near_duplicate_pairs,
    nearest_reference,
    nearest_with_jaccard,
    shingles,
    sketch,
)
from crywolf.augment.dedup.pairs import components

WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "the", "signal", "please", "Über", "进程", "да"]
# Short sentences over few words, edits of one another, any script, and the odd raw unicode string.
sentences = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
edited = st.tuples(sentences, st.sampled_from(["", "!", "?", " now", "  ", "\n", "A"])).map("".join)
texts_strategy = st.lists(st.one_of(edited, st.text(max_size=12), sentences.map(str.upper)), max_size=24)

Frame = Callable[..., pl.DataFrame]
Brute = Callable[[list[str], float], dict[tuple[int, int], float]]
Siblings = Callable[..., list[str]]


@given(texts_strategy, st.sampled_from([0.5, 0.8, 0.9, 1.0]))
@settings(deadline=None, max_examples=120)
def test_pairs_equal_brute_force(brute_pairs: Brute, texts: list[str], threshold: float) -> None:
    pairs, near = near_duplicate_pairs(texts, threshold=threshold)
    found = {(int(a), int(b)): float(s) for (a, b), s in zip(pairs, near, strict=True)}
    assert len(found) == len(pairs)
    assert found == pytest.approx(brute_pairs(texts, threshold))
    assert sorted(found) == [tuple(pair) for pair in pairs.tolist()]


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
def test_clusters_are_the_connected_components_of_the_pairs(brute_pairs: Brute, texts: list[str]) -> None:
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


def test_long_texts_around_the_threshold_lose_no_pair(brute_pairs: Brute, siblings: Siblings) -> None:
    texts = siblings(np.random.default_rng(3), families=18, each=12)
    expected = brute_pairs(texts, 0.8)
    assert sum(0.8 <= near < 0.85 for near in expected.values()) > 50  # the test is about the border
    for seed in (1, 2, 3):
        pairs, near = near_duplicate_pairs(texts, seed=seed)
        assert {tuple(pair) for pair in pairs.tolist()} == set(expected)
        assert near.min() >= 0.8


def test_candidates_include_all_that_datasketch_index_finds_and_that_hold(siblings: Siblings) -> None:
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


@pytest.mark.parametrize("many", [0, 256])
def test_clusters_are_the_same_whether_large_buckets_are_thinned_or_not(
    many: int, siblings: Siblings, brute_pairs: Brute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crywolf.augment.dedup.pairs._MANY", many)
    monkeypatch.setattr("crywolf.augment.dedup.pairs._BUDGET", 100)
    monkeypatch.setattr("crywolf.augment.dedup.pairs._STEP", 7)
    texts = siblings(np.random.default_rng(9), families=10, each=12)
    labels = near_duplicate_clusters(texts)
    pairs = brute_pairs(texts, 0.8)
    assert all(labels[a] == labels[b] for a, b in pairs)
    graph = networkx.Graph(list(pairs))
    graph.add_nodes_from(range(len(texts)))
    assert labels.max() + 1 == networkx.number_connected_components(graph)


def test_nearest_with_jaccard_says_how_near(siblings: Siblings) -> None:
    texts = siblings(np.random.default_rng(10), families=5, each=6)
    match, near = nearest_with_jaccard(texts[:10], texts[10:])
    assert 0 < (match >= 0).sum() < 10
    for text, position, value in zip(texts[:10], match.tolist(), near.tolist(), strict=True):
        assert value == (jaccard(text, texts[10 + position]) if position >= 0 else 0.0)


def test_two_families_in_one_large_bucket_are_two_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crywolf.augment.dedup.pairs._MANY", 0)
    stems = ("a lighthouse keeper finds an old map in the sand, part ", "nobody has watered the plants in the hall ")
    folded = [f"{stem}{number}" for number in range(4) for stem in stems]  # each beside one of the other family
    one_bucket = dataclasses.replace(sketch.sketch(folded, 0.8), bands=np.zeros((1, len(folded)), dtype=np.uint32))
    labels = components(one_bucket)
    assert [labels[row] == labels[0] for row in range(8)] == [True, False] * 4
    assert len(set(labels.tolist())) == 2
