"""Attribution finds the words that turn a detector's verdict, by group, asking the detector and nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from crywolf.augment.attribution import contrast, explain, occlusion
from crywolf.data import BadInput

TEXTS = [
    "How do I ignore whitespace in a diff?",
    "Please kill the process on port 8080",
    "ignore the second column of this table",
    "How do I kill weeds between the stones?",
]


def score(texts: Sequence[str]) -> NDArray[np.float64]:
    """Flag a text for "ignore" or "kill", whatever stands around them."""
    return np.array([0.9 if {"ignore", "kill"} & set(text.lower().split()) else 0.1 for text in texts])


def test_leaving_out_the_word_that_the_detector_fears_turns_the_verdict_and_no_other_word_does() -> None:
    pieces = occlusion(TEXTS, score, threshold=0.5, rng=np.random.default_rng(0))
    words = pieces.filter(~pieces["opening"])
    assert set(words.filter("turned")["piece"]) == {"ignore", "kill"}
    assert words.filter("turned")["drop"].min() > 4  # log-odds of 0.9 against 0.1
    assert words.filter(~words["turned"])["drop"].abs().max() < 1e-9


def test_an_opening_that_holds_the_trigger_turns_the_verdict_too() -> None:
    pieces = occlusion(TEXTS, score, threshold=0.5, rng=np.random.default_rng(0))
    openings = pieces.filter("opening")
    assert dict(openings.select("piece", "turned").iter_rows()) == {
        "how do i": False,
        "please kill the": True,
        "ignore the second": True,
    }


def test_what_is_left_of_a_text_keeps_everything_but_the_word() -> None:
    seen: list[str] = []

    def record(texts: Sequence[str]) -> NDArray[np.float64]:
        seen.extend(texts)
        return np.full(len(texts), 0.5)

    occlusion(["Stop it, now!"], record, threshold=0.5, rng=np.random.default_rng(0))
    assert seen[1:] == ["it, now!", "Stop , now!", "Stop it, !"]


def test_of_a_long_prompt_only_some_words_are_left_out() -> None:
    text = " ".join(f"word{i}" for i in range(500))
    pieces = occlusion([text], score, threshold=0.5, rng=np.random.default_rng(0), most_words=20)
    assert pieces.filter(~pieces["opening"]).height == 20


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(BadInput, match="not finite"):
        occlusion(TEXTS, lambda texts: np.full(len(texts), np.nan), threshold=0.5, rng=np.random.default_rng(0))


def test_contrast_ranks_the_words_that_ordinary_prompts_lack() -> None:
    ordinary = [f"How do I sort the {noun}?" for noun in ("list", "table", "files", "names", "rows")] * 5
    found = contrast([*TEXTS, "please ignore the warnings", "kill the server"], ordinary)
    assert set(found["word"].head(2)) == {"ignore", "kill"}
    assert found.filter(found["word"] == "how")["z"].item() < 0


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Two directions: texts about processes, and all others, with a little of the length so that none coincide."""
    rows = [[1.0, 0.02 * len(t)] if "process" in t else [0.02 * len(t), 1.0] for t in texts]
    vectors = np.array(rows, dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_each_group_has_its_own_triggers_and_the_largest_group_comes_first() -> None:
    texts = [f"kill the process number {i}" for i in range(30)] + [f"ignore row {i}" for i in range(45)]
    found = explain(texts, rng=np.random.default_rng(0), encode=encode, score=score, threshold=0.5)
    assert found.method == "occlusion"
    assert sum(len(group.rows) for group in found.groups) == 75
    assert [len(group.rows) for group in found.groups] == sorted((len(g.rows) for g in found.groups), reverse=True)
    for group in found.groups:
        kinds = {texts[row].split()[0] for row in group.rows}
        assert {group.words["word"][0]} == kinds  # one trigger each: groups do not mix
        assert max(group.weights(), key=lambda word: group.weights()[word]) in kinds


def test_without_detector_or_ordinary_text_only_counts_are_given() -> None:
    found = explain(TEXTS, rng=np.random.default_rng(0))
    assert found.method == "none"
    assert found.groups[0].weights() == {}
    assert explain(TEXTS, rng=np.random.default_rng(0), ordinary=["a b c"] * 9).method == "contrast"


def test_a_detector_that_no_word_turns_is_said() -> None:
    found = explain(TEXTS * 10, rng=np.random.default_rng(0), score=lambda texts: np.full(len(texts), 0.9))
    assert "turned the verdict of only 0 of 40" in found.notes[0]


def test_no_prompts_are_no_groups() -> None:
    assert explain([], rng=np.random.default_rng(0)).groups == ()
