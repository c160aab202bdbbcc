"""The frames that draw the border between mention and use, and what is needed to disguise and grow attacks.

Takes the YAML files of `intent/`, checks every entry on load, and gives plain frozen data: frames that hold an attack
as something asked about or handled (benign), frames that have it carried out (malicious), disguised texts of both
kinds, carriers, and the wordings that attacks use for the same thing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from crywolf.data.errors import BadInput
from crywolf.data.schema import THREAT_TYPES

from .attacks import CIPHERS
from .grammar import read_yaml, slots_of

FOLDER: Final = Path(__file__).parent / "intent"
LANGUAGES: Final = ("en", "es", "de", "fr", "pt", "zh", "ja", "hi", "ar", "ru")
MENTION: Final = "mention"
USE: Final = "use"
FORMS: Final = ("", "_json", "_py", "_re")
"""How an attack may stand in a frame: as it is, inside a JSON string, as a Python literal, as a regular expression."""

_ATTACKS: Final = tuple(f"{name}{form}" for name in ("attack", "attack_2") for form in FORMS)
_CODED: Final = {"coded", "coded_json", "plain", "plain_json", "cipher"}
_TYPOS: Final = "typos"
_GROUP_KEYS: Final = {"name", "language", "threat_types", "why_hard", "frames"}


@dataclass(frozen=True)
class IntentFrame:
    """A prompt with a place for an attack; `threat_types` empty means that it fits every one.

    `why_hard` says of a mention why a detector takes it for an attack.
    """

    id: str
    intent: str
    language: str
    text: str
    threat_types: frozenset[str] = frozenset()
    why_hard: str | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of its slots."""
        return tuple(slots_of(self.text))

    @property
    def wants_second(self) -> bool:
        """Whether it holds a second attack beside the first."""
        return any(name.startswith("attack_2") for name in self.slots)

    def fits(self, threat_type: str | None) -> bool:
        """Say whether attacks of this type may stand in it."""
        return not self.threat_types or threat_type in self.threat_types

    def takes_lines(self, slot: str = "attack") -> bool:
        """Say whether an attack of several lines may stand in the slot: escaped, or on lines of its own."""
        alone = re.compile(rf"^\{{{slot}\}}$", re.MULTILINE)
        return f"{{{slot}}}" not in self.text or len(alone.findall(self.text)) == self.text.count(f"{{{slot}}}")


@dataclass(frozen=True)
class Frames:
    """All intent frames, and the values of the slots that are no attack."""

    frames: tuple[IntentFrame, ...]
    slots: Mapping[str, tuple[str, ...]]

    def of(self, intent: str, language: str, threat_type: str | None) -> list[IntentFrame]:
        """Return the frames of one intent and language that fit a threat type."""
        return [f for f in self.frames if f.intent == intent and f.language == language and f.fits(threat_type)]


@dataclass(frozen=True)
class Cues:
    """By what a text is known as an attack: cues in English, in other languages, and of an encoding."""

    english: re.Pattern[str]
    abroad: re.Pattern[str]
    disguised: re.Pattern[str]


@dataclass(frozen=True)
class DisguiseFrame:
    """A prompt around a disguised text, and the disguises that it fits."""

    id: str
    text: str
    ciphers: frozenset[str]


@dataclass(frozen=True)
class Disguises:
    """Harmless sentences, the benign prompts around disguised ones, and the prompts that have one obeyed."""

    names: Mapping[str, str]
    sentences: tuple[str, ...]
    benign: tuple[DisguiseFrame, ...]
    obey: tuple[DisguiseFrame, ...]


