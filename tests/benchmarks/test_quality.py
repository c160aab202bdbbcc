from collections.abc import Sequence
from pathlib import Path

import grammar
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from quality import quality, self_bleu, semantic_distance, tokens

SENTENCES = yaml.safe_load(Path(__file__).with_name("grammar_sentences.yaml").read_text(encoding="utf-8"))
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", ",", "?"]), max_size=9).map(" ".join)
needs_checker = pytest.mark.skipif(grammar.unavailable() is not None, reason=str(grammar.unavailable()))


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors that count letters."""
    counts = np.array([[text.count(letter) for letter in "abcdefghij"] for text in texts], dtype=np.float32) + 1e-6
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@given(st.lists(WORDS, min_size=2, max_size=12))
@settings(max_examples=60)
def test_self_bleu_is_sacrebleus_sentence_bleu_against_all_others(texts: list[str]) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    bleu = metrics.BLEU(tokenize="none", effective_order=True)
    plain = [" ".join(tokens(text)) for text in texts]
    scores = [bleu.sentence_score(one, plain[:i] + plain[i + 1 :]).score / 100 for i, one in enumerate(plain)]
    assert self_bleu(texts) == pytest.approx(np.mean(scores), abs=1e-9)


def test_self_bleu_of_one_text_is_not_a_number_that_can_be_had() -> None:
    assert self_bleu(["one"]) is None
    assert self_bleu(["the same text here", "the same text here"]) == pytest.approx(1.0)


def test_copies_are_all_repetition_and_no_distance() -> None:
    fps = {"a": "please list the files in this folder", "b": "how do I bake a loaf of rye bread"}
    found = quality([*fps.values()] * 5, ["a", "b"] * 5, fps, encode=letters)
    assert found["samples"] == 10
    assert found["near_duplicates_of_fps"] == 1.0
    assert found["near_duplicates_within"] == pytest.approx(0.8)
    assert found["semantic_distance"] == pytest.approx(0.0, abs=1e-6)
    assert found["self_bleu"] == pytest.approx(1.0)
    assert found["distinct_1"] == pytest.approx(16 / 80)


def test_other_texts_are_no_repetition() -> None:
    fps = {"a": "please list the files in this folder"}
    texts = ["what a lovely garden you have", "sorting takes a moment here", "why is the sky blue at noon"]
    found = quality(texts, ["a", "a", None], fps)
    assert found["near_duplicates_of_fps"] == 0.0
    assert found["near_duplicates_within"] == 0.0
    assert found["semantic_distance"] is None
    assert found["distinct_1"] == pytest.approx(17 / 18)


def test_distance_is_measured_to_the_samples_own_prompt() -> None:
    fps = {"a": "aaaa", "b": "bbbb"}
    assert semantic_distance(["aa", "bb"], ["a", "b"], fps, letters) == pytest.approx(0.0, abs=1e-3)
    assert semantic_distance(["aa", "bb"], ["b", "a"], fps, letters) == pytest.approx(1.0, abs=1e-3)
    assert semantic_distance(["aa", "bb"], ["a", None], fps, letters) == pytest.approx(0.0, abs=1e-3)
    assert semantic_distance(["aa"], [None], fps, letters) is None


def test_no_samples_are_no_error() -> None:
    assert quality([], [], {"a": "text"}, encode=letters)["ungrammatical"] is None


@pytest.mark.parametrize("text", ["Can you show me how to do this?", "show me the log", "please delete my files"])
def test_english_is_told_by_letters_and_function_words(text: str) -> None:
    assert grammar.is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Kannst du mir zeigen, wie das geht?",
        "Как дела?",
        "今日は",
        "",
        "numpy pandas scipy",
        "¿Qué hora es, por favor?",
    ],
)
def test_other_languages_and_lists_are_not_judged(text: str) -> None:
    assert not grammar.is_english(text)


def test_without_the_parser_the_grammar_is_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = quality(["this is a test of it"] * 3, ["a"] * 3, {"a": "this is it"})
    assert found["ungrammatical"] is None
    assert found["grammar_not_judged"] == 3
    assert "apt-get" in str(found["grammar_checker"])


@needs_checker
@pytest.mark.parametrize("part", ["tuned", "fresh"])
def test_the_checker_flags_broken_sentences_and_spares_good_ones(part: str) -> None:
    good, broken = (grammar.ungrammatical(SENTENCES[part][kind]) for kind in ("good", "broken"))
    flagged, wrongly = sum(v is True for v in broken), sum(v is True for v in good)
    assert len(good) == len(broken) == 40
    assert flagged / (flagged + wrongly) >= 0.9
    assert flagged / len(broken) >= 0.7


@needs_checker
def test_a_prompt_pasted_into_a_frame_is_flagged() -> None:
    assert grammar.ungrammatical(["Can you help me understand How do I handle"]) == [True]
    assert grammar.ungrammatical(["Can you help me understand how to handle it?"]) == [False]


@needs_checker
@pytest.mark.parametrize("command", ["!exit", "!null=0", "!file /etc/passwd", "% a remark to the parser"])
def test_the_parsers_commands_in_a_prompt_are_text(command: str) -> None:
    after = ["She sings well.", "How to I can remove the old version?"]
    assert grammar.judge([command, *after])[1:] == [False, True]


@needs_checker
def test_noise_does_not_save_a_sample_of_an_english_prompt_from_judgement() -> None:
    fps = {"a": "Please explain how this function works"}
    noisy = "Pl3ase expl@in h0w thls functoin wroks"
    found = quality([noisy, noisy + " x"], ["a", "a"], fps)
    assert found["grammar_judged"] == 2
    assert found["misspelt"] == 1.0
