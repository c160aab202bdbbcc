"""Shingles, signatures and exact similarities against Python's sets and against datasketch itself."""

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.augment.dedup import banding, fold, jaccard, minhash_signatures, shingles, sign, sketch
from crywolf.augment.dedup.sketch import hash_shingles, pair_jaccards, signed_hashes

WORDS = ["how", "do", "i", "kill", "a", "process", "that", "ignores", "the", "signal", "please", "Über", "进程", "да"]
sentences = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
any_text = st.one_of(sentences, st.text(max_size=12), sentences.map(str.upper))


def theirs(rows: list[list[int]], seed: int, num_perm: int) -> np.ndarray:
    """The signatures of datasketch, given the hashes as they are."""
    out = np.empty((len(rows), num_perm), dtype=np.uint32)
    for number, row in enumerate(rows):
        minhash = MinHash(num_perm=num_perm, seed=seed, hashfunc=lambda value: value, scheme="affine32")
        minhash.update_batch(row)
        out[number] = minhash.hashvalues
    return out


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
        assert bands * rows <= 128
        assert (1 - threshold**rows) ** bands <= 1e-6
    assert banding(0.8) == (32, 4)


@given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=20), max_size=12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 16, 128]),
)
@settings(deadline=None, max_examples=80)
def test_signatures_of_any_hashes_are_datasketchs_to_the_bit(rows: list[list[int]], seed: int, num_perm: int) -> None:
    values = np.array([value for row in rows for value in row], dtype=np.uint32)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    ours = minhash_signatures(values, indptr, seed=seed, num_perm=num_perm)
    np.testing.assert_array_equal(ours, theirs(rows, seed, num_perm))


@given(st.lists(any_text, max_size=12), st.integers(0, 1000), st.sampled_from([1, 40, 1 << 16]))
@settings(deadline=None, max_examples=60)
def test_signatures_of_texts_are_datasketchs_whatever_pieces_they_are_made_in(
    texts: list[str], seed: int, piece: int
) -> None:
    folded = [fold(text) for text in texts]
    hashes, indptr = hash_shingles(folded)
    rows = [signed_hashes(hashes[a:b]).tolist() for a, b in itertools.pairwise(indptr)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crywolf.augment.dedup.sketch._PIECE", piece)
        ours = sign(folded, seed=seed)
    np.testing.assert_array_equal(ours, theirs(rows, seed, 128))


@given(st.lists(any_text, max_size=12))
@settings(deadline=None, max_examples=80)
def test_two_shingles_have_one_hash_only_if_they_are_the_same(texts: list[str]) -> None:
    folded = [fold(text) for text in texts]
    hashes, indptr = hash_shingles(folded)
    known: dict[str, set[int]] = {}
    for text, (a, b) in zip(folded, itertools.pairwise(indptr), strict=True):
        grams = [text[i : i + 5] for i in range(max(len(text) - 4, 1))]
        assert len(grams) == b - a
        for gram, value in zip(grams, hashes[a:b].tolist(), strict=True):
            known.setdefault(gram, set()).add(value)
    assert all(len(values) == 1 for values in known.values())
    assert len(set().union(*known.values())) == len(known)


@given(st.lists(st.tuples(any_text, any_text), max_size=12))
@settings(deadline=None, max_examples=80)
def test_exact_similarities_are_those_of_pythons_sets(pairs: list[tuple[str, str]]) -> None:
    left, right = [fold(a) for a, _ in pairs], [fold(b) for _, b in pairs]
    assert pair_jaccards(left, right).tolist() == [jaccard(a, b) for a, b in pairs]


def test_exact_similarities_of_more_pairs_than_fit_one_sort(siblings: Callable[..., list[str]]) -> None:
    texts = [fold(text) for text in siblings(np.random.default_rng(1), families=30, each=20)]
    others = texts[1:] + texts[:1]
    assert pair_jaccards(texts, others).tolist() == [jaccard(a, b) for a, b in zip(texts, others, strict=True)]


def test_signatures_estimate_jaccard_as_datasketch_says(siblings: Callable[..., list[str]]) -> None:
    texts = siblings(np.random.default_rng(6), families=1, each=30)
    signatures = sign([fold(text) for text in texts])
    errors = [
        (signatures[a] == signatures[b]).mean() - jaccard(texts[a], texts[b])
        for a, b in itertools.combinations(range(30), 2)
    ]
    assert abs(np.mean(errors)) < 0.03
    assert np.abs(errors).max() < 0.2


def test_what_the_signatures_rule_out_is_never_a_near_duplicate(siblings: Callable[..., list[str]]) -> None:
    texts = [fold(text) for text in siblings(np.random.default_rng(8), families=6, each=25)]
    sketches = sketch.sketch(texts, 0.8)
    a, b = (part.astype(np.int64) for part in np.triu_indices(len(texts), 1))
    ruled_out = np.ones(len(a), dtype=bool)
    ruled_out[sketches.likely(a, b)] = False
    near = sketches.exact(a, b) >= 0.8
    assert near.sum() > 200
    assert ruled_out.sum() > 5000
    assert not (ruled_out & near).any()


def test_signing_needs_little_more_memory_than_the_signatures() -> None:
    texts = [f"text number {i} " + "of some length that is said again and again " * 4 for i in range(4000)]
    tracemalloc.start()
    try:
        signatures = sign(texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < signatures.nbytes + 8e6


def test_progress_goes_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    sign(["some text"] * 20_000, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (20_000, 20_000)
