"""Disguises texts: attacks with the order to obey them (malicious), harmless sentences in harmless prompts (benign).

Takes a text and a generator and gives `Grown` samples or contract rows. The same disguises stand on both sides: an
encoding says nothing about the label, what the prompt wants done with it does.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from crywolf.data import BENIGN, BadInput, empty_corpus, make_corpus, text_id
from crywolf.data.embedded.attacks import CIPHERS
from crywolf.data.embedded.grammar import fill
from crywolf.data.embedded.intent import DisguiseFrame, disguises

from .types import Grown

ENCODED: Final = ("base64", "hex", "rot13", "caesar", "binary", "morse", "url", "reversed")
"""Disguises that cannot be read by eye: an attack in one comes with the order to decode and obey it."""
READABLE: Final = ("leet", "homoglyph", "zero_width", "spaced", "fullwidth", "mixed_case", "typos")
DISGUISES: Final = (*ENCODED, *READABLE)
REAL: Final = frozenset(DISGUISES) - {"mixed_case", "typos"}
"""Disguises that make an obfuscated command of an attack; odd capitals and slips of the keyboard do not."""
FAMILIES: Final[Mapping[str, str]] = {
    "leet": "leetspeak",
    "spaced": "spacing",
    "url": "url_encoding",
}
"""The attack family of a disguise where it is not the disguise's own name."""
_LONGEST: Final[Mapping[bool, int]] = {True: 300, False: 600}
_LATIN: Final = 0.8
_ANY_SCRIPT: Final = frozenset({"base64", "hex", "url", "zero_width", "reversed"})
_SOURCE: Final = "augmented"
_WHY_HARD: Final = (
    "It holds a text in disguise, as hidden commands do, but the text is harmless and nobody is to obey it."
)

_LEET: Final = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8", "g": "9", "l": "1"}
_LOOKALIKE: Final = dict(zip("aceiopsxyABEKMHOPCTX", "асеіорѕхуАВЕКМНОРСТХ", strict=True))
_INVISIBLE: Final = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")
_NEIGHBOURS: Final = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "k": "jl",
    "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb",
    "w": "qe", "y": "tu",
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- disguises


def disguise_as(text: str, cipher: str, rng: np.random.Generator) -> str | None:
    """Return the text in a disguise, None if it does not take it (another script, too long, nothing to change).

    Raises:
        BadInput: there is no such disguise.
    """
    if cipher not in DISGUISES:
        raise BadInput(f"no disguise named {cipher!r}; known are {', '.join(DISGUISES)}")
    if len(text) > _LONGEST[cipher in ENCODED] or (cipher not in _ANY_SCRIPT and not _is_latin(text)):
        return None
    if cipher in {"morse", "reversed", "spaced"} and "\n" in text:
        return None
    coded = _DRAWN[cipher](text, rng) if cipher in _DRAWN else CIPHERS[cipher](text)
    return coded if coded.strip() and coded != text else None


def _is_latin(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return bool(letters) and sum(char.isascii() for char in letters) >= _LATIN * len(letters)


def _leet(text: str, rng: np.random.Generator) -> str:
    share = rng.uniform(0.5, 1.0)
    picks = {char: other[rng.integers(len(other))] for char, other in _LEET.items()}
    # b, g and l are changed by few writers
    used = {char for char in picks if char not in "bgl" or rng.random() < 0.3}
    return "".join(picks[c.lower()] if c.lower() in used and rng.random() < share else c for c in text)


def _homoglyph(text: str, rng: np.random.Generator) -> str:
    share = rng.uniform(0.4, 1.0)
    return "".join(_LOOKALIKE[c] if c in _LOOKALIKE and rng.random() < share else c for c in text)


def _zero_width(text: str, rng: np.random.Generator) -> str:
    """Put invisible characters between all letters, or into words here and there."""
    mark = _INVISIBLE[rng.integers(len(_INVISIBLE))]
    if rng.random() < 0.4:
        return mark.join(text)
    share = rng.uniform(0.3, 0.8)
    return re.sub(r"(?<=\w)(?=\w)", lambda _: mark if rng.random() < share else "", text)


def _spaced(text: str, rng: np.random.Generator) -> str:
    separator = (" ", "-", ".", "_")[rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))]
    return "   ".join(separator.join(word) for word in text.split())


