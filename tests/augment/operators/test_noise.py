import random
from difflib import SequenceMatcher

import numpy as np
import pytest

from crywolf.augment.operators.noise import OPERATORS, noise
from crywolf.data.embedded.lexicons import lexicons
from crywolf.data.errors import BadInput

LEXICONS = lexicons()
TEXTS = [
    "find every directory that holds temporary files and delete them",
    'Print "directory separate necessary" to standard output, then remove /srv/directory/file.txt',
    "please explain the difference between these two configuration languages",
]


def _noise(texts: list[str], seed: int = 0, operators: tuple[str, ...] = OPERATORS) -> list[str]:
    return [g.text for g in noise(texts, rng=np.random.default_rng(seed), lexicons=LEXICONS, operators=operators)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_changes_a_word_or_two_and_says_so(operator: str) -> None:
    made = noise(TEXTS[:2], rng=np.random.default_rng(1), lexicons=LEXICONS, operators=(operator,))
    for text, grown in zip(TEXTS, made, strict=False):
        assert grown.text != text
        assert grown.how == f"noise:{operator}"
        assert SequenceMatcher(None, text, grown.text).ratio() > 0.75


@pytest.mark.parametrize("seed", range(6))
def test_quotations_and_paths_stay_verbatim(seed: int) -> None:
    noisy = _noise([TEXTS[1]], seed=seed)[0]
    assert '"directory separate necessary"' in noisy
    assert "/srv/directory/file.txt" in noisy


def test_lines_under_an_instruction_stay_verbatim() -> None:
    code = "Correct this program please.\nremove directory separate necessary language"
    for seed in range(5):
        assert _noise([code], seed=seed)[0].endswith("\nremove directory separate necessary language")


def test_reserved_words_come_from_our_synonyms() -> None:
    made = {_noise(["delete the old directory"], seed=s, operators=("reserved",))[0] for s in range(12)}
    assert made & {"delete the old folder", "remove the old directory", "erase the old directory"}
    assert _noise(["the search output was long"], operators=("reserved",)) == ["the search output was long"]


def test_a_text_without_plain_words_comes_back_as_it_is() -> None:
    grown = noise(["$$ 12 /a/b"], rng=np.random.default_rng(0), lexicons=LEXICONS)
    assert [(g.text, g.how) for g in grown] == [("$$ 12 /a/b", "noise:none")]


def test_noise_is_repeatable_and_leaves_the_global_generators_alone() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the state that must be left alone
    expected = (random.random(), np.random.random())  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the state that must be left alone
    first = _noise(TEXTS, seed=9)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    assert _noise(TEXTS, seed=9) == first


def test_an_unknown_operator_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="ocr"):
        _noise(TEXTS, operators=("ocr",))


def test_foreign_texts_get_no_english_misspellings_and_no_english_synonyms() -> None:
    swedish = "ursäkta mig, hur avslutar man process different language directory"
    german = "warum ist dieser process different und necessary, delete old directory"
    for seed in range(6):
        rng = np.random.default_rng(seed)
        made = noise([swedish, german], rng=rng, lexicons=LEXICONS, operators=("spelling", "reserved"), language="de")
        assert [(g.text, g.how) for g in made] == [(swedish, "noise:none"), (german, "noise:none")]
        # letters with accents tell even where the language was not given
        assert _noise([swedish], seed=seed, operators=("spelling", "reserved")) == [swedish]


def test_a_language_can_be_given_for_each_text() -> None:
    texts = ["please explain the difference", "please explain the difference", "please explain the difference"]
    rng = np.random.default_rng(0)
    made = noise(texts, rng=rng, lexicons=LEXICONS, operators=("spelling",), language=["en", "nl", "und"])
    assert [g.how for g in made] == ["noise:spelling", "noise:none", "noise:spelling"]
    with pytest.raises(BadInput, match="2 languages for 3 texts"):
        noise(texts, rng=rng, lexicons=LEXICONS, language=["en", "de"])


def test_the_keyboard_slips_on_latin_letters_only() -> None:
    chinese, mixed = "如何在中杀死一个进程？", "как удалить server в системе"
    for seed in range(6):
        rng = np.random.default_rng(seed)
        made = noise([chinese, mixed], rng=rng, lexicons=LEXICONS, language=["zh", "ru"])
        assert (made[0].text, made[0].how) == (chinese, "noise:none")
        assert made[1].how == "noise:keyboard"
        assert made[1].text.startswith("как удалить ")
        assert made[1].text.endswith(" в системе")
