"""The embedded documents: what people paste into a prompt (logs, code, mails, notes, tables), with what they ask of it.

Takes the YAML files of `documents/` and `tasks/` (several files of one language are one), checks them on load and gives
a `Shelf` a language. Tasks are short: a request and an input of a few lines, or none. A kind of document is added by
adding YAML; CONTRIBUTING.md describes the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from crywolf.data.errors import BadInput

from .contexts import TOPICS
from .grammar import read_yaml, slots_of

FOLDER = Path(__file__).parent / "documents"
TASKS = Path(__file__).parent / "tasks"
_KEYS = {"language", "slots", "documents", "packs"}
_OPTIONS = {"join", "order", "fences", "repeat", "pieces"}
_DOCUMENT_KEYS = {"name", "topic", "before", "after", "lines", "head", "tail"} | _OPTIONS
_LISTS = ("before", "after", "lines", "head", "tail")


@dataclass(frozen=True)
class Document:
    """One kind of pasted text: what is asked before or after it, and the lines or paragraphs that it is made of."""

    name: str
    topic: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    lines: tuple[str, ...]
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    paragraphs: bool = True  # joined by blank lines, not by line ends
    shuffled: bool = True
    repeat: bool = False  # whether a line may come again with other values
    fences: tuple[str, ...] = ("",)
    pieces: tuple[int, int] | None = None  # at least and at most so many lines, whatever the length; None fills it


@dataclass(frozen=True)
class Shelf:
    """The documents of one language; `packs` are openings of a prompt that holds several requests."""

    language: str
    slots: Mapping[str, tuple[str, ...]]
    documents: tuple[Document, ...]
    packs: tuple[str, ...]


@lru_cache(maxsize=1)
def all_shelves() -> Mapping[str, Shelf]:
    """Return the embedded documents by language code, read and checked once."""
    return load_shelves(FOLDER)


@lru_cache(maxsize=1)
def all_tasks() -> Mapping[str, Shelf]:
    """Return the embedded tasks, requests with a short input or none, by language code; read and checked once."""
    return load_shelves(TASKS)


def load_shelves(folder: Path) -> dict[str, Shelf]:
    """Read every YAML file of a folder and join those of one language.

    Raises:
        BadInput: a file is not of the documented form; the message names the file and the document.
    """
    shelves: dict[str, Shelf] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = read_yaml(path)
        if not isinstance(content, dict) or not isinstance(content.get("language"), str):
            raise BadInput(f"{path}: expected a mapping with a `language`")
        if unknown := set(content) - _KEYS:
            raise BadInput(f"{path}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
        read = _read(path, content)
        shelves[read.language] = _joined(shelves[read.language], read) if read.language in shelves else read
    if not shelves:
        raise BadInput(f"{folder}: no documents found; expected *.yaml files")
    return shelves


def _read(path: Path, content: Mapping[str, Any]) -> Shelf:
    slots = {name: _texts(path, f"slot {name!r}", values) for name, values in (content.get("slots") or {}).items()}
    found = tuple(_document(path, number, item, slots) for number, item in enumerate(content.get("documents") or []))
    return Shelf(content["language"], slots, found, _texts(path, "packs", content.get("packs") or []))


def _joined(one: Shelf, other: Shelf) -> Shelf:
    slots = {**one.slots, **{name: (*one.slots.get(name, ()), *values) for name, values in other.slots.items()}}
    return Shelf(one.language, slots, (*one.documents, *other.documents), (*one.packs, *other.packs))


def _document(path: Path, number: int, item: Any, slots: Mapping[str, Sequence[str]]) -> Document:
    where = f"{path}: document {number}"
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise BadInput(f"{where}: expected a mapping with a `name`, got {item!r}")
    where += f" ({item['name']})"
    if unknown := set(item) - _DOCUMENT_KEYS:
        raise BadInput(f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_DOCUMENT_KEYS))}")
    if item.get("topic") not in TOPICS:
        raise BadInput(f"{where}: topic {item.get('topic')!r} is none of {', '.join(sorted(TOPICS))}")
    if item.get("join", "paragraph") not in {"paragraph", "line"} or item.get("order", "shuffled") not in {
        "kept",
        "shuffled",
    }:
        raise BadInput(f"{where}: `join` is paragraph or line, `order` is kept or shuffled")
    texts = {name: _texts(path, f"{where}, {name}", item.get(name) or []) for name in _LISTS}
    pieces = _pieces(where, item.get("pieces"), len(texts["lines"]))
    if not (texts["lines"] or pieces == (0, 0)) or not (texts["before"] or texts["after"]):
        raise BadInput(f"{where}: needs `lines` (or pieces: [0, 0]), and `before` or `after`")
    for text in (text for name in _LISTS for text in texts[name]):
        missing = [name for name in slots_of(text) if name not in slots and name.lower() not in slots]
        if missing:
            raise BadInput(f"{where}: no values for slot {missing[0]!r}")
    return Document(
        name=item["name"],
        topic=item["topic"],
        paragraphs=item.get("join", "paragraph") == "paragraph",
        shuffled=item.get("order", "shuffled") == "shuffled",
        repeat=bool(item.get("repeat", False)),
        fences=tuple(item.get("fences") or ("",)),
        pieces=pieces,
        **texts,
    )


def _pieces(where: str, value: Any, lines: int) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(number, int) for number in value)):
        raise BadInput(f"{where}: `pieces` is [at least, at most], two whole numbers")
    least, most = value
    if not 0 <= least <= most <= lines:
        raise BadInput(f"{where}: pieces {value} do not fit its {lines} lines")
    return least, most


def _texts(path: Path, what: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise BadInput(f"{path}: {what} needs a list of texts")
    return tuple(values)
