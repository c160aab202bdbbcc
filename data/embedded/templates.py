"""The embedded templates: prompts with slots, grouped by what they are about, and the entities that a prompt may name.

Takes the YAML files of `templates/` (and of any folder of the user's), checks every entry on load, and gives
`Template` objects; what is wrong is reported with its file and entry. Adding a topic or a language means adding a file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from crywolf.data.errors import BadInput
from crywolf.data.schema import CATEGORIES, GROWN_CATEGORIES

from .grammar import read_yaml, slots_of
from .lexicons import Lexicons, lexicons

FOLDER = Path(__file__).parent / "templates"
CAPITALIZED = "_cap"
"""`{name_cap}` is the value of slot `name` with its first letter in upper case, for the beginning of a sentence."""

_ENTITIES = "entities.yaml"
_FILE_KEYS = {"slots", "groups"}
_GROUP_KEYS = {"category", "subcategory", "keywords", "fits", "slots", "requires", "templates"}
_TEMPLATE_KEYS = {"text", "slots", "requires"}

Values = str | tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """One prompt with slots.

    `slots` maps a name to its inline values or to the name of a lexicon; several lexicon slots of one template are
    filled compatibly. `keywords` say which prompts the template belongs to, `fits` the categories of prompts it may
    serve (all, if empty), `requires` the entities that a prompt must name for it.
    """

    id: str
    text: str
    category: str
    subcategory: str
    keywords: tuple[str, ...] = ()
    fits: frozenset[str] = frozenset()
    slots: Mapping[str, Values] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()


def templates() -> list[Template]:
    """Return the embedded templates, read and checked once."""
    return list(_embedded())


@lru_cache(maxsize=1)
def _embedded() -> tuple[Template, ...]:
    return tuple(load_templates(FOLDER))


@lru_cache(maxsize=1)
def entities() -> dict[str, tuple[re.Pattern[str], ...]]:
    """Return the patterns by which a prompt's own directories, file names and the like are recognised."""
    return load_entities(FOLDER / _ENTITIES)


def load_entities(path: Path) -> dict[str, tuple[re.Pattern[str], ...]]:
    """Read a file of entities: a list of regular expressions by name.

    Raises:
        BadInput: the file is not of this form, or an expression does not compile.
    """
    document = _read_mapping(path)
    out: dict[str, tuple[re.Pattern[str], ...]] = {}
    for name, patterns in document.items():
        if not _strings(patterns):
            raise BadInput(f"{path}: entity {name!r} must be a list of regular expressions")
        try:
            out[name] = tuple(re.compile(pattern) for pattern in patterns)
        except re.error as error:
            raise BadInput(f"{path}: entity {name!r}: {error}") from error
    return out


def load_templates(*folders: Path, lexicon: Lexicons | None = None) -> list[Template]:
    """Read every YAML file of the folders, in order of name.

    Args:
        folders: where the files lie; later folders add to earlier ones.
        lexicon: what slots may refer to by name; the embedded lexicons if not given.

    Raises:
        BadInput: an unknown slot, lexicon, entity or category, a duplicate, a missing subcategory, or another form than
            the documented one; names the file and the entry.
    """
    lexicon = lexicon or lexicons()
    out: list[Template] = []
    seen: dict[str, str] = {}
    for folder in folders:
        paths = sorted(path for path in folder.glob("*.yaml") if path.name != _ENTITIES)
        if not paths:
            raise BadInput(f"{folder}: no templates found; expected *.yaml files")
        for path in paths:
            for where, template in _read_file(path, lexicon):
                key = " ".join(template.text.lower().split())
                if key in seen:
                    raise BadInput(f"{where}: the same template as {seen[key]}")
                seen[key] = where
                out.append(template)
    return out


def _read_mapping(path: Path) -> dict[str, Any]:
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping, got {type(document).__name__}")
    return document


def _read_file(path: Path, lexicon: Lexicons) -> Iterator[tuple[str, Template]]:
    document = _read_mapping(path)
    _known_keys(str(path), document, _FILE_KEYS)
    if not isinstance(document.get("groups"), list) or not document["groups"]:
        raise BadInput(f"{path}: expected a list `groups`")
    shared = _read_slots(str(path), document.get("slots"), lexicon)
    for number, group in enumerate(document["groups"], 1):
        yield from _read_group(f"{path}: group {number}", group, shared, lexicon)


