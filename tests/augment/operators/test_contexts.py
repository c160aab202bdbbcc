"""Contexts put trigger words into harmless sentences, in every language, distinct and by weight."""

from collections import Counter

import numpy as np
import pytest

from crywolf.augment.operators.contexts import SHAPES, ContextPicker
from crywolf.data import BadInput
from crywolf.data.embedded.contexts import all_contexts

LANGUAGES = sorted(all_contexts())


@pytest.mark.parametrize("language", LANGUAGES)
def test_samples_of_every_language_are_distinct_whole_and_filled(language: str) -> None:
    found = ContextPicker().samples(300, np.random.default_rng(0), language=language)
    texts = [grown.text for grown in found]
    assert len(set(texts)) == len(texts) == 300
    assert not [text for text in texts if "{" in text or "}" in text or text != text.strip()]
    assert all(grown.how.startswith(f"context:{language}/") for grown in found)


def test_the_words_that_matter_come_most_often_and_others_still_come() -> None:
    found = ContextPicker().samples(600, np.random.default_rng(1), words={"ignoring": 3.0, "kill": 1.0})
    first = Counter(grown.how.split("/")[1].split("+")[0] for grown in found if "everyday" not in grown.how)
    assert first["ignore"] > 2 * first["kill"] > 0
    assert len(first) > 50


def test_a_trigger_word_stands_in_the_sample_that_names_it() -> None:
    found = ContextPicker(shapes={"one": 1.0}).samples(200, np.random.default_rng(2), words={"password": 1.0})
    named = [grown.text.lower() for grown in found if grown.how == "context:en/password"]
    assert len(named) > 100
    assert np.mean(["password" in text for text in named]) > 0.8  # the others hold "passphrase" and the like


@pytest.mark.parametrize(("shape", "words"), [("one", 1), ("two", 2), ("three", 3)])
def test_a_shape_holds_as_many_different_trigger_words(shape: str, words: int) -> None:
    found = ContextPicker(shapes={shape: 1.0}).samples(80, np.random.default_rng(3))
    assert {len(set(grown.how.split("/", 1)[1].split("+"))) for grown in found} == {words}


def test_everyday_prompts_hold_no_trigger_word_of_english() -> None:
    banned = {"ignore", "bypass", "jailbreak", "exploit", "hack", "override"}
    found = ContextPicker(shapes={"everyday": 1.0}).samples(300, np.random.default_rng(4))
    assert not [grown.text for grown in found if banned & set(grown.text.lower().split())]


def test_the_same_generator_gives_the_same_samples() -> None:
    first = ContextPicker().samples(50, np.random.default_rng(5), words={"reveal": 1})
    assert first == ContextPicker().samples(50, np.random.default_rng(5), words={"reveal": 1})


def test_what_is_not_to_be_remembered_may_come_again() -> None:
    picker = ContextPicker()
    first = picker.samples(20, np.random.default_rng(6), remember=False)
    assert first == picker.samples(20, np.random.default_rng(6), remember=False)
    assert first != picker.samples(20, np.random.default_rng(7))


def test_an_unknown_language_is_an_error_that_names_the_known() -> None:
    with pytest.raises(BadInput, match="'xx'; there are en"):
        ContextPicker().samples(1, np.random.default_rng(0), language="xx")


def test_the_shapes_sum_to_one() -> None:
    assert sum(SHAPES.values()) == pytest.approx(1.0)
