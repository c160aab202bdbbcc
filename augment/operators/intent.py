"""Draws the border by intent: the same attack once mentioned (benign) and once used (malicious).

Takes attacks (text, threat_type, id) and gives contract rows in pairs of one language and one attack: a prompt that
asks about the attack or handles it as data, and one that has it carried out, from the embedded frames. Quotation marks,
code, the word "example" or a foreign language stand on both sides alike.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from crywolf.data import BENIGN, MALICIOUS, BadInput, empty_corpus, make_corpus
from crywolf.data.embedded.grammar import fill
from crywolf.data.embedded.intent import LANGUAGES, MENTION, USE, Frames, IntentFrame, cues, intent_frames
from crywolf.data.language import UNDETERMINED, identify

SOURCE: Final = "augmented"
MAX_ATTACK: Final = 300
"""A longer attack is left out: a mention quotes, and nobody quotes a page."""
_MIN_ATTACK: Final = 8
_OWN_LANGUAGE: Final = 0.75
_TRIES: Final = 6
_TELLING: Final = 600  # characters that tell the language of a text

# ------------------------------------------------------------------------------------------------ which attacks to use

_UNLEET: Final = str.maketrans("431057@$", "aeiostas")


def is_attack_on_assistant(text: str) -> bool:
    """Say whether a text is by itself an attack on an assistant, so that a prompt about it is a mention of one.

    The rule: it turns an assistant against its rules, gives it a part without rules, asks for its prompt or for
    secrets, addresses a model in passing, forges a turn, or is disguised by an encoding (`intent/cues.yaml`). Rows of
    malicious corpora that are ordinary requests in the wrong place have none of these cues and cannot be told from a
    question.
    """
    known = cues()
    if known.abroad.search(text) or known.disguised.search(text):
        return True
    return any(map(known.english.search, _views(text)))


def _views(text: str) -> Iterator[str]:
    """Yield the text as it is and as a reader of the simplest disguises sees it."""
    yield text
    yield text.translate(_UNLEET)
    yield text[::-1]
    yield codecs.encode(text, "rot13")


def quotable(attacks: pl.DataFrame, max_length: int = MAX_ATTACK) -> pl.DataFrame:
    """Return the attacks that can be mentioned: short enough, and by themselves attacks on an assistant.

    Rows of source "seed" were each written as one and are not asked for a cue.
    """
    texts = attacks["text"].str.strip_chars()
    seeds = attacks["source"] == "seed" if "source" in attacks.columns else [False] * attacks.height
    # A loop: the cues are read in several views of a text, which no column expression does.
    keep = [
        _MIN_ATTACK <= len(text) <= max_length and (seed is True or is_attack_on_assistant(text))
        for text, seed in zip(texts, seeds, strict=True)
    ]
    return attacks.filter(pl.Series(keep, dtype=pl.Boolean()))


@lru_cache(maxsize=64)
def language_of(text: str) -> str | None:
    """Guess which of the frames' languages an attack is in; None if it is in none of them."""
    text = text[:_TELLING]
    if cues().disguised.search(text):
        return "en"
    found = identify(text)
    if found == UNDETERMINED:
        return "en" if text.isascii() else None
    return found if found in LANGUAGES else None


# ---------------------------------------------------------------------------------------------------------- rendering


def forms(attack: str, name: str = "attack") -> dict[str, str]:
    """Return the values of an attack's slots: as it is, inside a JSON string, as Python literal, as expression."""
    pattern = r"\s+".join(re.escape(word) for word in attack.split())
    return {
        name: attack,
        f"{name}_json": json.dumps(attack, ensure_ascii=False)[1:-1],
        f"{name}_py": repr(attack),
        f"{name}_re": pattern,
    }


def carries(text: str, attack: str) -> bool:
    """Say whether the attack stands whole in the text, in any of its forms."""
    return any(value in text for value in forms(attack).values())


def render(frame: IntentFrame, attack: str, others: Mapping[str, str], second: str = "") -> str:
    """Return the frame with the attack in its place, quoted and punctuated so that it reads well.

    Args:
        frame: where the attack goes.
        attack: the attack, kept as it is.
        others: the values of the frame's other slots.
        second: the second attack of a frame that compares two.
    """
    text = frame.text
    for name, value in (("attack", attack), ("attack_2", second)):
        slot = f"{{{name}}}"
        text = _requote(text, slot, value)
        text = _punctuate(text, slot, value, frame.language)
    capitals = {f"{name}_cap": value[:1].upper() + value[1:] for name, value in others.items()}
    return fill(text, {**others, **capitals, **forms(attack), **forms(second, "attack_2")})