def _read_group(
    where: str, group: Any, shared: Mapping[str, Values], lexicon: Lexicons
) -> Iterator[tuple[str, Template]]:
    if not isinstance(group, dict):
        raise BadInput(f"{where}: expected a mapping, got {group!r}")
    _known_keys(where, group, _GROUP_KEYS)
    if not isinstance(group.get("subcategory"), str) or not group["subcategory"]:
        raise BadInput(f"{where}: missing subcategory")
    where = f"{where} ({group['subcategory']})"
    if group.get("category") not in GROWN_CATEGORIES:
        raise BadInput(f"{where}: category {group.get('category')!r} is none of {', '.join(GROWN_CATEGORIES)}")
    keywords, fits = group.get("keywords"), group.get("fits") or []
    if not keywords or not _strings(keywords):
        raise BadInput(f"{where}: needs `keywords`, a list of strings")
    if not isinstance(fits, list) or not set(map(str, fits)) <= set(CATEGORIES):
        raise BadInput(f"{where}: `fits` must be categories of prompts ({', '.join(CATEGORIES)}), got {fits!r}")
    if not isinstance(group.get("templates"), list) or not group["templates"]:
        raise BadInput(f"{where}: needs a list `templates`")
    slots = {**shared, **_read_slots(where, group.get("slots"), lexicon)}
    common = {
        "category": group["category"],
        "subcategory": group["subcategory"],
        "keywords": tuple(keywords),
        "fits": frozenset(fits),
    }
    requires = _read_requires(where, group.get("requires"))
    for number, entry in enumerate(group["templates"], 1):
        place = f"{where}, template {number}"
        yield place, _read_template(place, entry, slots, requires, common, lexicon)


def _read_template(
    where: str,
    entry: Any,
    slots: Mapping[str, Values],
    requires: frozenset[str],
    common: Mapping[str, Any],
    lexicon: Lexicons,
) -> Template:
    entry = {"text": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or not entry["text"].strip():
        raise BadInput(f"{where}: expected a string or a mapping with `text`, got {entry!r}")
    _known_keys(where, entry, _TEMPLATE_KEYS)
    own = _read_slots(where, entry.get("slots"), lexicon)
    text = entry["text"].strip()
    names = [name.removesuffix(CAPITALIZED) for name in slots_of(text)]
    unused = set(own) - set(names)
    if unused:
        raise BadInput(f"{where}: slot {min(unused)!r} does not occur in the text")
    known = {**slots, **own}
    missing = [name for name in names if name not in known]
    if missing:
        raise BadInput(f"{where}: unknown slot {missing[0]!r}; give it values under `slots`")
    return Template(
        id=blake2b(text.encode(), digest_size=4).hexdigest(),
        text=text,
        slots={name: known[name] for name in dict.fromkeys(names)},
        requires=requires | _read_requires(where, entry.get("requires")),
        **common,
    )


def _read_slots(where: str, raw: Any, lexicon: Lexicons) -> dict[str, Values]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise BadInput(f"{where}: `slots` must be a mapping, got {raw!r}")
    out: dict[str, Values] = {}
    for name, values in raw.items():
        if isinstance(values, str):
            if values not in lexicon.names():
                known = ", ".join(sorted(lexicon.names()))
                raise BadInput(f"{where}: slot {name!r}: unknown lexicon {values!r}; there are {known}")
            out[name] = values
        elif _strings(values) and len({value.lower() for value in values}) == len(values):
            out[name] = tuple(values)
        else:
            raise BadInput(f"{where}: slot {name!r} must name a lexicon or list different strings, got {values!r}")
    return out


def _read_requires(where: str, raw: Any) -> frozenset[str]:
    raw = raw or []
    if not isinstance(raw, list) or not set(raw) <= set(entities()):
        raise BadInput(f"{where}: `requires` must list entities ({', '.join(sorted(entities()))}), got {raw!r}")
    return frozenset(raw)


def _known_keys(where: str, mapping: Mapping[str, Any], known: set[str]) -> None:
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        raise BadInput(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
