"""Expands the embedded YAML groups into prompts: texts written by hand, and patterns whose slots are filled.

Takes a YAML file of groups (see `load_groups`) and gives plain dictionaries, one a prompt. The same file always gives
the same prompts in the same order: each pattern is sampled with a generator seeded by its own text.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crywolf.data.errors import BadInput

_SLOT = re.compile(r"\{(?P<article>[aA] )?(?P<name>[A-Za-z_0-9]+)\}")
_VOWEL_SOUND = re.compile(
    r"(?i)^(?!uni|use|usu|uti|eur|one\b|once\b|ubi|ure)[aeiou]|^(?:hour|honest|heir)|^(?:SQL|SSH|XML|HTML|HTTP|LDAP|LRU|NPM|RPC|FTP|MD5|SVG|SSL|S3|X\.509|8)\b"
)


def read_yaml(path: Path) -> Any:
    """Return the document of a YAML file, read by libyaml where it is there: it is ten times faster.

    Raises:
        BadInput: the file is not valid YAML.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {error}") from error


def article(word: str) -> str:
    """Return "a" or "an", whichever is spoken before `word`."""
    return "an" if _VOWEL_SOUND.match(word) else "a"


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Fill `{name}` and `{a name}` (with the right article) from `values`; KeyError names a slot without a value."""

    def replace(match: re.Match[str]) -> str:
        value = values[match["name"]]
        if not match["article"]:
            return value
        word = article(value)
        return f"{word.capitalize() if match['article'][0] == 'A' else word} {value}"

    return _SLOT.sub(replace, pattern)


def slots_of(pattern: str) -> list[str]:
    """Return the names of the slots of `pattern`, each once, in order of appearance."""
    return list(dict.fromkeys(match["name"] for match in _SLOT.finditer(pattern)))


def expand(pattern: str, slots: Mapping[str, Sequence[str]], n: int) -> list[str]:
    """Return up to `n` distinct fillings of `pattern`, drawn without replacement from all combinations.

    The draw walks the slots so that every value of every slot is used before one is used twice as often.

    Raises:
        BadInput: a slot of the pattern has no values.
    """
    names = slots_of(pattern)
    missing = [name for name in names if not slots.get(name)]
    if missing:
        raise BadInput(f"pattern {pattern!r}: no values for slot {missing[0]!r}")
    seed = int.from_bytes(hashlib.blake2b(pattern.encode(), digest_size=8).digest(), "big")
    rng = np.random.default_rng(seed)
    total = int(np.prod([len(slots[name]) for name in names])) if names else 1
    wanted = min(n, total)
    seen: dict[str, None] = {}
    while len(seen) < wanted:
        decks = {name: _deck(slots[name], wanted, rng) for name in names}
        for i in range(wanted):
            seen.setdefault(fill(pattern, {name: decks[name][i] for name in names}))
            if len(seen) == wanted:
                break
    return list(seen)


def _deck(values: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """Return `n` values: shuffled copies of `values`, one after the other."""
    out: list[str] = []
    while len(out) < n:
        out += [values[i] for i in rng.permutation(len(values))]
    return out[:n]


def load_groups(path: Path) -> Iterator[dict[str, Any]]:
    """Yield one dictionary a prompt of a YAML file of groups.

    The file holds `slots` (shared values by name) and `groups`; a group holds any fields to copy to its prompts
    (category, subcategory, threat_type ...), `texts` (written by hand: a string, or a mapping with `text` and fields of
    its own) and `patterns` (mappings with `text`, `n`, and optionally `slots` of their own and further fields).

    Raises:
        BadInput: the file is not of this form; names the file and the group.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("groups"), list):
        raise BadInput(f"{path}: expected a mapping with a list `groups`")
    shared = document.get("slots") or {}
    for number, group in enumerate(document["groups"]):
        if not isinstance(group, dict) or not (group.get("texts") or group.get("patterns")):
            raise BadInput(f"{path}: group {number} has neither texts nor patterns")
        yield from _prompts(group, shared)


def _prompts(group: Mapping[str, Any], shared: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    fields = {key: value for key, value in group.items() if key not in {"texts", "patterns", "slots"}}
    for entry in group.get("texts") or []:
        own = {"text": entry} if isinstance(entry, str) else dict(entry)
        yield {**fields, **own}
    for pattern in group.get("patterns") or []:
        slots = {**shared, **(group.get("slots") or {}), **(pattern.get("slots") or {})}
        own = {key: value for key, value in pattern.items() if key not in {"text", "n", "slots"}}
        for text in expand(pattern["text"], slots, int(pattern.get("n", 1))):
            yield {**fields, **own, "text": text}