@dataclass(frozen=True)
class Carriers:
    """What may stand around a malicious row: sentences before and after, documents, requests for another language."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    documents: tuple[str, ...]
    languages: Mapping[str, str]
    reply_frames: tuple[str, ...]
    native_frames: tuple[str, ...]


@dataclass(frozen=True)
class Clause:
    """A clause that attacks have in many wordings: found by a pattern, said with any verb and any object."""

    find: re.Pattern[str]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Swap:
    """Wordings for what `find` matches; not used on a text in which `unless` is found."""

    find: re.Pattern[str]
    put: tuple[str, ...]
    unless: re.Pattern[str] | None = None
    start: bool = False


@dataclass(frozen=True)
class Phrasebook:
    """How attacks say the same thing in other words."""

    overrides: Clause
    reveals: Clause
    swaps: tuple[Swap, ...]
    base: tuple[str, ...]
    question: tuple[str, ...]
    joins: tuple[str, ...]
    fronts: tuple[str, ...]


@lru_cache(maxsize=1)
def intent_frames() -> Frames:
    """Return the embedded frames of mention and use, read and checked once."""
    return load_frames(FOLDER)


@lru_cache(maxsize=1)
def cues() -> Cues:
    """Return the embedded cues of attacks, read and checked once."""
    return load_cues(FOLDER / "cues.yaml")


@lru_cache(maxsize=1)
def disguises() -> Disguises:
    """Return the embedded harmless sentences and the prompts around disguised texts, read and checked once."""
    return load_disguises(FOLDER / "obfuscation.yaml")


@lru_cache(maxsize=1)
def carriers() -> Carriers:
    """Return the embedded surroundings of grown attacks, read and checked once."""
    return load_carriers(FOLDER / "growth.yaml")


@lru_cache(maxsize=1)
def phrasebook() -> Phrasebook:
    """Return the embedded wordings of attacks, read and checked once."""
    return load_phrasebook(FOLDER / "paraphrase.yaml")


# ---------------------------------------------------------------------------------------------------- mention and use


def load_frames(folder: Path) -> Frames:
    """Read `mention_*.yaml`, `use_*.yaml` and `slots.yaml` of a folder.

    Raises:
        BadInput: an unknown key, language, threat type or slot, a frame without an attack or twice there, a mention
            without its `why_hard`, or another form than the embedded one; names the file and the entry.
    """
    values = _slot_values(folder / "slots.yaml")
    frames: dict[str, IntentFrame] = {}
    for path in sorted(p for intent in (MENTION, USE) for p in folder.glob(f"{intent}_*.yaml")):
        for where, frame in _frames_of(path, values):
            if frame.id in frames:
                raise BadInput(f"{where}: the same frame is there twice; remove one")
            frames[frame.id] = frame
    if not frames:
        raise BadInput(f"{folder}: no frames found; expected mention_*.yaml and use_*.yaml")
    return Frames(tuple(frames.values()), values)


def _slot_values(path: Path) -> dict[str, tuple[str, ...]]:
    document = _mapping(read_yaml(path), str(path), {"slots"})
    slots = document.get("slots")
    if not isinstance(slots, dict):
        raise BadInput(f"{path}: expected a mapping `slots`")
    return {str(name): _texts(values, f"{path}: slot {name!r}") for name, values in slots.items()}


def _frames_of(path: Path, values: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, IntentFrame]]:
    document = _mapping(read_yaml(path), str(path), {"intent", "language", "groups"})
    intent = document.get("intent")
    if intent not in (MENTION, USE):
        raise BadInput(f"{path}: `intent` is {intent!r}; it must be {MENTION} or {USE}")
    if not isinstance(document.get("groups"), list) or not document["groups"]:
        raise BadInput(f"{path}: expected a list `groups`")
    for number, group in enumerate(document["groups"], 1):
        where = f"{path}: group {number}"
        fields = _mapping(group, where, _GROUP_KEYS)
        where = f"{where} ({fields.get('name')})"
        shared = _group_fields(fields, intent, document.get("language"), where)
        for entry, text in enumerate(_texts(fields.get("frames"), f"{where}: `frames`"), 1):
            _check_slots(text, {*_ATTACKS, *values, *(f"{name}_cap" for name in values)}, f"{where}: frame {entry}")
            if not any(name in _ATTACKS[: len(FORMS)] for name in slots_of(text)):
                raise BadInput(f"{where}: frame {entry} has no place for the attack; write {{attack}} where it goes")
            yield where, IntentFrame(id=_id(f"{fields['name']}", text), text=text, **shared)


def _group_fields(fields: Mapping[str, Any], intent: str, language: Any, where: str) -> dict[str, Any]:
    language = fields.get("language", language)
    types = fields.get("threat_types", [])
    why = fields.get("why_hard")
    if not isinstance(fields.get("name"), str):
        raise BadInput(f"{where}: missing `name`")
    if language not in LANGUAGES:
        raise BadInput(f"{where}: language {language!r} is not one of {', '.join(LANGUAGES)}")
    if not isinstance(types, list) or not set(types) <= set(THREAT_TYPES):
        raise BadInput(f"{where}: threat_types {types!r} must be a list of {', '.join(THREAT_TYPES)}")
    if intent == MENTION and not isinstance(why, str):
        raise BadInput(f"{where}: missing `why_hard`, the sentence that says why a detector confuses it")
    return {"intent": intent, "language": language, "threat_types": frozenset(types), "why_hard": why}


def load_cues(path: Path) -> Cues:
    """Read a file of cues.

    Raises:
        BadInput: an expression does not compile, or another form than the embedded one; names the file and the entry.
    """
    document = _mapping(read_yaml(path), str(path), {"english", "abroad", "disguised"}, required=True)
    parts = {}
    for name, entries in document.items():
        texts = _texts(entries, f"{path}: {name}")
        for entry, text in enumerate(texts, 1):
            _regex(text, f"{path}: {name}: entry {entry}")
        # Case tells a Base64 text and a mix of scripts; elsewhere it tells nothing.
        flags = re.DOTALL | re.MULTILINE | (re.NOFLAG if name == "disguised" else re.IGNORECASE)
        parts[name] = re.compile("|".join(text.replace("\n", "") for text in texts), flags)
    return Cues(**parts)


# -------------------------------------------------------------------------------------------------- disguised texts


def load_disguises(path: Path) -> Disguises:
    """Read a file of harmless sentences and prompts around disguised texts.

    Raises:
        BadInput: an unknown cipher or slot, or another form than the embedded one; names the file and the entry.
    """
    keys = {"names", "sentences", "benign_frames", "obey_frames"}
    document = _mapping(read_yaml(path), str(path), keys, required=True)
    names = document["names"]
    unknown = sorted(set(names) - {*CIPHERS, _TYPOS}) if isinstance(names, dict) else ["?"]
    if unknown:
        raise BadInput(f"{path}: `names` has no cipher {unknown[0]!r}; known are {', '.join(sorted(CIPHERS))}")
    return Disguises(
        names={str(key): str(name) for key, name in names.items()},
        sentences=_texts(document["sentences"], f"{path}: `sentences`"),
        benign=_disguise_frames(document["benign_frames"], names, f"{path}: benign_frames"),
        obey=_disguise_frames(document["obey_frames"], names, f"{path}: obey_frames"),
    )


def _disguise_frames(groups: Any, names: Mapping[str, str], where: str) -> tuple[DisguiseFrame, ...]:
    if not isinstance(groups, list) or not groups:
        raise BadInput(f"{where}: expected a list of groups")
    out = []
    for number, group in enumerate(groups, 1):
        fields = _mapping(group, f"{where}: group {number}", {"ciphers", "frames"}, required=True)
        ciphers = _texts(fields["ciphers"], f"{where}: group {number}: `ciphers`")
        unknown = sorted(set(ciphers) - set(names))
        if unknown:
            raise BadInput(f"{where}: group {number}: cipher {unknown[0]!r} has no entry in `names`")
        for entry, text in enumerate(_texts(fields["frames"], f"{where}: group {number}: `frames`"), 1):
            _check_slots(text, _CODED, f"{where}: group {number}: frame {entry}")
            if "{coded" not in text and "{plain" not in text:
                raise BadInput(f"{where}: group {number}: frame {entry} holds no text; write {{coded}} where it goes")
            out.append(DisguiseFrame(_id(ciphers[0], text), text, frozenset(ciphers)))
    return tuple(out)


# ------------------------------------------------------------------------------------------ carriers and wordings


def load_carriers(path: Path) -> Carriers:
    """Read a file of carriers and of frames that ask for another language.

    Raises:
        BadInput: an unknown language or slot, or another form than the embedded one; names the file and the entry.
    """
    document = _mapping(read_yaml(path), str(path), {"carriers", "languages", "reply_frames", "native_frames"}, True)
    around = _mapping(document["carriers"], f"{path}: carriers", {"before", "after", "documents"}, True)
    names = document["languages"]
    if not isinstance(names, dict) or not set(names) <= set(LANGUAGES):
        raise BadInput(f"{path}: `languages` must name some of {', '.join(LANGUAGES)}")
    return Carriers(
        before=_texts(around["before"], f"{path}: carriers.before"),
        after=_texts(around["after"], f"{path}: carriers.after"),
        documents=_patterns(around["documents"], {"attack"}, {"attack"}, f"{path}: carriers.documents"),
        languages={str(key): str(name) for key, name in names.items()},
        reply_frames=_patterns(
            document["reply_frames"], {"attack", "language"}, {"attack", "language"}, f"{path}: reply_frames"
        ),
        native_frames=_patterns(
            document["native_frames"], {"attack", "native"}, {"attack", "native", "language"}, f"{path}: native_frames"
        ),
    )


def load_phrasebook(path: Path) -> Phrasebook:
    """Read a file of wordings.

    Raises:
        BadInput: a pattern does not compile, or another form than the embedded one; names the file and the entry.
    """
    document = _mapping(
        read_yaml(path), str(path), {"overrides", "reveals", "swaps", "openings", "joins", "fronts"}, required=True
    )
    openings = _mapping(document["openings"], f"{path}: openings", {"base", "question"}, required=True)
    if not isinstance(document["swaps"], list):
        raise BadInput(f"{path}: expected a list `swaps`")
    return Phrasebook(
        overrides=_clause(document["overrides"], f"{path}: overrides"),
        reveals=_clause(document["reveals"], f"{path}: reveals"),
        swaps=tuple(_swap(entry, f"{path}: swap {i}") for i, entry in enumerate(document["swaps"], 1)),
        base=_texts(openings["base"], f"{path}: openings.base"),
        question=_texts(openings["question"], f"{path}: openings.question"),
        joins=_texts(document["joins"], f"{path}: joins"),
        fronts=_patterns(document["fronts"], {"order", "override"}, {"order", "override"}, f"{path}: fronts"),
    )


def _clause(entry: Any, where: str) -> Clause:
    fields = _mapping(entry, where, {"find", "verbs", "objects"}, required=True)
    return Clause(
        _regex(fields["find"], where),
        _texts(fields["verbs"], f"{where}: `verbs`"),
        _texts(fields["objects"], f"{where}: `objects`"),
    )


def _swap(entry: Any, where: str) -> Swap:
    fields = _mapping(entry, where, {"find", "put", "unless", "start"})
    if not {"find", "put"} <= set(fields):
        raise BadInput(f"{where}: needs `find` and `put`")
    unless = _regex(fields["unless"], where) if "unless" in fields else None
    return Swap(_regex(fields["find"], where), _texts(fields["put"], f"{where}: `put`"), unless, "start" in fields)


# ------------------------------------------------------------------------------------------------------------ checks


def _mapping(value: Any, where: str, keys: set[str], required: bool = False) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected a mapping, got {type(value).__name__}")
    unknown = sorted(str(key) for key in value if key not in keys)
    if unknown:
        raise BadInput(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(keys))}")
    missing = sorted(keys - set(value))
    if required and missing:
        raise BadInput(f"{where}: missing {missing[0]!r}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise BadInput(f"{where}: expected a list of texts")
    if len(set(value)) < len(value):
        twice = next(v for v in value if value.count(v) > 1)
        raise BadInput(f"{where}: {twice[:60]!r} is there twice")
    return tuple(value)


def _patterns(value: Any, needed: set[str], known: set[str], where: str) -> tuple[str, ...]:
    texts = _texts(value, where)
    for entry, text in enumerate(texts, 1):
        _check_slots(text, known, f"{where}: entry {entry}")
        missing = sorted(needed - set(slots_of(text)))
        if missing:
            raise BadInput(f"{where}: entry {entry} has no {{{missing[0]}}}")
    return texts


def _check_slots(text: str, known: set[str], where: str) -> None:
    unknown = [name for name in slots_of(text) if name not in known]
    if unknown:
        raise BadInput(f"{where}: no slot named {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _regex(value: Any, where: str) -> re.Pattern[str]:
    try:
        return re.compile(str(value).replace("\n", ""), re.IGNORECASE)
    except re.error as error:
        raise BadInput(f"{where}: pattern {str(value)[:40]!r} does not compile: {error}") from error


def _id(name: str, text: str) -> str:
    """A name that stays when frames are added or moved, and changes with the frame's text."""
    return f"{name}-{blake2b(text.encode(), digest_size=3).hexdigest()}"
