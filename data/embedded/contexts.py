"""The embedded contexts: trigger words in harmless sentences, and everyday prompts without one, in many languages.

Takes the YAML files of `contexts/` (several files of one language are one), checks them on load and gives a `Contexts`
a language: frames by the kind of slot they hold, triggers with their phrases, everyday patterns. A language or a
trigger word is added by adding YAML; CONTRIBUTING.md describes the file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from crywolf.data.errors import BadInput

from .grammar import read_yaml, slots_of

FOLDER = Path(__file__).parent / "contexts"
KINDS = ("task", "thing", "event")
"""What a phrase can be: something to do, a noun phrase, a clause."""
FRAME_KINDS = (*KINDS, "pair", "triple", "word")
TOPICS = frozenset({"programming", "security", "general", "creative", "work", "home", "education"})
_KEYS = {"language", "slots", "frames", "triggers", "everyday"}
_TRIGGER_KEYS = {"word", "forms", "topic", *KINDS}
_PHRASE_SLOT = re.compile(r"^(task|thing|event)(?:_([23]))?$")


@dataclass(frozen=True)
class Frame:
    """A sentence around phrases; `holds` names the kinds of its phrase slots, `topics` is empty where any fits."""

    text: str
    kind: str
    holds: tuple[str, ...]
    topics: frozenset[str] = frozenset()

    def fits(self, topic: str) -> bool:
        """Whether the frame may hold phrases of a topic."""
        return not self.topics or topic in self.topics


@dataclass(frozen=True)
class Trigger:
    """A word that detectors react to, with harmless phrases of one topic that hold it, by kind."""

    word: str
    forms: tuple[str, ...]
    topic: str
    phrases: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Everyday:
    """A whole prompt, or a pattern of one, that holds no trigger word."""

    text: str
    topic: str


@dataclass(frozen=True)
class Contexts:
    """What one language offers."""

    language: str
    slots: Mapping[str, tuple[str, ...]]
    frames: Mapping[str, tuple[Frame, ...]]
    triggers: tuple[Trigger, ...]
    everyday: tuple[Everyday, ...]

    def words(self) -> frozenset[str]:
        """Return every trigger word and form, lower-cased."""
        return frozenset(word.lower() for item in self.triggers for word in (item.word, *item.forms))


@lru_cache(maxsize=1)
def all_contexts() -> Mapping[str, Contexts]:
    """Return the embedded contexts by language code, read and checked once."""
    return load_contexts(FOLDER)


def contexts(language: str) -> Contexts:
    """Return the embedded contexts of a language.

    Raises:
        BadInput: there are none of that language.
    """
    known = all_contexts()
    if language not in known:
        raise BadInput(f"no embedded contexts in language {language!r}; there are {', '.join(known)}")
    return known[language]


def languages() -> tuple[str, ...]:
    """Return the codes of the languages that contexts are embedded for, English first."""
    codes = {path.stem.split("_")[0] for path in FOLDER.glob("*.yaml")}
    return tuple(sorted(codes, key=lambda code: (code != "en", code)))


def load_contexts(folder: Path) -> dict[str, Contexts]:
    """Read every YAML file of a folder and join those of one language.

    Raises:
        BadInput: a file is not of the documented form; the message names the file, the list and the entry.
    """
    parts: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("*.yaml")):
        document = read_yaml(path)
        if not isinstance(document, dict) or not isinstance(document.get("language"), str):
            raise BadInput(f"{path}: expected a mapping with a `language`")
        if unknown := set(document) - _KEYS:
            raise BadInput(f"{path}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
        parts.setdefault(document["language"], []).append((path, document))
    if not parts:
        raise BadInput(f"{folder}: no contexts found; expected *.yaml files")
    order = sorted(parts, key=lambda code: (code != "en", code))
    return {code: _join(code, parts[code]) for code in order}


def _join(language: str, parts: Sequence[tuple[Path, dict[str, Any]]]) -> Contexts:
    """Join the files of a language; slots are shared among them."""
    slots: dict[str, tuple[str, ...]] = {}
    for path, document in parts:
        for name, values in (document.get("slots") or {}).items():
            if not _strings(values):
                raise BadInput(f"{path}: slot {name!r} needs a list of texts")
            slots[name] = tuple(dict.fromkeys((*slots.get(name, ()), *values)))
    frames = {
        kind: tuple(frame for path, document in parts for frame in _frames(path, document, kind, slots))
        for kind in FRAME_KINDS
    }
    triggers = tuple(item for path, document in parts for item in _triggers(path, document, slots))
    everyday = tuple(item for path, document in parts for item in _everyday(path, document, slots))
    missing = [kind for kind in KINDS if not frames[kind] and any(item.phrases[kind] for item in triggers)]
    if missing:
        raise BadInput(f"{parts[0][0]}: language {language!r} has {missing[0]} phrases and no {missing[0]} frames")
    return Contexts(language, slots, frames, triggers, everyday)


def _frames(path: Path, document: Mapping[str, Any], kind: str, slots: Mapping[str, Any]) -> Iterator[Frame]:
    given = document.get("frames") or {}
    if unknown := set(given) - set(FRAME_KINDS):
        raise BadInput(f"{path}: unknown kind of frames {min(unknown)!r}; known are {', '.join(FRAME_KINDS)}")
    for number, entry in enumerate(given.get(kind) or []):
        where = f"{path}: {kind} frame {number}"
        item = {"text": entry} if isinstance(entry, str) else entry
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise BadInput(f"{where}: expected a text or a mapping with `text`, got {entry!r}")
        own = [name.lower() for name in slots_of(item["text"])]
        holds = tuple(name for name in own if _PHRASE_SLOT.match(name) or name == "word")
        _check_slots(where, [name for name in own if name not in holds], slots)
        kinds = tuple(name.split("_")[0] for name in holds)
        if not _right_slots(kind, kinds):
            raise BadInput(f"{where}: a {kind} frame cannot hold {', '.join(holds) or 'no phrase'}: {item['text']!r}")
        yield Frame(item["text"], kind, holds, frozenset(item.get("topics") or ()))


def _right_slots(kind: str, kinds: tuple[str, ...]) -> bool:
    if kind in {"pair", "triple"}:
        return len(kinds) == (2 if kind == "pair" else 3) and "word" not in kinds
    return kinds == (kind,)


def _triggers(path: Path, document: Mapping[str, Any], slots: Mapping[str, Any]) -> Iterator[Trigger]:
    for number, item in enumerate(document.get("triggers") or []):
        where = f"{path}: trigger {number}"
        if not isinstance(item, dict) or not isinstance(item.get("word"), str):
            raise BadInput(f"{where}: expected a mapping with a `word`, got {item!r}")
        where += f" ({item['word']})"
        if unknown := set(item) - _TRIGGER_KEYS:
            raise BadInput(f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_TRIGGER_KEYS))}")
        if item.get("topic") not in TOPICS:
            raise BadInput(f"{where}: topic {item.get('topic')!r} is none of {', '.join(sorted(TOPICS))}")
        for name in ("forms", *KINDS):
            if not _strings(item.get(name) or []):
                raise BadInput(f"{where}: `{name}` must be a list of texts")
        phrases = {kind: tuple(item.get(kind) or ()) for kind in KINDS}
        if not any(phrases.values()):
            raise BadInput(f"{where}: no phrases")
        for text in (text for texts in phrases.values() for text in texts):
            _check_slots(where, slots_of(text), slots)
        yield Trigger(item["word"], tuple(item.get("forms") or ()), item["topic"], phrases)


def _everyday(path: Path, document: Mapping[str, Any], slots: Mapping[str, Any]) -> Iterator[Everyday]:
    for number, item in enumerate(document.get("everyday") or []):
        where = f"{path}: everyday {number}"
        if not isinstance(item, dict) or not isinstance(item.get("text"), str) or item.get("topic") not in TOPICS:
            raise BadInput(f"{where}: expected `text` and a `topic` of {', '.join(sorted(TOPICS))}, got {item!r}")
        _check_slots(where, slots_of(item["text"]), slots)
        yield Everyday(item["text"], item["topic"])


def _check_slots(where: str, names: Sequence[str], slots: Mapping[str, Any]) -> None:
    missing = [name for name in names if not slots.get(name)]
    if missing:
        raise BadInput(f"{where}: no values for slot {missing[0]!r}")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)
