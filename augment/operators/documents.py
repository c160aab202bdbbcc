"""Makes long benign prompts (an instruction with a pasted log, mail, table or code, or several requests) and tasks.

Takes the embedded documents or tasks (see `crywolf.data.embedded.documents`) and short benign prompts to pack; gives
`Grown` samples of 200 to 4,000 characters, or tasks of 20 to 1,500. Attacks are long; if benign prompts are not, length
alone tells them apart. Attacks are orders to a model; if benign prompts are not, the imperative does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crywolf.data.embedded.documents import Document, Shelf, all_shelves, all_tasks
from crywolf.data.embedded.grammar import fill, slots_of
from crywolf.data.errors import BadInput

from .types import Grown

SHORTEST, LONGEST = 200, 4_000
SHORTEST_TASK, LONGEST_TASK = 20, 1_500
_TRIES = 6
_NEAR = 0.7
"""A text that has this share of the length wanted is long enough."""
_MARKS = ("{}. ", "{}) ", "- ", "* ", "", "Q{}: ")
_ROW = {"programming": "legitimate_programming", "security": "hard_negative", "education": "legitimate_educational"}


@dataclass
class DocumentPicker:
    """Makes long prompts of any language on the shelves, none of them twice."""

    shelves: Mapping[str, Shelf] = field(default_factory=all_shelves)
    _taken: set[str] = field(init=False, repr=False, default_factory=set)

    def samples(
        self, n: int, rng: np.random.Generator, *, language: str = "en", short: Sequence[str] = ()
    ) -> list[Grown]:
        """Return up to `n` new long prompts.

        Args:
            n: how many at most.
            rng: draws everything.
            language: a language code that there are documents for.
            short: benign prompts of that language; about a third of the samples are packed of these.

        Raises:
            BadInput: there are no documents of that language.
        """
        if language not in self.shelves:
            raise BadInput(f"no documents in language {language!r}; there are {', '.join(self.shelves)}")
        shelf = self.shelves[language]
        out: list[Grown] = []
        for _ in range(n):
            for _ in range(_TRIES):
                packs = len(short) >= 3 and shelf.packs and (not shelf.documents or rng.random() < 1 / 3)
                grown = _pack(shelf, short, rng) if packs else _paste(shelf, rng)
                if grown is not None and grown.text not in self._taken:
                    self._taken.add(grown.text)
                    out.append(grown)
                    break
        return out


@dataclass
class TaskPicker:
    """Makes short tasks: a request of a model, with an input of a few lines or none, none of them twice."""

    shelves: Mapping[str, Shelf] = field(default_factory=all_tasks)
    _taken: set[str] = field(init=False, repr=False, default_factory=set)

    def samples(self, n: int, rng: np.random.Generator, *, language: str = "en") -> list[Grown]:
        """Return up to `n` new tasks.

        Raises:
            BadInput: there are no tasks in that language.
        """
        if language not in self.shelves:
            raise BadInput(f"no tasks in language {language!r}; there are {', '.join(self.shelves)}")
        shelf = self.shelves[language]
        # A kind with many requests and inputs gives more before it repeats itself.
        rooms = np.array([_room(document) for document in shelf.documents], dtype=np.float64)
        out: list[Grown] = []
        for place in rng.choice(len(rooms), size=n, p=rooms / rooms.sum()):
            for _ in range(_TRIES):
                grown = _task(shelf.documents[place], shelf, rng)
                if grown is not None and grown.text not in self._taken:
                    self._taken.add(grown.text)
                    out.append(grown)
                    break
        return out


def _room(document: Document) -> float:
    return float(np.sqrt((len(document.before) + len(document.after)) * max(len(document.lines), 1)))


def _task(document: Document, shelf: Shelf, rng: np.random.Generator) -> Grown | None:
    least, most = document.pieces or (1, 1)
    places = np.sort(rng.permutation(len(document.lines))[: int(rng.integers(least, most + 1))])
    pieces = [_filled(document.lines[place], shelf, rng) for place in places]
    text = _around(document, shelf, ("\n\n" if document.paragraphs else "\n").join(pieces), rng)
    if not SHORTEST_TASK <= len(text) <= LONGEST_TASK:
        return None
    return _grown("task", document, shelf, text)


def _length(rng: np.random.Generator) -> int:
    """Draw a length: as often between 200 and 900 characters as between 900 and 4,000."""
    return int(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST))))


def _paste(shelf: Shelf, rng: np.random.Generator) -> Grown | None:
    """Make one instruction with a pasted document."""
    if not shelf.documents:
        return None
    wanted = _length(rng)
    document, body = _long_enough(shelf, wanted, rng)
    text = _around(document, shelf, body, rng)
    return _grown("document", document, shelf, text) if SHORTEST <= len(text) <= LONGEST else None


def _around(document: Document, shelf: Shelf, body: str, rng: np.random.Generator) -> str:
    """Put what is asked before the text or after it, the text fenced now and then."""
    ahead = bool(document.before) and (not document.after or rng.random() < 0.65)
    asks = document.before if ahead else document.after
    ask = _filled(asks[int(rng.integers(len(asks)))], shelf, rng)
    if not body:
        return ask
    fence = document.fences[int(rng.integers(len(document.fences)))]
    if fence.endswith(": "):
        body = fence + body
    elif fence:
        body = f"{fence}\n{body}\n{_closing(fence)}"
    gap = "\n" if rng.random() < 0.3 else "\n\n"
    if document.pieces and "\n" not in body and rng.random() < 0.4:
        gap = " "  # people write a short input on the line of the request
    return f"{ask}{gap}{body}" if ahead else f"{body}{gap}{ask}"


def _grown(kind: str, document: Document, shelf: Shelf, text: str) -> Grown:
    category = _ROW.get(document.topic, "generic_variation")
    prefix = {"document": "long", "task": "task"}[kind]
    how = f"{kind}:{shelf.language}/{document.name}"
    return Grown(text, how, kind, category, f"{prefix}-{document.topic}-{shelf.language}")


def _long_enough(shelf: Shelf, wanted: int, rng: np.random.Generator) -> tuple[Document, str]:
    """Return a document and its text; the longest of a few, since most kinds end before 2,000 characters."""
    longest: tuple[Document, str] | None = None
    for _ in range(_TRIES):
        document = shelf.documents[int(rng.integers(len(shelf.documents)))]
        body = _body(document, shelf, wanted, "\n\n" if document.paragraphs else "\n", rng)
        if longest is None or len(body) > len(longest[1]):
            longest = document, body
        if len(body) >= _NEAR * wanted:
            break
    assert longest is not None  # noqa: S101 - there was at least one try
    return longest


def _body(document: Document, shelf: Shelf, wanted: int, joint: str, rng: np.random.Generator) -> str:
    """Fill lines until the text is as long as wanted, or there are no more."""
    head = [_filled(text, shelf, rng) for text in document.head]
    tail = [_filled(text, shelf, rng) for text in document.tail]
    size = sum(len(text) + len(joint) for text in (*head, *tail))
    chosen: list[tuple[int, str]] = []
    while size < wanted:
        order = rng.permutation(len(document.lines))
        for place in order:
            line = _filled(document.lines[place], shelf, rng)
            if chosen and size + len(line) > LONGEST - 300:
                return _join(document, head, chosen, tail, joint)
            chosen.append((len(chosen) if document.repeat or document.shuffled else int(place), line))
            size += len(line) + len(joint)
            if size >= wanted:
                break
        if not document.repeat:
            break
    return _join(document, head, chosen, tail, joint)


def _join(document: Document, head: list[str], chosen: list[tuple[int, str]], tail: list[str], joint: str) -> str:
    return joint.join([*head, *(text for _, text in sorted(chosen)), *tail])


def _closing(fence: str) -> str:
    """Return what closes a fence: a tag's end tag, three backticks, else the fence itself."""
    if fence.startswith("<"):
        return "</" + fence[1:]
    return "```" if fence.startswith("```") else fence


def _pack(shelf: Shelf, short: Sequence[str], rng: np.random.Generator) -> Grown | None:
    """Make one prompt of several requests."""
    wanted = _length(rng)
    intro = shelf.packs[int(rng.integers(len(shelf.packs)))]
    mark = _MARKS[int(rng.integers(len(_MARKS)))]
    lines: list[str] = [_filled(intro, shelf, rng)]
    for number, place in enumerate(rng.permutation(len(short)), 1):
        lines.append(mark.format(number) + short[place])
        if sum(map(len, lines)) >= wanted or number == 12:
            break
    text = "\n".join(lines)
    if not SHORTEST <= len(text) <= LONGEST:
        return None
    return Grown(
        text, f"document:{shelf.language}/pack", "document", "generic_variation", f"long-pack-{shelf.language}"
    )


def _filled(pattern: str, shelf: Shelf, rng: np.random.Generator) -> str:
    values = {}
    for name in slots_of(pattern):
        options = shelf.slots.get(name) or shelf.slots[name.lower()]
        drawn = options[int(rng.integers(len(options)))]
        values[name] = drawn[:1].upper() + drawn[1:] if name[0].isupper() else drawn
    return fill(pattern, values)
