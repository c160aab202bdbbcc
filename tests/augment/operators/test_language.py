"""A prompt's language is told by its script and common words; English where nothing tells."""

import numpy as np
import pytest

from crywolf.augment.operators.contexts import ContextPicker
from crywolf.augment.operators.language import is_latin, language_of
from crywolf.data.embedded.contexts import all_contexts


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I kill a process on port 8080?", "en"),
        ("kubectl get pods -n kube-system", "en"),
        ("", "en"),
        ("¿Cómo puedo reiniciar el router de mi casa?", "es"),
        ("如何用 Python 读取 CSV 文件？", "zh"),
        ("как отсортировать список в python", "ru"),
    ],
)
def test_the_language_of_a_prompt(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("language", sorted(all_contexts()))
def test_most_sentences_of_every_language_are_told_to_be_of_it(language: str) -> None:
    found = ContextPicker().samples(100, np.random.default_rng(0), language=language)
    right = [language_of(grown.text) == language for grown in found]
    assert np.mean(right) >= 0.85


def test_latin_letters_are_told_from_others() -> None:
    assert is_latin("Grüße aus Köln")
    assert not is_latin("Привет, как дела?")
