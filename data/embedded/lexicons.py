"""The embedded lexicons: languages, frameworks, topics, names and synonyms, tagged by what they go together with.

Takes the YAML files of `lexicons/` (a file holds lexicons by name, `synonyms.yaml` holds groups of words), checks them
on load and gives a `Lexicons` object that answers which entries are compatible and fills slots from them. Adding a
language or a topic means adding a line of YAML.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crywolf.data.errors import BadInput

from .grammar import read_yaml

_FOLDER = Path(__file__).parent / "lexicons"
FRAMES = Path(__file__).parent / "frames"
_SYNONYMS = "synonyms.yaml"
_ENTRY_KEYS = {"text", "tags", "aliases", "plural"}
_PARTS = ("noun", "verb", "adjective", "adverb")


@dataclass(frozen=True)
class Entry:
    """One word or phrase of a lexicon; `tags` name what it belongs to, `aliases` are other spellings of it."""

    text: str
    tags: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    plural: bool = False


@dataclass(frozen=True)
class SynonymGroup:
    """Words of one part of speech that replace one another without changing anything else in the sentence."""

    part: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Lexicons:
    """All lexicons by name, with the groups of domain synonyms."""

    tables: Mapping[str, tuple[Entry, ...]]
    groups: tuple[SynonymGroup, ...] = ()
    _by_text: Mapping[str, Mapping[str, Entry]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_text = {
            name: {spelling.lower(): entry for entry in entries for spelling in (entry.text, *entry.aliases)}
            for name, entries in self.tables.items()
        }
        object.__setattr__(self, "_by_text", by_text)

    def names(self) -> tuple[str, ...]:
        """Return the names of the lexicons."""
        return tuple(self.tables)

    def entries(self, name: str) -> tuple[Entry, ...]:
        """Return the entries of the lexicon `name`.

        Raises:
            BadInput: there is no such lexicon.
        """
        if name not in self.tables:
            raise BadInput(f"no lexicon named {name!r}; there are {', '.join(sorted(self.tables))}")
        return self.tables[name]

    def entry(self, name: str, text: str) -> Entry | None:
        """Return the entry of lexicon `name` spelled `text` (or aliased so) in any letter case, None without one."""
        self.entries(name)
        return self._by_text[name].get(text.lower())

    @staticmethod
    def compatible(a: Entry, b: Entry) -> bool:
        """Say whether two entries go together: they share a tag of every kind of tag that both have.

        The kind of a tag is what stands before its colon ("os:unix"); tags without one are of the kind of ecosystems.
        An entry without tags goes with everything.
        """
        shared = {_kind(tag) for tag in a.tags & b.tags}
        return all(kind in shared for kind in {_kind(tag) for tag in a.tags} & {_kind(tag) for tag in b.tags})

    def choose_entries(self, names: Sequence[str], rng: np.random.Generator) -> dict[str, Entry]:
        """Return one entry for each lexicon of `names`, every two of them compatible.

        Raises:
            BadInput: a lexicon is unknown, or no compatible filling exists.
        """
        chosen = self._extend({}, list(dict.fromkeys(names)), rng)
        if chosen is None:
            raise BadInput(f"no compatible entries for lexicons {', '.join(names)}")
        return {name: chosen[name] for name in names}

    def choose(self, names: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
        """Return a mutually compatible filling of `names` as texts (see `choose_entries`)."""
        return {name: entry.text for name, entry in self.choose_entries(names, rng).items()}

    def _extend(
        self, chosen: dict[str, Entry], names: Sequence[str], rng: np.random.Generator
    ) -> dict[str, Entry] | None:
        """Fill the rest of `names` by depth-first search in random order."""
        if not names:
            return chosen
        entries = self.entries(names[0])
        for i in rng.permutation(len(entries)):
            entry = entries[i]
            if all(self.compatible(entry, other) for other in chosen.values()):
                found = self._extend({**chosen, names[0]: entry}, names[1:], rng)
                if found is not None:
                    return found
        return None

    def synonyms(self) -> list[list[str]]:
        """Return the groups of domain synonyms, in the shape that nlpaug's ReservedAug takes."""
        return [list(group.words) for group in self.groups]


def _kind(tag: str) -> str:
    return tag.rpartition(":")[0]


@lru_cache(maxsize=1)
def lexicons() -> Lexicons:
    """Return the embedded lexicons, read and checked once."""
    return load_lexicons(_FOLDER)


def load_lexicons(folder: Path) -> Lexicons:
    """Read every YAML file of `folder`.

    Raises:
        BadInput: a file is not of the documented form; the message names the file, the lexicon and the entry.
    """
    tables: dict[str, tuple[Entry, ...]] = {}
    groups: tuple[SynonymGroup, ...] = ()
    for path in sorted(folder.glob("*.yaml")):
        document = read_yaml(path)
        if not isinstance(document, dict):
            raise BadInput(f"{path}: expected a mapping of lexicons, got {type(document).__name__}")
        if path.name == _SYNONYMS:
            groups = _read_groups(path, document)
            continue
        for name, body in document.items():
            if name in tables:
                raise BadInput(f"{path}: lexicon {name!r} is defined twice")
            tables[name] = _read_table(path, name, body)
    if not tables:
        raise BadInput(f"{folder}: no lexicons found; expected *.yaml files")
    return Lexicons(tables, groups)


def _read_table(path: Path, name: str, body: Any) -> tuple[Entry, ...]:
    if not isinstance(body, dict) or not isinstance(body.get("entries"), list) or not body["entries"]:
        raise BadInput(f"{path}: lexicon {name!r} needs a list `entries`")
    entries = tuple(_read_entry(f"{path}: lexicon {name!r}, entry {i}", raw) for i, raw in enumerate(body["entries"]))
    _no_repeats(f"{path}: lexicon {name!r}", (text for e in entries for text in (e.text, *e.aliases)))
    return entries


def _read_entry(where: str, raw: Any) -> Entry:
    if not isinstance(raw, dict) or not isinstance(raw.get("text"), str) or not raw["text"].strip():
        raise BadInput(f"{where}: expected a mapping with a non-empty `text`, got {raw!r}")
    unknown = set(raw) - _ENTRY_KEYS
    if unknown:
        raise BadInput(f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_ENTRY_KEYS))}")
    tags, aliases = raw.get("tags") or [], raw.get("aliases") or []
    if not _strings(tags) or not _strings(aliases):
        raise BadInput(f"{where}: `tags` and `aliases` must be lists of strings, got {raw!r}")
    return Entry(raw["text"], frozenset(tags), tuple(aliases), bool(raw.get("plural", False)))


def _read_groups(path: Path, document: Mapping[str, Any]) -> tuple[SynonymGroup, ...]:
    raw = document.get("groups")
    if not isinstance(raw, list):
        raise BadInput(f"{path}: expected a list `groups`")
    groups = []
    for i, item in enumerate(raw):
        words = item.get("words") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not _strings(words) or len(words or ()) < 2 or item.get("part") not in _PARTS:
            raise BadInput(f"{path}: group {i} needs `part` ({', '.join(_PARTS)}) and two or more `words`: {item!r}")
        groups.append(SynonymGroup(item["part"], tuple(words or ())))
    _no_repeats(str(path), (f"{g.part} {word}" for g in groups for word in g.words))
    return tuple(groups)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _no_repeats(where: str, texts: Iterable[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        if text.lower() in seen:
            raise BadInput(f"{where}: {text!r} occurs twice")
        seen.add(text.lower())
