"""Light robustness noise: one or two words of a prompt with a slip of the keyboard, a misspelling or a domain synonym.

Takes texts and gives one `Grown` a text, in order; a text with no word that may be touched comes back as it is, with
the how "noise:none"; of a text in another language than English only plain Latin words may be touched, and only by a
slip of the keyboard. nlpaug makes the noise, a word at a time, so that quotations, paths and code stay verbatim; its
global random state is seeded from the given generator and put back afterwards.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from crywolf.data.embedded.lexicons import Lexicons
from crywolf.data.errors import BadInput

from .inflect import can_be_verb
from .parse import is_english, mask
from .types import Grown

OPERATORS = ("keyboard", "spelling", "reserved")
_WORD = re.compile(r"(?<![\w'-])[A-Za-z]{4,}(?![\w'-])")
_ACCENTED = re.compile(r"[^\W\d_a-zA-Z]")
_ALIKE = 0.72  # a misspelling further from its word than this no longer reads as it


@dataclass(frozen=True)
class _Operator:
    """A way to make noise: where it may act in a text, and what it makes of a piece of it (itself if nothing)."""

    name: str
    english: bool  # only for English texts
    places: Callable[[str], list[tuple[int, int]]]
    change: Callable[[str], str]


def noise(
    texts: Sequence[str],
    *,
    rng: np.random.Generator,
    lexicons: Lexicons,
    operators: Sequence[str] = OPERATORS,
    language: str | Sequence[str] = "en",
) -> list[Grown]:
    """Return a noisy copy of each text, one or two of its words changed by one of `operators`.

    Args:
        texts: what to change.
        rng: draws everything.
        lexicons: the synonyms of `reserved`.
        operators: which to choose from.
        language: what `crywolf.data.language.identify` takes the texts for, one for all or one each. Misspellings and
            synonyms are English and go into English texts only (an undetermined one is English if it is ASCII).

    Raises:
        BadInput: an operator is unknown, or there is none; there are more or fewer languages than texts.
    """
    languages = [language] * len(texts) if isinstance(language, str) else list(language)
    if len(languages) != len(texts):
        raise BadInput(f"noise was given {len(languages)} languages for {len(texts)} texts: give one, or one each")
    unknown = [name for name in operators if name not in OPERATORS]
    if unknown or not operators:
        raise BadInput(f"noise operators {list(operators)!r}: choose one or more of {', '.join(OPERATORS)}")
    with _seeded(int(rng.integers(1 << 31))):
        tools = [_BUILDERS[name](texts, lexicons) for name in operators]
        return [_noisy(text, code, tools, rng) for text, code in zip(texts, languages, strict=True)]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that nlpaug draws from, and put their state back afterwards."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - nlpaug knows no other generator
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def _noisy(text: str, language: str, tools: Sequence[_Operator], rng: np.random.Generator) -> Grown:
    # letters with accents are a second sign: in a short text the language is a guess
    if not is_english(text, language) or _ACCENTED.search(mask(text)):
        tools = [tool for tool in tools if not tool.english]
    for i in rng.permutation(len(tools)):
        tool = tools[i]
        places = tool.places(text)
        wanted = 2 if len(places) > 8 and rng.random() < 0.4 else 1
        new, changed = text, 0
        chosen = sorted((places[j] for j in rng.permutation(len(places))[: wanted + 2]), reverse=True)
        for start, end in chosen:
            piece = tool.change(text[start:end])
            if piece != text[start:end] and changed < wanted:
                new = new[:start] + piece + new[end:]
                changed += 1
        if new != text:
            return Grown(new, f"noise:{tool.name}", "noise")
    return Grown(text, "noise:none", "noise")


def _words(text: str) -> list[tuple[int, int]]:
    """Return the places of prose words, none of them code, quoted, in capitals or in lines under an instruction."""
    prose = mask(text.partition("\n")[0])
    spans = [m.span() for m in _WORD.finditer(prose)]
    return [(start, end) for start, end in spans if prose[start + 1 : end].islower()]


def _keyboard(texts: Sequence[str], lexicons: Lexicons) -> _Operator:
    from nlpaug.augmenter.char.keyboard import KeyboardAug

    aug = KeyboardAug(
        aug_char_min=1,
        aug_char_max=1,
        aug_word_min=1,
        aug_word_max=1,
        include_special_char=False,
        include_numeric=False,
        include_upper_case=False,
        min_char=4,
    )
    return _Operator("keyboard", False, _words, lambda piece: _first(aug.augment(piece), piece))


def _spelling(texts: Sequence[str], lexicons: Lexicons) -> _Operator:
    from nlpaug.augmenter.word.spelling import SpellingAug

    aug = SpellingAug(include_reverse=False, aug_min=1, aug_max=1, aug_p=1.0)
    words = {m[0] for text in texts for m in _WORD.finditer(mask(text))}
    # The shipped dictionary also confuses real words ("luck" and "like") and keeps its lists in the order of a set.
    table = {word: _misspellings(word, aug.model.dict.get(word, ())) for word in sorted(words)}
    aug.model = _Dictionary({word: wrong for word, wrong in table.items() if wrong})

    def places(text: str) -> list[tuple[int, int]]:
        return [(start, end) for start, end in _words(text) if text[start:end] in aug.model.dict]

    return _Operator("spelling", True, places, lambda piece: _first(aug.augment(piece), piece))


@dataclass(frozen=True)
class _Dictionary:
    """What SpellingAug asks of its model: the misspellings of a word."""

    dict: dict[str, list[str]]

    def predict(self, word: str) -> list[str] | None:
        """Return the misspellings of `word`, None if there are none."""
        return self.dict.get(word)


def _misspellings(word: str, candidates: Sequence[str]) -> list[str]:
    """Return the candidates that read as slips in writing `word`: close to it, and no words themselves."""
    return sorted(
        wrong
        for wrong in set(candidates)
        if wrong.isalpha()
        and wrong.islower() == word.islower()
        and wrong[0] == word[0]
        and SequenceMatcher(None, word, wrong).ratio() >= _ALIKE
        and not _is_word(wrong)
    )


def _is_word(text: str) -> bool:
    from lemminflect import getAllLemmas

    return can_be_verb(text) or bool(getAllLemmas(text))


def _reserved(texts: Sequence[str], lexicons: Lexicons) -> _Operator:
    from nlpaug.augmenter.word.reserved import ReservedAug

    aug = ReservedAug(reserved_tokens=lexicons.synonyms(), aug_min=1, aug_max=1, aug_p=1.0)
    verbs = _alternatives(lexicons, "verb")
    others = _alternatives(lexicons, "noun", "adjective", "adverb")
    # a verb is one for sure at the head of a request, or after "to", "you" and "I"
    pattern = re.compile(
        rf"(?:(?:^|(?<=\bto )|(?<=\byou )|(?<=\bi )|(?<=\bplease ))(?:{verbs})|(?<![\w-])(?:{others}))(?![\w-])"
    )

    def places(text: str) -> list[tuple[int, int]]:
        return [m.span() for m in pattern.finditer(mask(text.partition("\n")[0]))]

    return _Operator("reserved", True, places, lambda piece: _first(aug.augment(piece), piece))


def _alternatives(lexicons: Lexicons, *parts: str) -> str:
    words = [re.escape(word) for group in lexicons.groups if group.part in parts for word in group.words]
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


def _first(made: Any, piece: str) -> str:
    """Return the one text that an augmenter made of a piece, the piece itself if it made none."""
    text = made[0] if isinstance(made, list) and made else made
    return text.strip() if isinstance(text, str) and text.strip() else piece


_BUILDERS: dict[str, Callable[[Sequence[str], Lexicons], _Operator]] = {
    "keyboard": _keyboard,
    "spelling": _spelling,
    "reserved": _reserved,
}