def _requote(text: str, slot: str, value: str) -> str:
    """Take other quotation marks where the attack holds the frame's own."""
    for mark in "\"'":
        if mark in value:
            text = text.replace(f"{mark}{slot}{mark}", f"“{slot}”" if '"' in value else f'"{slot}"')
    return text


_STOPS: Final = {"zh": "。", "ja": "。", "hi": "।"}


def _punctuate(text: str, slot: str, value: str, language: str) -> str:
    """Drop a full stop after an attack that has its own; end one that hasn't where a new sentence follows."""
    ended = value.rstrip("\"'”’)»").endswith((".", "!", "?", "…", "。", "？", "！", "।", "؟"))
    if ended:
        return re.sub(rf"({re.escape(slot)}[\"'”»’]?)\.(?!\w)", r"\1", text)
    if not value[-1:].isalnum():
        return text

    def close(match: re.Match[str]) -> str:
        after = match[1]
        new_sentence = after.isupper() or (after.isalpha() and after.lower() == after.upper())
        return f"{slot}{_STOPS.get(language, '.')} {after}" if new_sentence else match[0]

    return re.sub(rf"{re.escape(slot)} (\w)", close, text)


# -------------------------------------------------------------------------------------------------------------- pairs


@dataclass
class _Decks:
    """Frames in random order, so that each is drawn before one is drawn twice."""

    frames: Frames
    rng: np.random.Generator
    decks: dict[tuple[str, str, str | None], list[IntentFrame]] = field(default_factory=dict)

    def draw(self, intent: str, language: str, attack: "_Attack") -> IntentFrame | None:
        """Return the next frame that can hold the attack, None if there is none."""
        key = (intent, language, attack.threat_type)
        for fresh in (False, True):
            if fresh:
                frames = self.frames.of(*key)
                self.decks[key] = [frames[i] for i in self.rng.permutation(len(frames))]
            deck = self.decks.get(key, [])
            for place, frame in enumerate(deck):
                if attack.one_line or frame.takes_lines():
                    return deck.pop(place)
        return None

    def values(self) -> dict[str, str]:
        """Return a value for every slot that is no attack."""
        return {name: values[self.rng.integers(len(values))] for name, values in self.frames.slots.items()}


@dataclass(frozen=True)
class _Attack:
    id: str
    text: str
    threat_type: str | None
    family: str | None
    language: str | None

    @property
    def one_line(self) -> bool:
        return "\n" not in self.text


def intent_pairs(
    attacks: pl.DataFrame,
    n: int,
    rng: np.random.Generator,
    *,
    languages: Collection[str] | None = None,
    per_attack: int = 1,
    max_length: int = MAX_ATTACK,
    frames: Frames | None = None,
) -> pl.DataFrame:
    """Return `n` pairs of a benign mention and a malicious use of the same attack, as contract rows in turn.

    Fewer come back only when the attacks and frames have no more distinct pairs.

    Args:
        attacks: `text` and `id`; `threat_type`, `subcategory` and `extra.notes` (`lang=de`) are used if there. Those
            that are not `quotable` are left out.
        n: how many pairs; 2 n rows.
        rng: draws everything.
        languages: codes of the frames to use, all ten if not given. Attacks stay in their own language; a frame is
            mostly of that one, or English, and sometimes of another.
        per_attack: how many pairs in a row of one attack before the next is taken; all are used before one returns.
        max_length: longer attacks are left out.
        frames: instead of the embedded ones.

    Raises:
        BadInput: a column is missing, a language unknown, or no attack can be quoted.
    """
    pool = _pool(attacks, max_length)
    allowed = _languages(languages)
    decks = _Decks(frames or intent_frames(), rng)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    misses = 0
    for attack in _in_turn(pool, per_attack, rng):
        if len(rows) >= 2 * n or misses > max(len(pool), 50):
            break
        pair = _pair(attack, pool, decks, allowed, seen)
        misses = 0 if pair else misses + 1
        rows += pair
    return make_corpus(rows, source=SOURCE) if rows else empty_corpus()


