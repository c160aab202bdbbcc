import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.augment.operators.swaps import sites, swap_once, swaps
from crywolf.data.embedded.lexicons import lexicons

LEXICONS = lexicons()


def _swapped(text: str, seed: int = 0, n: int = 8) -> list[str]:
    return [g.text for g in swaps(text, n=n, rng=np.random.default_rng(seed), lexicons=LEXICONS)]


def test_a_language_is_swapped_with_its_article() -> None:
    texts = _swapped("Write a Python program that adds two numbers.")
    assert len(texts) >= 5
    for text in texts:
        assert re.fullmatch(r"Write an? [\w+#]+ program that adds two numbers\.", text)
        assert "Python" not in text


def test_hooks_stay_with_react_and_ownership_with_rust() -> None:
    assert _swapped("Explain hooks in a React app") == []
    assert _swapped("How does ownership work in a Rust program?") == []


def test_a_language_that_is_bound_to_code_stays() -> None:
    assert _swapped("Translate the following Java code to C++: int x = 1;") == []


@pytest.mark.parametrize(
    "text",
    [
        "go to the next song",
        "please act swiftly",
        "the rest of my day",
        "express yourself",
        "i saw a python at the zoo",
    ],
)
def test_words_that_only_look_like_names_stay(text: str) -> None:
    assert _swapped(text) == []


def test_lower_case_prompts_get_lower_case_mentions() -> None:
    for text in _swapped("please say it in french"):
        assert text == text.lower()
        assert "french" not in text


def test_an_extension_changes_everywhere_alike() -> None:
    found = _swapped("Copy all *.jpg files, and '/a/b.jpg' too, to /backup/x")
    assert found
    for text in found:
        kinds = set(re.findall(r"\.(\w{2,4})\b", text))
        assert len(kinds) == 1
        assert kinds != {"jpg"}


def test_mentions_that_are_quoted_elsewhere_stay() -> None:
    assert _swapped('Connect to a MySQL database at "jdbc:mysql://localhost/x" and list users') == []


def test_two_mentions_of_a_kind_stay_as_they_are() -> None:
    assert _swapped("tell my bank i will be away from june 1st to july 1st") == []


def test_numbers_keep_their_size() -> None:
    for text in _swapped("set a timer for 40 minutes", n=5):
        number = int(re.findall(r"\d+", text)[0])
        assert number != 40
        assert 8 <= number <= 200


def test_the_account_names_the_lexicon_and_both_words() -> None:
    grown = swaps("i lost my visa card", n=1, rng=np.random.default_rng(1), lexicons=LEXICONS)[0]
    assert grown.operator == "swap"
    assert re.fullmatch(r"swap:card:Visa>\w+", grown.how)


def test_sites_tell_what_may_be_swapped() -> None:
    found = sites("tell me the limit on my discover card", LEXICONS)
    assert [(site.lexicon, site.entry.text) for site in found] == [("card", "Discover")]


def test_the_same_generator_gives_the_same_swaps() -> None:
    text = "Write a Python function, send it to paris and wait 10 minutes"
    assert _swapped(text, seed=4) == _swapped(text, seed=4)


@given(st.text(max_size=120))
def test_swaps_of_any_text_are_distinct_and_differ_from_it(text: str) -> None:
    texts = _swapped(text, n=3)
    assert len(set(texts)) == len(texts)
    assert text not in texts
    assert swap_once("", rng=np.random.default_rng(0), lexicons=LEXICONS) is None
