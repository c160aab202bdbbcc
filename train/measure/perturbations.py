"""What a prompt may look like on its way to a detector, as data: slips, odd capitals, odd letters, spacing, padding.

Takes a text and a `numpy.random.Generator` and gives the text changed, or None where it does not take the change (no
Latin letters to put look-alikes for). Each change keeps the request whole: an attack stays one, a harmless prompt
stays harmless; a text that is in code already, which other letters or capitals would destroy, takes only padding and
Base64. The disguises are those of `crywolf.augment.operators.obfuscate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crywolf.augment.operators.obfuscate import disguise_as, is_disguised
from crywolf.data import BadInput
from crywolf.data.embedded.attacks import CIPHERS

Change = Callable[[str, np.random.Generator], str | None]
"""A text and a generator to the changed text, None where it does not take the change."""

DECODE_REQUEST = "Decode this Base64 text:\n\n{coded}"
PAD_CHARACTERS = 600
"""Characters of benign text that padding puts on a side, or over; about 150 tokens."""
_PIECE = 500
"""A disguise takes texts up to 600 characters; longer ones go through it in pieces of at most this many."""
_GAP = re.compile(r"(?<=\S)[ \t]+(?=\S)")


@dataclass(frozen=True)
class Perturbation:
    """One way in which a text may be changed.

    Attributes:
        name: as tables and JSON call it.
        family: typos, case, unicode, spacing, encoding or padding.
        meaning: what it does, in a few words.
        change: the change itself.
    """

    name: str
    family: str
    meaning: str
    change: Change


def _disguised(cipher: str) -> Change:
    """The disguise of `augment`, piece by piece, so that long texts and texts of several lines take it too."""
    return _whole(lambda text, rng: "".join(_piece(part, cipher, rng) for part in _parts(text)))


def _whole(function: Callable[[str, np.random.Generator], str]) -> Change:
    """The change as it is asked for: None for a text in code, and where the text stays as it is."""

    def change(text: str, rng: np.random.Generator) -> str | None:
        if is_disguised(text):
            return None
        changed = function(text, rng)
        return changed if changed != text else None

    return change


def _parts(text: str) -> list[str]:
    """The text cut at white space into pieces that a disguise takes, with the white space between them as it is."""
    parts: list[str] = []
    for line in re.split(r"(\s*\n\s*)", text):
        start = 0
        while len(line) - start > _PIECE:
            space = line.rfind(" ", start + 1, start + _PIECE)
            cut = space if space > start else start + _PIECE
            parts.append(line[start:cut])
            start = cut
        parts.append(line[start:])
    return [part for part in parts if part]


def _piece(part: str, cipher: str, rng: np.random.Generator) -> str:
    body = part.strip()
    if not body:
        return part
    start = part.index(body)
    return part[:start] + (disguise_as(body, cipher, rng) or body) + part[start + len(body) :]


def _always(function: Callable[[str], str]) -> Change:
    """A change that draws nothing."""
    return _whole(lambda text, rng: function(text))


def _wide_gaps(text: str, rng: np.random.Generator) -> str:
    """Gaps between words made two to four spaces wide, about one in eight a line break."""
    gaps = ("  ", "   ", "    ", "\n")
    return _GAP.sub(lambda _: gaps[rng.choice(4, p=(0.4, 0.3, 0.175, 0.125))], text)


def _base64(text: str, rng: np.random.Generator) -> str:
    return DECODE_REQUEST.format(coded=CIPHERS["base64"](text))


PERTURBATIONS: tuple[Perturbation, ...] = (
    Perturbation("typos", "typos", "one to a few words with a slip of the keyboard", _disguised("typos")),
    Perturbation("upper_case", "case", "all capitals", _always(str.upper)),
    Perturbation("lower_case", "case", "no capitals", _always(str.lower)),
    Perturbation("alternating_case", "case", "every other letter a capital", _always(CIPHERS["mixed_case"])),
    Perturbation("look_alikes", "unicode", "Cyrillic letters for the Latin ones like them", _disguised("homoglyph")),
    Perturbation("zero_width", "unicode", "invisible characters inside words", _disguised("zero_width")),
    Perturbation("full_width", "unicode", "the wide forms of Latin letters", _disguised("fullwidth")),
    Perturbation("wide_gaps", "spacing", "two to four spaces or a line break between words", _whole(_wide_gaps)),
    Perturbation("spaced_letters", "spacing", "a space, dash or dot after every letter", _disguised("spaced")),
    Perturbation("base64", "encoding", "Base64 with a plain request to decode it", _base64),
)
"""The perturbations that need nothing but the text; `padding` gives those that need benign text as well."""


def padding(benign: Sequence[str], *, characters: int = PAD_CHARACTERS) -> tuple[Perturbation, ...]:
    """Perturbations that put a text before, after or between benign ones.

    Args:
        benign: texts to pad with, whole; one that is the padded text itself is not taken.
        characters: at least so much is put before or after; around puts half of it on either side.

    Raises:
        BadInput: fewer than two benign texts, or no characters.
    """
    pool = list(dict.fromkeys(text.strip() for text in benign if text.strip()))
    if len(pool) < 2 or characters < 1:
        raise BadInput(
            f"padding with {characters} characters of {len(pool)} benign texts: give two texts or more, and a length"
        )

    def drawn(text: str, rng: np.random.Generator, wanted: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < wanted:
            part = pool[rng.integers(len(pool))]
            if part != text.strip():
                parts.append(part)
        return "\n\n".join(parts)

    def before(text: str, rng: np.random.Generator) -> str:
        return f"{drawn(text, rng, characters)}\n\n{text}"

    def after(text: str, rng: np.random.Generator) -> str:
        return f"{text}\n\n{drawn(text, rng, characters)}"

    def around(text: str, rng: np.random.Generator) -> str:
        half = (characters + 1) // 2
        return f"{drawn(text, rng, half)}\n\n{text}\n\n{drawn(text, rng, half)}"

    said = f"at least {characters:,} characters of benign text"
    return (
        Perturbation("padded_before", "padding", f"{said} before it", before),
        Perturbation("padded_after", "padding", f"{said} after it", after),
        Perturbation("padded_around", "padding", f"{said} around it", around),
    )