def _pool(attacks: pl.DataFrame, max_length: int) -> list[_Attack]:
    missing = {"id", "text"} - set(attacks.columns)
    if missing:
        raise BadInput(f"the attacks have no column {min(missing)}; pass contract rows (read_corpus, make_corpus)")
    kept = quotable(attacks.drop_nulls("text"), max_length).unique("id", keep="first", maintain_order=True)
    if not kept.height:
        raise BadInput(
            f"none of {attacks.height} attacks can be quoted: they must be {_MIN_ATTACK} to {max_length} characters "
            "long and address an assistant"
        )
    return [_attack(row) for row in kept.iter_rows(named=True)]


def _attack(row: Mapping[str, Any]) -> _Attack:
    text = row["text"].strip()
    notes = (row.get("extra") or {}).get("notes") or ""
    told = re.search(r"\blang=([a-z]{2})\b", notes)
    language = told[1] if told else language_of(text)
    return _Attack(row["id"], text, row.get("threat_type"), row.get("subcategory"), language)


def _languages(given: Collection[str] | None) -> tuple[str, ...]:
    if given is None:
        return LANGUAGES
    unknown = sorted(set(given) - set(LANGUAGES))
    if unknown or not given:
        raise BadInput(f"languages {sorted(given)}: choose one or more of {', '.join(LANGUAGES)}")
    return tuple(language for language in LANGUAGES if language in given)


def _in_turn(pool: Sequence[_Attack], per_attack: int, rng: np.random.Generator) -> Iterator[_Attack]:
    """Yield attacks without end, `per_attack` times each, all of them before one returns, types mixed evenly."""
    while True:
        shuffled = [pool[i] for i in rng.permutation(len(pool))]
        places: Counter[str | None] = Counter()
        ranked = []
        for attack in shuffled:
            ranked.append((places[attack.threat_type], attack))
            places[attack.threat_type] += 1
        # By place within its type: a type with few attacks comes early and is not crowded out when n is small.
        for _, attack in sorted(ranked, key=lambda entry: entry[0]):
            for _ in range(per_attack):
                yield attack


def _pair(
    attack: _Attack, pool: Sequence[_Attack], decks: _Decks, allowed: Sequence[str], seen: set[str]
) -> list[dict[str, Any]]:
    """Return a mention and a use in one language, nothing if no new ones were found."""
    language = _frame_language(attack, allowed, decks.rng)
    pair = []
    for intent in (MENTION, USE):
        made = _one(intent, language, attack, pool, decks, seen)
        if made is None:
            return []
        pair.append(made)
    seen.update(row["text"] for row in pair)
    return pair


def _one(
    intent: str, language: str, attack: _Attack, pool: Sequence[_Attack], decks: _Decks, seen: set[str]
) -> dict[str, Any] | None:
    for _ in range(_TRIES):
        frame = decks.draw(intent, language, attack)
        if frame is None:
            return None
        second = _second(attack, pool, frame, decks.rng) if frame.wants_second else ""
        if second is None:
            continue
        text = render(frame, attack.text, decks.values(), second)
        if text not in seen:
            return _row(text, frame, attack)
    return None


def _second(attack: _Attack, pool: Sequence[_Attack], frame: IntentFrame, rng: np.random.Generator) -> str | None:
    """Return another attack, of the same type if a few draws find one."""
    found = None
    for _ in range(12):
        other = pool[int(rng.integers(len(pool)))]
        if other.text == attack.text or not (other.one_line or frame.takes_lines("attack_2")):
            continue
        if other.threat_type == attack.threat_type:
            return other.text
        found = other.text
    return found


def _frame_language(attack: _Attack, allowed: Sequence[str], rng: np.random.Generator) -> str:
    own = attack.language if attack.language in allowed else None
    home = own or ("en" if "en" in allowed else allowed[int(rng.integers(len(allowed)))])
    if rng.random() < _OWN_LANGUAGE:
        return home
    if home != "en" and "en" in allowed:
        return "en"
    return allowed[int(rng.integers(len(allowed)))]


def _row(text: str, frame: IntentFrame, attack: _Attack) -> dict[str, Any]:
    mention = frame.intent == MENTION
    return {
        "text": text,
        "label": BENIGN if mention else MALICIOUS,
        "category": "hard_negative" if mention else None,
        "subcategory": attack.family or attack.threat_type,
        "threat_type": None if mention else attack.threat_type,
        "origin_id": attack.id,
        "how": f"{frame.intent}:{frame.id}",
        "extra": {
            "why_hard": frame.why_hard if mention else None,
            "notes": None if frame.language == "en" else f"lang={frame.language}",
        },
    }
