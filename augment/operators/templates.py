"""Fills templates for a false positive: picks the groups that its words point to and takes over what it names.

Takes templates and lexicons (see `crywolf.data.embedded.templates`) and one prompt at a time; gives `Grown` samples
with category and subcategory. Nothing of the prompt but its typed entities (a directory, a file name, a language) is
ever put into a slot: its first words would make broken sentences.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crywolf.data.embedded.grammar import fill as fill_slots
from crywolf.data.embedded.lexicons import Lexicons, lexicons
from crywolf.data.embedded.templates import CAPITALIZED, Template, entities, templates

from .types import Grown

_TAKE_OVER = 0.75
"""How often a slot that the prompt has its own value for gets that value; else one of the template's."""
_KIN = 0.7
"""How often a slot gets a value that shares words with the prompt, where there is one."""
_HEAD = 2_000
"""Characters of a prompt that are looked at: what a longer one is about shows earlier."""
_WORD = re.compile(r"[a-z]{4,}")
_TRIES = 4
_TEMPERATURE = 0.06
"""A template whose cosine to the prompt is lower by this much is drawn 2.7 times less often."""
_BONUS = 0.05
"""What a keyword hit is worth in cosine."""

_HOME = 0.3
"""The least cosine (with its bonus) at which a prompt is filed under a template's group."""

Floats = NDArray[np.float64]


def find_entities(text: str, patterns: Mapping[str, Sequence[re.Pattern[str]]] | None = None) -> dict[str, str]:
    """Return the first entity of each kind that `text` names, as it is written there."""
    head = text[:_HEAD]
    out = {}
    for name, expressions in (entities() if patterns is None else patterns).items():
        for expression in expressions:
            if match := expression.search(head):
                out[name] = match[1] if expression.groups else match[0]
                break
    return out


def fill(
    template: Template,
    *,
    rng: np.random.Generator,
    lexicon: Lexicons,
    own: Mapping[str, str] | None = None,
    stems: frozenset[str] = frozenset(),
) -> Grown:
    """Fill one template.

    Args:
        template: what to fill.
        rng: draws the values.
        lexicon: where slots that name a lexicon take their (mutually compatible) values from.
        own: entities of the prompt, by slot name.
        stems: word stems of the prompt; values that share some are preferred.
    """
    own = own or {}
    from_lexicon = {name: values for name, values in template.slots.items() if isinstance(values, str)}
    drawn = lexicon.choose(list(from_lexicon.values()), rng) if from_lexicon else {}
    values: dict[str, str] = {}
    for name, options in template.slots.items():
        if name in own and (name in template.requires or rng.random() < _TAKE_OVER):
            values[name] = own[name]
        elif isinstance(options, str):
            values[name] = drawn[options]
        else:
            values[name] = _draw(options, rng, stems)
    values |= {name + CAPITALIZED: value[:1].upper() + value[1:] for name, value in values.items()}
    text = fill_slots(template.text, values)
    how = f"template:{template.subcategory}/{template.id}"
    return Grown(text=text, how=how, operator="template", category=template.category, subcategory=template.subcategory)


def _draw(options: Sequence[str], rng: np.random.Generator, stems: frozenset[str]) -> str:
    if stems and rng.random() < _KIN:
        kin = [option for option in options if not stems.isdisjoint(stems_of(option))]
        options = kin or options
    return options[int(rng.integers(len(options)))]


def stems_of(text: str) -> frozenset[str]:
    """Return the first five letters of each longer word: enough to see that "permissions" and "permission" are kin."""
    return frozenset(word[:5] for word in _WORD.findall(text.lower()))


@dataclass(frozen=True)
class Group:
    """The templates of one subcategory (of one file's group) and the expression that finds its keywords."""

    category: str
    subcategory: str
    fits: frozenset[str]
    keywords: re.Pattern[str]
    templates: tuple[Template, ...]