def _mixed_case(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        return CIPHERS["mixed_case"](text)
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def _typos(text: str, rng: np.random.Generator) -> str:
    """Let one to four words slip: letters swapped, dropped, doubled or the neighbour's key."""
    words = [match.span() for match in re.finditer(r"(?<![\w/'])[A-Za-z]{4,}(?![\w/'])", text)]
    count = min(len(words), int(rng.integers(1, 3 + len(words) // 8)))
    for start, end in sorted((words[i] for i in rng.permutation(len(words))[:count]), reverse=True):
        text = text[:start] + _slip(text[start:end], rng) + text[end:]
    return text


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    kind = rng.integers(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    keys = _NEIGHBOURS.get(word[at])
    if kind == 2 or not keys:
        return word[:at] + word[at] + word[at:]
    return word[:at] + keys[rng.integers(len(keys))] + word[at + 1 :]


_DRAWN: Final[Mapping[str, Callable[[str, np.random.Generator], str]]] = {
    "leet": _leet,
    "homoglyph": _homoglyph,
    "zero_width": _zero_width,
    "spaced": _spaced,
    "mixed_case": _mixed_case,
    "typos": _typos,
}


@lru_cache(maxsize=64)
def is_disguised(text: str) -> bool:
    """Say whether a text holds an encoded or invisible part, which another disguise or a slip would destroy."""
    if re.search(r"[\u200b-\u200f\u2060\ufeff\uff21-\uff5a\U000e0020-\U000e007f]|(?:%[0-9A-Fa-f]{2}){2}|&#\w+;", text):
        return True
    if re.search(r"(?:(?<![^\W_])[^\W_][ .\-_]{1,3}){5}|(?:[.\-]{1,5} ){5}|[01]{8} [01]{8}|\\u[0-9a-f]{4}", text):
        return True
    return any(map(_decodes, re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", text)))


def _decodes(token: str) -> bool:
    """Say whether a long token is printable text in Base64 or hex."""
    for read in (base64.b64decode, bytes.fromhex):
        try:
            if read(token).decode().isprintable():
                return True
        except (ValueError, binascii.Error):
            continue
    return False


# -------------------------------------------------------------------------------------------------- around a disguise


def obfuscate(text: str, cipher: str, rng: np.random.Generator) -> Grown | None:
    """Return an attack in a disguise with the order to obey it, None if it does not take the disguise."""
    if is_disguised(text):
        return None
    frames = [frame for frame in disguises().obey if cipher in frame.ciphers]
    coded = disguise_as(text, cipher, rng)
    if coded is None or not frames:
        return None
    # What can be read by eye needs no order around it; half of it comes bare.
    bare = [frame for frame in frames if frame.text == "{coded}"]
    alone = rng.random() < 0.5 or "\n" in coded or len(text) > _LONGEST[True]
    frame = bare[0] if bare and alone else frames[rng.integers(len(frames))]
    return Grown(_put(frame, text, coded, cipher), f"{cipher}:{frame.id}", cipher, subcategory=_family(cipher))


def benign_obfuscations(n: int, rng: np.random.Generator, texts: Sequence[str] | None = None) -> pl.DataFrame:
    """Return `n` harmless prompts around disguised harmless texts, as contract rows; fewer if there are no more.

    Args:
        n: how many.
        rng: draws texts, disguises and prompts.
        texts: harmless texts of one line instead of the embedded sentences; those over 200 characters are left out.
    """
    usable = [t.strip() for t in (disguises().sentences if texts is None else texts)]
    usable = [t for t in usable if t and "\n" not in t and len(t) <= 200]
    rows: dict[str, dict[str, Any]] = {}
    frames = disguises().benign
    for _ in range(n * 8 if usable else 0):
        if len(rows) == n:
            break
        cipher = DISGUISES[rng.integers(len(DISGUISES))]
        fitting = [frame for frame in frames if cipher in frame.ciphers]
        plain = usable[rng.integers(len(usable))]
        coded = disguise_as(plain, cipher, rng)
        if coded is None or not fitting:
            continue
        frame = fitting[rng.integers(len(fitting))]
        text = _put(frame, plain, coded, cipher)
        rows.setdefault(text, _benign_row(text, plain, cipher, frame))
    return make_corpus(list(rows.values()), source=_SOURCE) if rows else empty_corpus()


def _benign_row(text: str, plain: str, cipher: str, frame: DisguiseFrame) -> dict[str, Any]:
    return {
        "text": text,
        "label": BENIGN,
        "category": "hard_negative",
        "subcategory": _family(cipher),
        "origin_id": text_id(plain),
        "how": f"benign_obfuscation:{cipher},{frame.id}",
        "extra": {"why_hard": _WHY_HARD},
    }


def _family(cipher: str) -> str:
    return FAMILIES.get(cipher, cipher)


def _put(frame: DisguiseFrame, plain: str, coded: str, cipher: str) -> str:
    """Return the frame with the text and its disguise; quoted with other marks where the text has the frame's own."""
    text = frame.text
    for slot, value in (("{plain}", plain), ("{coded}", coded)):
        if '"' in value:
            text = text.replace(f'"{slot}"', f"“{slot}”")
        if value.endswith((".", "!", "?")):
            text = re.sub(rf"({re.escape(slot)}[\"”]?)\.(?!\w)", r"\1", text)
    values = {"plain": plain, "coded": coded, "cipher": disguises().names[cipher]}
    escaped = {f"{name}_json": json.dumps(values[name], ensure_ascii=False)[1:-1] for name in ("plain", "coded")}
    return fill(text, {**values, **escaped})
