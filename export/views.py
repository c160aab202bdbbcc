"""What a prompt says in code: Base64, Base32, hexadecimal, percent signs and Unicode tags, read as a model may read it.

Takes a text, gives the texts that are written in it in code. The detector judges each of them beside the prompt itself,
because the model behind it can decode them while a small classifier sees letters without sense.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MOST = 3
"""Decoded texts of one prompt that are judged; each costs a run of the model."""
LEAST = 12
"""Characters that a decoded text must have: shorter ones are chance."""
LONGEST = 600
"""Characters of a decoded text that are judged: more would cost several times the prompt's own run."""
_READABLE = 0.8

_RUNS: tuple[tuple[re.Pattern[str], Callable[[str], bytes]], ...] = (
    (re.compile("[\U000e0020-\U000e007e]{12,}"), lambda run: bytes(ord(sign) - 0xE0000 for sign in run)),
    (re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[ :]?){12,}(?![0-9A-Fa-f])"), lambda run: _hex(run)),
    (re.compile(r"(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9._~-]|\+){12,}"), lambda run: _percent(run)),
    (re.compile(r"(?<![A-Z2-7])[A-Z2-7]{20,}={0,6}"), lambda run: base64.b32decode(_padded(run, 8))),
    # "/", "-" and "_" are signs of Base64 and of the text around it: runs are tried with them and without.
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{16,}={0,2}"), lambda run: _base64(run)),
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{16,}={0,2}"), lambda run: _base64(run)),
)
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{6}")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which set no spaces between words."""


@dataclass(frozen=True)
class View:
    """A text that stands in a prompt in code: the text decoded, and where its code starts and ends in the prompt."""

    text: str
    start: int
    end: int


def decoded(text: str) -> list[View]:
    """Return the readable texts that stand in `text` in code, in the order in which they were found; at most `MOST`.

    A run counts as code if it decodes to UTF-8 of at least `LEAST` characters, four in five of them letters or spaces,
    and of more than one word where the script parts words. Keys, hashes, images, tokens and markup decode to none. A
    text past `LONGEST` characters is cut.
    """
    found: dict[str, View] = {}
    for view in _candidates(text):
        if view.text not in found and _says_something(view.text):
            found[view.text] = view
            if len(found) == MOST:
                break
    return list(found.values())


def _candidates(text: str) -> Iterator[View]:
    for pattern, decode in _RUNS:
        for run in pattern.finditer(text):
            try:
                yield View(decode(run.group()).decode("utf-8")[:LONGEST], run.start(), run.end())
            except (ValueError, binascii.Error):
                continue


def _hex(run: str) -> bytes:
    return bytes.fromhex(run.replace(":", " "))


def _percent(run: str) -> bytes:
    if run.count("%") < LEAST:  # an address with a few escapes is read as it stands
        raise ValueError("too few escapes")
    return unquote_to_bytes(run.replace("+", " "))


def _base64(run: str) -> bytes:
    return base64.b64decode(_padded(run, 4), altchars=b"-_" if "-" in run or "_" in run else None, validate=True)


def _padded(run: str, block: int) -> str:
    bare = run.rstrip("=")
    return bare + "=" * (-len(bare) % block)


def _says_something(text: str) -> bool:
    if len(text) < LEAST or not (re.search(r"\w\s+\w", text) or _UNSPACED.search(text)):
        return False
    return sum(sign.isspace() or unicodedata.category(sign)[0] in "LM" for sign in text) >= _READABLE * len(text)
