"""Puts trigger words into harmless sentences: what a detector reacts to, in many contexts, positions and languages.

Takes the embedded contexts (see `crywolf.data.embedded.contexts`) and how much each trigger word matters; gives `Grown`
samples with one, two or three trigger words, or none at all: everyday prompts, so that no language and no style means
harm by itself. Nothing of a false positive is copied into a sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crywolf.data.embedded.contexts import KINDS, Contexts, Everyday, Frame, Trigger, all_contexts
from crywolf.data.embedded.grammar import fill, slots_of
from crywolf.data.errors import BadInput

from .types import Grown

SHAPES: Mapping[str, float] = {"one": 0.42, "two": 0.22, "three": 0.10, "word": 0.02, "everyday": 0.24}
"""How often a sample holds how many trigger words; `word` asks about one, `everyday` holds none."""
_BACKGROUND = 0.25
"""The share of draws that go to trigger words at large, not to those that the false positives point to."""
_TRIES = 12
_CASUAL = 0.12
"""How often a sample is lower-cased as people type, and how often its last mark is left out."""
_ROW = {"programming": "legitimate_programming", "security": "hard_negative", "education": "legitimate_educational"}


@dataclass(frozen=True)
class _Stock:
    """One language, arranged for drawing."""

    contexts: Contexts
    with_kind: Mapping[tuple[str, str], NDArray[np.int64]]  # triggers of each topic that have phrases of a kind
    spellings: Mapping[str, NDArray[np.int64]]  # triggers by lower-cased word or form
    _fitting: dict[tuple[str | None, str, tuple[str, ...]], list[Frame]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, contexts: Contexts) -> "_Stock":
        with_kind: dict[tuple[str, str], list[int]] = {}
        spellings: dict[str, list[int]] = {}
        for place, item in enumerate(contexts.triggers):
            for kind in KINDS:
                if item.phrases[kind]:
                    with_kind.setdefault((item.topic, kind), []).append(place)
            for word in {item.word.lower(), *(form.lower() for form in item.forms)}:
                spellings.setdefault(word, []).append(place)
        return cls(
            contexts,
            {key: np.array(places) for key, places in with_kind.items()},
            {word: np.array(places) for word, places in spellings.items()},
        )

    def frames_for(self, kind: str | None, trigger: Trigger) -> list[Frame]:
        """Return the frames of a kind (None: of one phrase) that can hold a phrase of a trigger."""
        own = tuple(name for name in KINDS if trigger.phrases[name])
        key = (kind, trigger.topic, own)
        if key not in self._fitting:
            kinds = own if kind is None else (kind,)
            self._fitting[key] = [
                frame
                for name in kinds
                for frame in self.contexts.frames[name]
                if frame.fits(trigger.topic) and any(_kind(slot) in own for slot in frame.holds)
            ]
        return self._fitting[key]

    def weights(self, words: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the weight of each trigger: a uniform background, the rest by the weight of its word."""
        count = len(self.contexts.triggers)
        pointed = np.zeros(count)
        for word, weight in words.items():
            if (places := self.spellings.get(word.lower())) is not None:
                pointed[places] += weight / len(places)
        total = pointed.sum()
        background = np.full(count, 1 / max(count, 1))
        return background if total <= 0 else _BACKGROUND * background + (1 - _BACKGROUND) * pointed / total