class TemplatePicker:
    """Chooses and fills the templates that a prompt calls for."""

    def __init__(self, items: Sequence[Template] | None = None, lexicon: Lexicons | None = None) -> None:
        self.lexicon = lexicon or lexicons()
        by_group: dict[tuple[object, ...], list[Template]] = {}
        for item in templates() if items is None else items:
            key = (item.category, item.subcategory, item.fits, item.keywords)
            by_group.setdefault(key, []).append(item)
        self.groups = tuple(
            Group(found[0].category, found[0].subcategory, found[0].fits, _any_of(found[0].keywords), tuple(found))
            for found in by_group.values()
        )
        self.templates = tuple(template for group in self.groups for template in group.templates)
        self._group_of = np.repeat(np.arange(len(self.groups)), [len(group.templates) for group in self.groups])
        self._taken: set[str] = set()

    def specimens(self) -> list[str]:
        """Return one filling of each of `templates`, always the same: what an encoder can compare prompts with."""
        rng = np.random.default_rng(0)
        return [fill(template, rng=rng, lexicon=self.lexicon).text for template in self.templates]

    def relevance(self, text: str, category: str | None = None) -> list[tuple[Group, float]]:
        """Return the groups that the words of `text` point to, the most relevant first, with their scores.

        A keyword counts once; one of several words counts for each of them.
        """
        scores = self._scores(text, category)
        order = np.argsort(-scores, kind="stable")
        return [(self.groups[i], float(scores[i])) for i in order if scores[i] > 0]

    def home(
        self,
        text: str,
        grown_category: str | None,
        *,
        category: str | None = None,
        cosines: NDArray[np.float32] | None = None,
    ) -> Group | None:
        """Return the group that a prompt's own rewrites belong to: the nearest by cosine, else by keywords.

        Args:
            text: the prompt.
            grown_category: the category that the group must have; any if None.
            category: the prompt's category.
            cosines: see `samples`.
        """
        scores = self._scores(text, category)
        right = np.array([grown_category in (None, group.category) for group in self.groups])
        if cosines is not None and len(cosines):
            best = np.full(len(self.groups), -np.inf)
            np.maximum.at(best, self._group_of, cosines.astype(np.float64))
            best = np.where(right & (scores >= 0), best + _BONUS * (scores > 0), -np.inf)
            if best.max() >= _HOME:
                return self.groups[int(best.argmax())]
        scores = np.where(right, scores, 0.0)
        return self.groups[int(scores.argmax())] if scores.max() > 0 else None

    def _scores(self, text: str, category: str | None) -> Floats:
        """Return the score of each group: 0 without a keyword, -1 where prompts of this category don't belong."""
        head = text[:_HEAD].lower()
        out = np.empty(len(self.groups))
        for i, group in enumerate(self.groups):
            fits = category is None or not group.fits or category in group.fits
            out[i] = sum(1 + hit.count(" ") for hit in set(group.keywords.findall(head))) if fits else -1
        return out

    def samples(
        self,
        text: str,
        *,
        n: int,
        rng: np.random.Generator,
        category: str | None = None,
        cosines: NDArray[np.float32] | None = None,
        floor: float = 0.0,
    ) -> list[Grown]:
        """Return up to `n` samples for a prompt, none of which this picker has given before.

        Each template serves at most once a prompt.

        Args:
            text: the prompt.
            n: how many at most.
            rng: draws templates and values.
            category: the prompt's category; groups that don't fit it are left out.
            cosines: the prompt's cosine to each of `specimens()`. Templates are then drawn by it, with a bonus for
                those whose keywords the prompt has, and those under `floor` are left out. Without it templates are
                drawn by keywords alone.
            floor: see `cosines`.
        """
        if n <= 0:
            return []
        scores = self._scores(text, category)
        appeal = self._by_keywords(scores) if cosines is None else self._by_cosine(scores, cosines, floor)
        own, stems = find_entities(text), stems_of(text[:_HEAD])
        # Gumbel noise on logarithmic weights draws without replacement, in proportion to the weights.
        order = np.argsort(-(appeal + rng.gumbel(size=len(appeal))), kind="stable")
        out: list[Grown] = []
        for template in (self.templates[i] for i in order if np.isfinite(appeal[i])):
            if not template.requires <= own.keys():
                continue
            if grown := self._fresh(template, rng, own, stems):
                out.append(grown)
            if len(out) == n:
                break
        return out

    def _by_keywords(self, scores: Floats) -> Floats:
        """Return log weights of the templates: the square of the group's score, shared among its templates."""
        sizes = np.bincount(self._group_of, minlength=len(self.groups))
        weights = np.maximum(scores, 0.0) ** 2 / np.maximum(sizes, 1)
        with np.errstate(divide="ignore"):
            return np.log(weights)[self._group_of]

    def _by_cosine(self, scores: Floats, cosines: NDArray[np.float32], floor: float) -> Floats:
        """Return log weights of the templates: their cosine over a temperature, more where a keyword hits."""
        of_template = scores[self._group_of]
        usable = (of_template >= 0) & (cosines >= floor)
        return np.where(usable, (cosines + _BONUS * (of_template > 0)) / _TEMPERATURE, -np.inf)

    def _fresh(
        self, template: Template, rng: np.random.Generator, own: Mapping[str, str], stems: frozenset[str]
    ) -> Grown | None:
        """Fill a template so that the text is new, or give up after a few draws."""
        for _ in range(_TRIES):
            grown = fill(template, rng=rng, lexicon=self.lexicon, own=own, stems=stems)
            if grown.text not in self._taken:
                self._taken.add(grown.text)
                return grown
        return None


def _any_of(keywords: Sequence[str]) -> re.Pattern[str]:
    """Return an expression that finds each of the keywords as whole words, the longer ones first."""
    ordered = sorted({keyword.lower() for keyword in keywords}, key=lambda keyword: (-len(keyword), keyword))
    return re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, ordered)) + r")(?![\w-])")
