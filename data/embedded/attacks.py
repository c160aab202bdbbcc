"""The embedded attacks and their benign twins, with the ciphers that disguise a text.

Takes the YAML groups in `malicious/` and `twins/`, encodes what stands between ⟦ and ⟧ with the group's `cipher`, and
gives contract frames: prompts that attack an assistant (with harmless payloads), and harmless prompts that sound like
them, each with the reason why a detector confuses it.
"""

import base64
import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from crywolf.data.errors import BadInput
from crywolf.data.schema import make_corpus

from .grammar import load_groups

MALICIOUS_DIR: Final = Path(__file__).parent / "malicious"
TWINS_DIR: Final = Path(__file__).parent / "twins"

_SPAN: Final = re.compile(r"⟦(.*?)⟧", re.DOTALL)
_WORD: Final = re.compile(r"\w+")
_LEET: Final = str.maketrans("aeiostAEIOST", "431057431057")
# Cyrillic and Greek letters that look like the Latin ones.
_LOOKALIKE: Final = str.maketrans("aceiopsxyABEKMHOPCTX", "асеіорѕхуАВЕКМНОРСТХ")
_MORSE_CODES: Final = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE: Final = dict(zip("abcdefghijklmnopqrstuvwxyz0123456789", _MORSE_CODES.split(), strict=True))


def _caesar(text: str, shift: int = 3) -> str:
    def turn(char: str) -> str:
        if not (char.isascii() and char.isalpha()):
            return char
        first = ord("a") if char.islower() else ord("A")
        return chr(first + (ord(char) - first + shift) % 26)

    return "".join(map(turn, text))


def _per_word(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: _WORD.sub(lambda match: change(match[0]), text)


def _joined(separator: str) -> Callable[[str], str]:
    """Letters joined by `separator`, words kept apart."""
    return lambda text: "   ".join(separator.join(word) for word in text.split())


def _pig_latin(word: str) -> str:
    start = re.match(r"[^aeiouAEIOU\W\d_]*", word)
    onset = start[0] if start else ""
    return f"{word}way" if not onset else f"{word[len(onset) :]}{onset}ay"


def _scramble(word: str) -> str:
    """Swap neighbours inside the word, as fast typing does; first and last letter stay."""
    if len(word) < 4:
        return word
    inner = list(word[1:-1])
    for i in range(0, len(inner) - 1, 2):
        inner[i], inner[i + 1] = inner[i + 1], inner[i]
    return word[0] + "".join(inner) + word[-1]


def _drop_vowels(word: str) -> str:
    return word if len(word) < 3 else word[0] + re.sub("[aeiouAEIOU]", "", word[1:])


def _morse(text: str) -> str:
    words = ([_MORSE[char] for char in word if char in _MORSE] for word in text.lower().split())
    return " / ".join(" ".join(word) for word in words)


def _tags(text: str) -> str:
    """Unicode's invisible tag characters, one for each printable ASCII character."""
    return "".join(chr(0xE0000 + ord(char)) for char in text if " " <= char <= "~")


def _fullwidth(text: str) -> str:
    return "".join(
        "\u3000" if char == " " else chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text
    )


CIPHERS: Final[Mapping[str, Callable[[str], str]]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "binary": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "caesar": _caesar,
    "leet": lambda text: text.translate(_LEET),
    "homoglyph": lambda text: text.translate(_LOOKALIKE),
    "spaced": _joined(" "),
    "dashed": _joined("-"),
    "dotted": _joined("."),
    "reversed": lambda text: text[::-1],
    "reversed_words": lambda text: " ".join(reversed(text.split())),
    "zero_width": lambda text: "\u200b".join(text),
    "tags": _tags,
    "url": lambda text: quote(text, safe=""),
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "escape": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "fullwidth": _fullwidth,
    "morse": _morse,
    "pig_latin": _per_word(_pig_latin),
    "vowelless": _per_word(_drop_vowels),
    "mixed_case": lambda text: "".join(char.upper() if i % 2 else char.lower() for i, char in enumerate(text)),
    "scrambled": _per_word(_scramble),
}
"""How a text is disguised, by name."""


def disguise(text: str, cipher: str) -> str:
    """Encode every part of `text` that stands between ⟦ and ⟧ with the cipher of that name; the brackets go.

    Raises:
        BadInput: there is no such cipher.
    """
    if cipher not in CIPHERS:
        raise BadInput(f"no cipher named {cipher!r}; known are {', '.join(sorted(CIPHERS))}")
    return _SPAN.sub(lambda match: CIPHERS[cipher](match[1]), text)


def load_directory(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield the prompts of every YAML file in `directory`, by file name, disguised where a cipher is named."""
    for path in sorted(directory.glob("*.yaml")):
        for prompt in load_groups(path):
            cipher = prompt.pop("cipher", None)
            if cipher:
                prompt["text"] = disguise(prompt["text"], cipher)
                prompt["how"] = f"cipher:{cipher}"
            yield prompt


def to_rows(prompts: Iterable[Mapping[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    """Turn prompts into contract rows: `notes` and `why_hard` move into `extra`, `fields` are set on every row."""
    rows = []
    for prompt in prompts:
        row = {**prompt, **fields}
        row["text"] = row["text"].strip()
        row["extra"] = {key: row.pop(key) for key in ("notes", "why_hard") if key in row}
        rows.append(row)
    return rows


@lru_cache(maxsize=1)
def malicious_seeds() -> pl.DataFrame:
    """Attack prompts with harmless payloads: label MALICIOUS, `threat_type`, and the attack family as subcategory.

    `how` names the cipher of a disguised one, `extra.notes` the language of one that is not English (`lang=de`).
    """
    return make_corpus(to_rows(load_directory(MALICIOUS_DIR), label="MALICIOUS", source="seed"))


@lru_cache(maxsize=1)
def near_miss_twins() -> pl.DataFrame:
    """Harmless prompts in the words of attacks: category hard_negative, the attack family as subcategory.

    `extra.why_hard` says in a sentence why a detector takes each for an attack.
    """
    rows = to_rows(load_directory(TWINS_DIR), label="BENIGN", source="curated", category="hard_negative", how="twin")
    return make_corpus(rows)
