"""What a prompt says in code: Base64, Base32, hexadecimal, percent signs, escapes and Unicode tags, as models do.

Takes a text, gives the texts that are written in it in code, once or twice over. The detector judges each of them
beside the prompt itself, because the model behind it can decode them while a small classifier sees letters without
sense.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MOST = 3
"""Decoded texts of one prompt that are judged; each costs a run of the model."""
LEAST = 12
"""Characters that a decoded text must have: shorter ones are chance."""
LONGEST = 600
"""Characters of a decoded text that are judged: more would cost several times the prompt's own run."""
LEVELS = 2
"""How often a text is decoded: Base64 of Base64 is read, what is wrapped more deeply is not."""
_READABLE = 0.8
_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})"
_LINE = r"[ \t]*+\r?\n[ \t]*+"
_WRAPPED = rf"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{{16,}}+{_LINE})"

_RUNS: tuple[tuple[re.Pattern[str], Callable[[str], bytes]], ...] = (
    (re.compile("[\U000e0020-\U000e007e]{12,}"), lambda run: bytes(ord(sign) - 0xE0000 for sign in run)),
    (re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[ :]?){12,}(?![0-9A-Fa-f])"), lambda run: _hex(run)),
    (re.compile(r"(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9._~-]|\+){12,}"), lambda run: _percent(run)),
    # Signs that need no escape stand between escapes as they are.
    (re.compile(rf"(?:{_ESCAPE}[ -@]{{0,3}}+){{11,}}{_ESCAPE}"), lambda run: _escapes(run)),
    # In lines of 64 or 76 signs, with the line behind them and, as that may be an ordinary word, without it.
    (re.compile(rf"{_WRAPPED}++[A-Za-z0-9+/]++={{0,2}}"), lambda run: _base64("".join(run.split()))),
    (re.compile(rf"{_WRAPPED}{{2,}}+"), lambda run: _base64("".join(run.split()))),
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
    and of more than one word where the script parts words. Keys, hashes, images, tokens and markup decode to none. What
    a run decodes to is itself looked through for code, `LEVELS` deep; such a text stands where the outer run does. A
    text past `LONGEST` characters is cut.
    """
    found: dict[str, View] = {}
    for view in _candidates(text, LEVELS):
        said = view.text[:LONGEST]
        if said not in found and _says_something(said) and not _is_within(view, found.values()):
            found[said] = View(said, view.start, view.end)
            if len(found) == MOST:
                break
    return list(found.values())


def _candidates(text: str, levels: int) -> Iterator[View]:
    for pattern, decode in _RUNS:
        for run in pattern.finditer(text):
            try:
                said = decode(run.group()).decode("utf-8")
            except (ValueError, binascii.Error):
                continue
            yield View(said, run.start(), run.end())
            if levels > 1:
                for inner in _candidates(said, levels - 1):
                    yield View(inner.text, run.start(), run.end())


def _is_within(view: View, others: Iterable[View]) -> bool:
    """Whether a run is a part of another one that said something, as a line of wrapped Base64 is of the whole."""
    span = (view.start, view.end)
    return any(o.start <= view.start and view.end <= o.end and span != (o.start, o.end) for o in others)


def _hex(run: str) -> bytes:
    return bytes.fromhex(run.replace(":", " "))


def _percent(run: str) -> bytes:
    if run.count("%") < LEAST:  # an address with a few escapes is read as it stands
        raise ValueError("too few escapes")
    return unquote_to_bytes(run.replace("+", " "))


def _escapes(run: str) -> bytes:
    r"""Bytes of `\x41` and `\u0041` and of the signs between them; spaces that part each from the next are no signs."""
    parts = re.findall(r"(?:\\u[0-9A-Fa-f]{4})+|(?:\\x[0-9A-Fa-f]{2})+|[^\\]+", run)
    between = [part for part in parts if not part.startswith("\\")]
    spaced = len(between) >= run.count("\\") - 1
    return b"".join(_escaped(part) for part in parts if not (spaced and part.isspace()))


def _escaped(part: str) -> bytes:
    if part.startswith("\\u"):  # surrogates come in pairs
        return bytes.fromhex(part.replace("\\u", "")).decode("utf-16-be").encode()
    return bytes.fromhex(part.replace("\\x", "")) if part.startswith("\\x") else part.encode()


def _base64(run: str) -> bytes:
    return base64.b64decode(_padded(run, 4), altchars=b"-_" if "-" in run or "_" in run else None, validate=True)


def _padded(run: str, block: int) -> str:
    bare = run.rstrip("=")
    return bare + "=" * (-len(bare) % block)


def _says_something(text: str) -> bool:
    if len(text) < LEAST or not (re.search(r"\w\s+\w", text) or _UNSPACED.search(text)):
        return False
    return sum(sign.isspace() or unicodedata.category(sign)[0] in "LM" for sign in text) >= _READABLE * len(text)
