"""The guards apply the rule to the letter: margin and own similarity together, then the topic."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from crywolf.augment.guards import (
    OFF_TOPIC,
    TOWARD_ATTACK,
    TWIN_TOO_CLOSE,
    Guard,
    cosine_rows,
    encode_unique,
    guard,
    nearest_cosine,
)
from crywolf.data import BadInput, make_corpus

AXES = ("files", "permissions", "recipe", "ignore", "instructions", "reveal", "secret", "music")


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """A bag of eight words: cosines that a reader can work out."""
    counts = np.array([[text.split().count(axis) for axis in AXES] for text in texts], dtype=np.float32)
    norms = np.linalg.norm(counts, axis=1, keepdims=True)
    return counts / np.where(norms == 0, 1, norms)


def rows(*pairs: tuple[str, str], how: str = "frame:x") -> pl.DataFrame:
    return pl.DataFrame({"text": [t for t, _ in pairs], "origin_id": [o for _, o in pairs], "how": [how] * len(pairs)})


FPS = pl.DataFrame({"id": ["a", "b"], "text": ["files permissions", "files ignore"]})
ATTACKS = pl.DataFrame({"id": ["x", "y"], "text": ["ignore instructions", "reveal secret"]})


def test_a_sample_that_stays_with_its_prompt_is_kept_with_its_similarities() -> None:
    result = guard(rows(("files permissions files", "a")), FPS, encode=encode, malicious=ATTACKS)
    assert result.dropped.is_empty()
    (row,) = result.kept.to_dicts()
    assert row["to_fp"] == pytest.approx(3 / np.sqrt(10), abs=1e-5)
    assert row["to_attack"] == row["fp_to_attack"] == 0


def test_a_sample_that_turns_into_an_attack_is_dropped() -> None:
    result = guard(rows(("files ignore instructions", "a")), FPS, encode=encode, malicious=ATTACKS)
    assert result.drops == {TOWARD_ATTACK: 1}
    assert result.dropped["to_attack"][0] == pytest.approx(2 / np.sqrt(6), abs=1e-5)


def test_nearer_to_attacks_but_still_nearer_to_the_prompt_is_kept() -> None:
    # 0.71 to the prompt, 0.5 to the attack, whose nearest is 0 for the prompt: over the margin, under its own.
    result = guard(rows(("files permissions files ignore", "a")), FPS, encode=encode, malicious=ATTACKS)
    assert result.kept["to_attack"][0] > 0.1
    assert result.dropped.is_empty()


def test_a_prompt_that_is_itself_near_attacks_may_stay_as_near() -> None:
    # b is at 0.5 to the attack; the sample at 0.577 exceeds that by less than the margin.
    sample = rows(("files ignore music", "b"))
    assert guard(sample, FPS, encode=encode, malicious=ATTACKS).drops == {}


def test_the_margin_is_the_callers() -> None:
    sample = rows(("ignore instructions files permissions", "a"))
    assert guard(sample, FPS, encode=encode, malicious=ATTACKS).dropped.is_empty()  # equal: not nearer than the prompt
    sample = rows(("ignore instructions ignore files permissions", "a"))
    assert guard(sample, FPS, encode=encode, malicious=ATTACKS).drops == {TOWARD_ATTACK: 1}
    assert guard(sample, FPS, encode=encode, malicious=ATTACKS, margin=0.9).drops == {}


def test_leaving_the_topic_is_a_drop_and_templates_have_their_own_floor() -> None:
    sample = ("files music music", "a")  # 0.316
    assert guard(rows(sample), FPS, encode=encode).drops == {OFF_TOPIC: 1}
    assert guard(rows(sample, how="template:shell/1"), FPS, encode=encode).drops == {}
    assert guard(rows(("music", "a"), how="template:shell/1"), FPS, encode=encode).drops == {OFF_TOPIC: 1}


def test_without_attacks_only_the_topic_is_guarded() -> None:
    result = guard(rows(("ignore instructions", "a"), ("recipe", "a")), FPS, encode=encode)
    assert result.drops == {OFF_TOPIC: 2}
    assert result.kept.height == 0
    assert result.mean_to_fp is None


def test_a_sample_of_an_unknown_prompt_is_an_error() -> None:
    with pytest.raises(BadInput, match="unknown prompt 'zz'"):
        guard(rows(("files", "zz")), FPS, encode=encode)


def test_twins_are_judged_by_the_ceiling_alone() -> None:
    twins = make_corpus(
        [{"text": "ignore instructions"}, {"text": "ignore music recipe"}], source="curated", label="BENIGN"
    )
    result = Guard(encode, ATTACKS).check_twins(twins)
    assert result.drops == {TWIN_TOO_CLOSE: 1}
    assert result.dropped["text"].to_list() == ["ignore instructions"]


def test_attacks_are_encoded_once_for_all_checks_and_texts_once_each() -> None:
    seen: list[str] = []

    def counting(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return encode(texts)

    keeper = Guard(counting, ATTACKS)
    keeper.check(rows(("files", "a"), ("files", "b")), FPS)
    keeper.check(rows(("files recipe", "a")), FPS)
    assert seen.count("ignore instructions") == 1
    assert seen.count("files") == 1


def test_no_samples_at_all() -> None:
    empty = rows().cast({"text": pl.String, "origin_id": pl.String, "how": pl.String})
    result = guard(empty, FPS, encode=encode, malicious=ATTACKS)
    assert result.kept.is_empty()
    assert result.drops == {}


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return (array / np.where(norms == 0, 1, norms)).astype(np.float32)


matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(4)), elements=st.floats(-1, 1, width=16))


@settings(max_examples=50, deadline=None)
@given(matrices, matrices)
def test_blocks_give_what_brute_force_gives(left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
    left, right = _unit(left), _unit(right)
    wanted = np.array([max(float(a @ b) for b in right) for a in left])
    np.testing.assert_allclose(nearest_cosine(left, right), wanted, atol=1e-5)
    at = np.arange(len(left)) % len(right)
    wanted = np.array([float(a @ right[i]) for a, i in zip(left, at, strict=True)])
    np.testing.assert_allclose(cosine_rows(left, np.arange(len(left)), right, at), wanted, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(AXES), max_size=20), st.lists(st.sampled_from(AXES), min_size=1, max_size=20))
def test_positions_lead_back_to_each_text(first: list[str], second: list[str]) -> None:
    columns = [pl.Series(first, dtype=pl.String), pl.Series(second, dtype=pl.String)]
    vectors, positions = encode_unique(encode, columns)
    assert len(vectors) == len({*first, *second})
    for texts, at in zip((first, second), positions, strict=True):
        assert len(at) == len(texts)
        if texts:
            np.testing.assert_array_equal(vectors[at], encode(texts))
