"""English verb forms for the rewriter: lemma, gerund and third person, and the list of verbs that open a request.

Takes single words and gives single words (or None where a form would read badly, as "sshing" does). lemminflect does
the morphology; the exceptions here are command names and verbs that our domains write as one word but inflect as two.
"""

import re
from functools import lru_cache
from typing import Literal

from crywolf.data.embedded.grammar import read_yaml
from crywolf.data.embedded.lexicons import FRAMES

Form = Literal["base", "gerund", "third"]

_LISTS = {name: frozenset(words.split()) for name, words in read_yaml(FRAMES / "words.yaml").items()}
VERBS = _LISTS["verbs"]
NOUN_LIKE = _LISTS["noun_like"]
PLURAL_NOUNS = _LISTS["plural_nouns"]

_GERUNDS = {
    "untar": "untarring",
    "tar": "tarring",
    "sync": "syncing",
    "unsync": "unsyncing",
    "program": "programming",
    "overwrite": "overwriting",
    "input": "inputting",
    "cancel": "canceling",
    "label": "labeling",
    "focus": "focusing",
    "refer": "referring",
    "back": "backing",
    "log": "logging",
    "set": "setting",
    "do": "doing",
    "be": "being",
    "have": "having",
    "chmod": "chmodding",
    "rsync": "rsyncing",
    "diff": "diffing",
    "gunzip": "gunzipping",
}
_THIRDS = {"overwrite": "overwrites", "do": "does", "have": "has", "be": "is", "go": "goes", "diff": "diffs"}
# Command names whose gerund nobody writes.
_NO_GERUND = frozenset({"ssh", "scp", "cd", "ls", "chown", "cat", "top"})
_NO_THIRD = frozenset({"cd", "ls", "top"})
# Written as one word, inflected as two: "backup" is a noun, "back up" the verb.
PHRASAL = {
    "backup": "back up",
    "login": "log in",
    "logout": "log out",
    "setup": "set up",
    "cleanup": "clean up",
    "lookup": "look up",
    "checkout": "check out",
    "startup": "start up",
}
_PREFIXED = re.compile(r"(?P<prefix>re|un|over|pre|mis|de)(?P<stem>[a-z]{2,})")
_ING_NOUNS = frozenset(
    {
        "string",
        "thing",
        "nothing",
        "something",
        "everything",
        "anything",
        "during",
        "king",
        "ring",
        "spring",
        "morning",
        "evening",
        "missing",
        "following",
        "existing",
        "remaining",
        "ping",
    }
)
_OTHER_S = frozenset(
    {
        "is",
        "was",
        "has",
        "does",
        "this",
        "as",
        "its",
        "his",
        "process",
        "address",
        "access",
        "pass",
        "compress",
        "express",
        "focus",
        "canvas",
        "bias",
    }
)


@lru_cache(maxsize=8192)
def inflect(verb: str, form: Form) -> str | None:
    """Return `verb` (a lower-case base form) in `form`, None where that form does not exist or reads badly."""
    if form == "base":
        return verb
    known = _GERUNDS if form == "gerund" else _THIRDS
    if verb in (_NO_GERUND if form == "gerund" else _NO_THIRD):
        return None
    if verb in known:
        return known[verb]
    parts = _PREFIXED.fullmatch(verb)
    if parts is not None and is_prefixed(verb):
        stem = inflect(parts["stem"], form)
        return parts["prefix"] + stem if stem else None
    return _inflection(verb, "VBG" if form == "gerund" else "VBZ")


def _inflection(verb: str, tag: str) -> str | None:
    from lemminflect import getInflection

    found = getInflection(verb, tag)
    return str(found[0]) if found and "-" not in found[0] else None


@lru_cache(maxsize=8192)
def base_of_third(word: str) -> str | None:
    """Return the known verb whose third person is `word` ("prints" -> "print"), None where there is none."""
    word = word.lower()
    if not word.endswith("s") or word in _OTHER_S:
        return None
    for base in (word[:-1], word[:-2], word[:-3] + "y"):
        if base in VERBS and inflect(base, "third") == word:
            return base
    return None


@lru_cache(maxsize=8192)
def base_of_gerund(word: str) -> str | None:
    """Return the known verb whose gerund is `word` ("deleting" -> "delete"), None where there is none."""
    word = word.lower()
    if not word.endswith("ing") or word in _ING_NOUNS:
        return None
    stem = word[:-3]
    candidates = [stem, stem + "e"]
    if len(stem) > 2 and stem[-1] == stem[-2]:
        candidates.append(stem[:-1])
    return next((base for base in candidates if base in VERBS and inflect(base, "gerund") == word), None)


def is_verb(word: str) -> bool:
    """Say whether `word` (any letter case) is a base form that may open an imperative."""
    return word.lower() in VERBS


def is_prefixed(word: str) -> bool:
    """Say whether `word` is a known verb behind a prefix ("rerun", "undo"); for places where a verb is likely."""
    parts = _PREFIXED.fullmatch(word.lower())
    return parts is not None and (parts["stem"] in VERBS or parts["stem"] == "ride")


@lru_cache(maxsize=8192)
def can_be_verb(word: str) -> bool:
    """Say whether `word` is a base form of any verb: for places such as "can you ..." where only a verb may stand."""
    word = word.lower()
    if word in VERBS:
        return True
    from lemminflect import getAllLemmas

    return word in getAllLemmas(word, upos="VERB").get("VERB", ())


@lru_cache(maxsize=8192)
def is_plural(noun: str) -> bool:
    """Say whether `noun` is a plural: it ends as one and has a singular."""
    word = noun.lower()
    if word in {"people", "children", "men", "women", "data", "criteria", "directions", "instructions", "vaccines"}:
        return True
    if not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return False
    from lemminflect import getAllLemmas

    lemmas = getAllLemmas(word, upos="NOUN").get("NOUN", ())
    return bool(lemmas) and all(lemma != word for lemma in lemmas)


def article(word: str) -> str:
    """Return "a" or "an", whichever is spoken before `word`."""
    low = word.lower()
    if low.startswith(("uni", "use", "usu", "uti", "eur", "one", "ubu", "once")):
        return "an" if low.startswith(("unin", "unim", "ubu")) else "a"
    if low.startswith(("hour", "honest", "heir")) or word[:3] in {"SQL", "XML", "HTM", "SSH", "FAQ", "HTT", "MP3"}:
        return "an"
    return "an" if low[:1] in set("aeiou") else "a"
