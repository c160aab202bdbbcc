"""Prompt text that can be looked at: what does not show, or shows something else, is spelled out.

Takes any string and gives one of the same reading in which control characters, zero-width characters and direction
overrides stand as U+202E; as parts, for a page that sets them apart, or as plain text, for a drawing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

_BLANK = frozenset("\u00ad\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufff9\ufffa\ufffb")
"""Letters and marks by category that nevertheless show nothing."""
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True)
class Part:
    """A run of text: either readable as it stands, or one hidden character with its code and name."""

    text: str
    name: str = ""

    @property
    def hidden(self) -> bool:
        """Whether this stands for a character that could not be seen."""
        return bool(self.name)


def is_hidden(char: str) -> bool:
    """Whether a character would not be seen, or would change how its neighbours are seen; newline and tab are plain."""
    if char in "\n\t":
        return False
    if char in _BLANK or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return True
    category = unicodedata.category(char)
    return category in _HIDDEN_CATEGORIES or (category == "Zs" and char != " ")


def parts(text: str) -> Iterator[Part]:
    """The text in runs, hidden characters one by one."""
    for hidden, run in groupby(text, is_hidden):
        if not hidden:
            yield Part("".join(run))
            continue
        for char in run:
            yield Part(f"U+{ord(char):04X}", unicodedata.name(char, "unnamed character").lower())


def plain(text: object) -> str:
    """One line of text with hidden characters as [U+202E]; for labels and terminals."""
    shown = (f"[{part.text}]" if part.hidden else part.text for part in parts(str(text)))
    return " ".join("".join(shown).split())