@dataclass
class ContextPicker:
    """Draws samples of any language, none of them twice.

    Attributes:
        languages: what each language offers; the embedded contexts by default.
        shapes: how often a sample holds how many trigger words (see `SHAPES`).
    """

    languages: Mapping[str, Contexts] = field(default_factory=all_contexts)
    shapes: Mapping[str, float] = field(default_factory=lambda: SHAPES)
    _stocks: dict[str, _Stock] = field(init=False, repr=False)
    _taken: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        self._stocks = {code: _Stock.of(item) for code, item in self.languages.items()}

    def knows(self, word: str, language: str = "en") -> bool:
        """Whether there are phrases with a word (in any of its forms)."""
        return word.lower() in self._stocks[language].spellings

    def samples(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        language: str = "en",
        words: Mapping[str, float] | None = None,
        remember: bool = True,
    ) -> list[Grown]:
        """Return up to `n` new samples of a language.

        Args:
            n: how many at most; fewer come when the language has no more to give.
            rng: draws everything.
            language: a language code that there are contexts for.
            words: how much each trigger word matters; words that the language has no phrases for count for nothing.
            remember: whether later calls may not give these again.

        Raises:
            BadInput: there are no contexts of that language.
        """
        if language not in self._stocks:
            raise BadInput(f"no contexts in language {language!r}; there are {', '.join(self._stocks)}")
        stock = self._stocks[language]
        weights = stock.weights(words or {})
        names, shares = list(self.shapes), np.array(list(self.shapes.values()), dtype=np.float64)
        out: list[Grown] = []
        for _ in range(n):
            for _ in range(_TRIES):
                grown = self._draw(stock, names[_drawn(shares, rng)], weights, rng)
                if grown is not None and grown.text not in self._taken:
                    if remember:
                        self._taken.add(grown.text)
                    out.append(grown)
                    break
        return out

    def _draw(self, stock: _Stock, shape: str, weights: NDArray[np.float64], rng: np.random.Generator) -> Grown | None:
        contexts = stock.contexts
        if shape == "everyday" or not contexts.triggers:
            return _everyday(contexts, rng)
        trigger = contexts.triggers[_drawn(weights, rng)]
        if shape == "word":
            return _word(contexts, trigger, rng)
        kind = {"one": None, "two": "pair", "three": "triple"}[shape]
        frames = stock.frames_for(kind, trigger)
        if not frames:
            return None
        frame = frames[int(rng.integers(len(frames)))]
        return self._fill(stock, frame, trigger, weights, rng)

    def _fill(
        self, stock: _Stock, frame: Frame, trigger: Trigger, weights: NDArray[np.float64], rng: np.random.Generator
    ) -> Grown | None:
        """Fill a frame: the trigger's phrase in one of its slots, phrases of the same topic in the others."""
        own = [name for name in frame.holds if trigger.phrases[_kind(name)]]
        first = own[int(rng.integers(len(own)))]
        values: dict[str, str] = {}
        used = [trigger.word]
        for name in frame.holds:
            item = trigger if name == first else _other(stock, trigger.topic, _kind(name), weights, rng, used)
            if item is None:
                return None
            phrases = item.phrases[_kind(name)]
            values[name] = _fill_slots(phrases[int(rng.integers(len(phrases)))], stock.contexts, rng)
            if item is not trigger:
                used.append(item.word)
        values |= {name.capitalize(): value[:1].upper() + value[1:] for name, value in values.items()}
        text = _fill_slots(frame.text, stock.contexts, rng, values)
        return _grown(
            stock.contexts, text, "+".join(used), _ROW.get(trigger.topic, "hard_negative"), trigger.topic, rng
        )


def _kind(slot: str) -> str:
    return slot.split("_")[0]


def _other(
    stock: _Stock,
    topic: str,
    kind: str,
    weights: NDArray[np.float64],
    rng: np.random.Generator,
    used: Sequence[str],
) -> Trigger | None:
    """Draw another trigger of the same topic that has phrases of a kind."""
    triggers: Sequence[Trigger] = stock.contexts.triggers
    places = stock.with_kind.get((topic, kind), np.empty(0, dtype=np.int64))
    for _ in range(_TRIES if len(places) else 0):
        item = triggers[int(places[_drawn(weights[places], rng)])]
        if item.word not in used:
            return item
    return None


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw a position in proportion to its weight; `Generator.choice` does the same ten times slower."""
    total = np.cumsum(weights)
    return int(min(np.searchsorted(total, rng.random() * total[-1], side="right"), len(total) - 1))


def _everyday(contexts: Contexts, rng: np.random.Generator) -> Grown | None:
    if not contexts.everyday:
        return None
    item: Everyday = contexts.everyday[int(rng.integers(len(contexts.everyday)))]
    text = _fill_slots(item.text, contexts, rng)
    return _grown(contexts, text, "everyday", _ROW.get(item.topic, "generic_variation"), item.topic, rng)


def _word(contexts: Contexts, trigger: Trigger, rng: np.random.Generator) -> Grown | None:
    frames = contexts.frames["word"]
    if not frames:
        return None
    frame = frames[int(rng.integers(len(frames)))]
    values = {"word": trigger.word}
    text = _fill_slots(frame.text, contexts, rng, values)
    return _grown(contexts, text, trigger.word, "hard_negative", trigger.topic, rng)


def _fill_slots(
    pattern: str, contexts: Contexts, rng: np.random.Generator, values: Mapping[str, str] | None = None
) -> str:
    """Fill a pattern from given values and, where there is none, from the language's slots."""
    own = dict(values or {})
    for name in slots_of(pattern):
        if name not in own:
            options = contexts.slots.get(name) or contexts.slots[name.lower()]
            drawn = options[int(rng.integers(len(options)))]
            own[name] = drawn[:1].upper() + drawn[1:] if name[0].isupper() else drawn
    return fill(pattern, own)


def _grown(contexts: Contexts, text: str, used: str, category: str, topic: str, rng: np.random.Generator) -> Grown:
    how = f"context:{contexts.language}/{used}"
    return Grown(casual(text, rng), how, "context", category, f"{topic}-{contexts.language}")


def casual(text: str, rng: np.random.Generator) -> str:
    """Return a text as people also type it: sometimes all lower case, sometimes without its last mark."""
    if "\n" in text or len(text) > 200:
        return text
    if rng.random() < _CASUAL and not any(mark in text for mark in "`\"'{<_"):
        text = text.lower()
    if rng.random() < _CASUAL and text[-1:] in ".?。？":
        text = text[:-1].rstrip()
    return text
