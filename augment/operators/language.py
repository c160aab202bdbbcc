"""Tells the language of a prompt among those that there are contexts for, by script and by common words.

Takes a text, gives a language code. Prompts are short and mixed; this needs only to choose which sentences to grow, so
words that the embedded sentences of a language use often stand in for a language model, and English wins a draw.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from crywolf.data.embedded.contexts import Contexts, all_contexts

_WORD = re.compile(r"[^\W\d_]+")
_HEAD = 600
_COMMON = 150
_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "CYRILLIC": "ru",
}
_TELLING = 0.2
"""The share of letters in another script that makes a text of that script's language: technical terms stay Latin."""
_LEAST = 2


def language_of(text: str, known: Mapping[str, Contexts] | None = None) -> str:
    """Return the code of the language that a text is most likely in; English where nothing tells.

    Args:
        text: the prompt.
        known: the languages to choose from; the embedded ones by default.
    """
    codes = tuple(all_contexts() if known is None else known)
    head = text[:_HEAD]
    by_script = _by_script(head)
    if by_script is not None:
        return by_script if by_script in codes else "en"
    words = [word.lower() for word in _WORD.findall(head)]
    hits = {code: sum(word in common for word in words) for code, common in _common(codes).items()}
    english = hits.get("en", 0)
    best = max(hits, key=lambda code: (hits[code], code == "en"))
    return best if hits[best] >= _LEAST and hits[best] > english else "en"


def _by_script(text: str) -> str | None:
    """Return the language of the foreign script that holds a fifth of the letters; kana tell Japanese from Chinese."""
    letters = [char for char in text if char.isalpha()]
    found = Counter(
        code
        for char in letters
        if ord(char) > 0x24F
        for script, code in _SCRIPTS.items()
        if unicodedata.name(char, "").startswith(script)
    )
    if not found or sum(found.values()) < _TELLING * len(letters):
        return None
    return "ja" if found["ja"] else found.most_common(1)[0][0]


def is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin ones."""
    letters = [char for char in text if char.isalpha()]
    return sum(ord(char) <= 0x24F for char in letters) * 2 >= len(letters)


@lru_cache(maxsize=4)
def _common(codes: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    """Return the words that each language's frames and everyday sentences use most, without those that many share."""
    contexts = all_contexts()
    counts = {
        code: Counter(
            word.lower()
            for text in (
                *(frame.text for frames in contexts[code].frames.values() for frame in frames),
                *(item.text for item in contexts[code].everyday),
            )
            for word in _WORD.findall(re.sub(r"\{[^}]*\}", " ", text))
        )
        for code in codes
        if code in contexts
    }
    top = {code: [word for word, _ in count.most_common(_COMMON)] for code, count in counts.items()}
    shared = Counter(word for words in top.values() for word in words)
    return {code: frozenset(word for word in words if shared[word] <= 3) for code, words in top.items()}
