"""Judges whether an English prompt is grammatical: Link Grammar's parser, and Harper's rules of agreement and the like.

Takes texts, gives a verdict for each: True (ungrammatical), False, or None where nothing could be judged (not English,
code, a list of words, too long to parse). People write prompts as fragments and without capitals, so a sentence is
tried in two readings and one loose word in more than ten is forgiven; the share that is still flagged among the
originals is the floor that every other share is to be read against.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

LOOSE = 0.1
"""A sentence with this share of words, or more, that no parse can link is ungrammatical."""
SENTENCES = 4
"""How many sentences of a sample are judged, from its start."""
SHORTEST, LONGEST = 3, 30
"""A sentence's words; shorter ones say too little, longer ones take the parser minutes."""
SECONDS = 1
"""What the parser may take for one sentence."""

_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"'(])|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LINKED = re.compile(r"UNUSED=(\d+)")
# A capital in mid-sentence makes the parser take the word for a name, and "understand How do I handle" for a sentence.
_SMALL_WORDS = (
    "how what why which who whom where when whose can could should would will do does did is are was were am has "
    "have my our your his her their its the a an this that these those please tell give show explain write list "
    "find let make create and or but if in on of for with to from you we he she it they help need want"
)
_SMALL = frozenset(_SMALL_WORDS.split())
_ENGLISH_WORDS = (
    "i me us them him not no as at by be been being had there here then than so up out about into over after "
    "before all any some more most many much each other only just also very don't doesn't i'm it's what's"
)
_ENGLISH = _SMALL | frozenset(_ENGLISH_WORDS.split())
_HARPER = frozenset({"Agreement", "Grammar", "Repetition", "Miscellaneous"})
"""Kinds of Harper's findings that are about grammar, not about spelling or taste."""

_SPELLING = frozenset({"Spelling", "Typo"})


def unavailable() -> str | None:
    """Return why the checker cannot run here, None if it can."""
    if shutil.which("link-parser") is None:
        return "Link Grammar is missing: apt-get install link-grammar link-grammar-dictionaries-en"
    if find_spec("harper") is None:
        return "Harper is missing: pip install -r benchmarks/requirements.txt"
    return None


@lru_cache(maxsize=1)
def checker() -> str:
    """The checker's name and version, for a report."""
    from importlib.metadata import version

    said = subprocess.run(["link-parser", "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    found = re.search(r"link-grammar-([\d.]+)", said)
    return f"Link Grammar {found[1] if found else ''} with harper-py {version('harper-py')}"


def is_english(text: str) -> bool:
    """Tell English by its letters and its function words.

    At least 95 in 100 letters are unaccented Latin ones, and of the words at least one in eight is a common English
    function word (a prompt of up to six words needs one).
    """
    letters = [char for char in text if char.isalpha()]
    words = [word.lower() for word in _WORD.findall(text)]
    if not words or sum(char.isascii() for char in letters) < 0.95 * len(letters):
        return False
    return sum(word in _ENGLISH for word in words) >= max(1.0, len(words) / 8)


def ungrammatical(texts: Sequence[str], english: Sequence[bool] | None = None) -> list[bool | None]:
    """Return for each text whether at least half of its judged sentences are broken; None where none was judged.

    Args:
        texts: what to judge.
        english: which of them to judge; those that `is_english` by default.
    """
    wanted = [is_english(text) for text in texts] if english is None else english
    places = [(i, one) for i, text in enumerate(texts) if wanted[i] for one in sentences(text)]
    verdicts: list[list[bool]] = [[] for _ in texts]
    for (i, _), verdict in zip(places, judge([one for _, one in places]), strict=True):
        if verdict is not None:
            verdicts[i].append(verdict)
    return [sum(found) * 2 >= len(found) if found else None for found in verdicts]


def sentences(text: str) -> list[str]:
    """Return the first sentences of a text that look like prose, white space folded."""
    parts = (" ".join(part.split()) for part in _SENTENCE.split(text))
    return [part for part in parts if _is_prose(part)][:SENTENCES]


def _is_prose(part: str) -> bool:
    words, signs = part.split(), sum(not (char.isalnum() or char.isspace() or char in ".,?!'’\"-:;()") for char in part)
    return SHORTEST <= len(words) <= LONGEST and signs <= 0.05 * len(part)


def judge(lines: Sequence[str]) -> list[bool | None]:
    """Return for each sentence whether it is broken, None where the parser ran out of time."""
    plain = {line: _as_typed_with_care(line) for line in dict.fromkeys(lines)}
    open_ = [line for line in plain if not _harper_objects(line)]
    verdict: dict[str, bool | None] = dict.fromkeys(set(plain) - set(open_), True)
    for reading in (lambda s: s, _as_fragment):
        loose = _parse([reading(plain[line]) for line in open_], nulls=False)
        verdict |= {line: False for line, number in zip(open_, loose, strict=True) if number == 0}
        open_ = [line for line in open_ if line not in verdict]
    for line, number in zip(open_, _parse([plain[line] for line in open_], nulls=True), strict=True):
        verdict[line] = None if number is None else number >= LOOSE * len(line.split())
    return [verdict[line] for line in lines]


def _as_typed_with_care(line: str) -> str:
    """A sentence without what people leave out or put in when they type: "i" is "I", stray capitals are small.

    Marks at the start go too: the parser takes some of them for commands, and prompts are not ours.
    """
    line = re.sub(r"^[^A-Za-z0-9\"]+", "", " ".join(line.split()))
    line = re.sub(r"\bi\b(?!\.)", "I", line)
    head, blank, rest = line.partition(" ")
    small = _WORD.sub(lambda m: m[0].lower() if m[0].istitle() and m[0].lower() in _SMALL else m[0], rest)
    return f"{head[:1].upper()}{head[1:]}{blank}{small}" or "."


def _as_fragment(line: str) -> str:
    """A sentence read as a thing asked for: "time in Paris" is "show me time in Paris"."""
    bare = line.rstrip(".?! ")
    return f"Show me {bare[:1].lower()}{bare[1:]}."


@lru_cache(maxsize=1)
def _linter() -> Any:
    import harper

    return harper.Linter()


def _harper_objects(line: str) -> bool:
    return any(lint.lint_kind in _HARPER for lint in _linter().lint(line))


def _parse(lines: Sequence[str], *, nulls: bool) -> list[int | None]:
    """Return the least number of words that the parser leaves unlinked in each line, None where it finds no parse."""
    if not lines:
        return []
    options = [
        "-graphics=0",
        "-verbosity=1",
        "-echo",
        f"-timeout={SECONDS}",
        f"-limit={10 if nulls else 100}",
        "-panic=0",
        f"-null={nulls:d}",
    ]
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"}
    said = subprocess.run(
        [shutil.which("link-parser") or "link-parser", "en", *options],
        input="".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        check=False,
        env=environment,
    ).stdout.decode(errors="replace")
    return list(_answers(lines, said.splitlines()))


def _answers(lines: Sequence[str], said: Sequence[str]) -> Iterator[int | None]:
    """Read the parser's answers: it repeats each line, then says what it found."""
    found: list[int | None] = [None] * len(lines)
    at = -1
    for heard in said:
        if at + 1 < len(lines) and heard.strip() == lines[at + 1].strip():
            at += 1
        elif at >= 0 and found[at] is None and (linked := _LINKED.search(heard)):
            found[at] = int(linked[1])
    return iter(found)


def unknown_words(text: str) -> set[str]:
    """Return the words, in small letters, that Harper's dictionary does not have."""
    return {lint.problem_text.lower() for lint in _linter().lint(" ".join(text.split())) if lint.lint_kind in _SPELLING}
