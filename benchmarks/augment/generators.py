"""The generators that ours is compared with: copies, a plain template filler, nlpaug, EDA, AugLy.

`generate` takes a generator's name, the false positives (id, text, category), a number of samples and a seed, and gives
that many rows (text, origin_id, how), as the tool naturally makes them: nothing is guarded, repaired or deduplicated,
but a sample that repeats an earlier one is asked for again a few times. `missing` says which cannot run here, and why.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from wordnet import load_wordnet, wordnet_folder

from crywolf.data import BadInput

NAMES = ("copies", "template filler", "nlpaug", "EDA", "AugLy")
"""Every generator that this module has; those that `missing` names are not installed here."""

TEXTATTACK = (
    "TextAttack 0.3.11 does not install: its dependency pinyin 0.4.0 has no wheel and its setup.py fails with any "
    "setuptools of today ('dict' object has no attribute '__NUMPY_SETUP__'), and its augmenters fetch NLTK's data from "
    "the network at run time; AugLy 1.0.0 stands for both"
)
"""Why TextAttack's augmenters are not among them; the report prints it."""

TRIES = 4
TOPIC_WORDS = 5
ALPHA = 0.1
"""EDA's share of words that one operation changes, the paper's recommendation."""

Make = Callable[[str], tuple[str, str]]
"""A tool with its state: from a false positive to one sample and the name of what made it."""
Tool = Callable[[str], str]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_STOP_WORDS = (
    "a about above after again against all am an and any are as at be because been before being below between "
    "both but by can could did do does doing down during each few for from further had has have having he her "
    "here hers him his how i if in into is it its just me more most my no nor not now of off on once only or "
    "other our ours out over own same she should so some such than that the their theirs them then there these "
    "they this those through to too under until up very was we were what when where which while who whom why will "
    "with would you your yours"
)
_STOPS = frozenset(_STOP_WORDS.split())


def missing() -> dict[str, str]:
    """Return the generators that cannot be run here, each with the reason."""
    why = {"TextAttack": TEXTATTACK}
    if wordnet_folder() is None:
        why["EDA"] = why["nlpaug"] = "no WordNet: run `npm ci` in benchmarks/augment, or apt-get install wordnet-base"
    if find_spec("augly") is None:
        why["AugLy"] = "not installed: pip install -r benchmarks/requirements.txt"
    return why


def generate(name: str, fps: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Return n samples of a generator, the false positives taken in turn.

    Args:
        name: one of `NAMES`.
        fps: false positives, `id` and `text`.
        n: how many samples.
        seed: the same seed gives the same samples.

    Returns:
        n rows with `text`, `origin_id` (the false positive's id) and `how` (generator and operation).
    """
    if name not in NAMES:
        raise BadInput(f"no generator {name!r}; there are {', '.join(NAMES)}")
    if name in missing():
        raise BadInput(f"{name} cannot run here: {missing()[name]}")
    if not fps.height:
        raise BadInput(f"{name} was given no false positives to grow from")
    make = _MAKERS[name](np.random.default_rng(seed))  # before seeding: what is imported here may draw numbers too
    with _seeded(seed):
        order = list(islice(cycle(fps.select("id", "text").iter_rows()), n))
        seen = {text for _, text in order}
        rows = [(*_distinct(make, text, seen, 1 if name == "copies" else TRIES), origin) for origin, text in order]
    return pl.DataFrame(
        {
            "text": [text for text, _, _ in rows],
            "origin_id": [o for _, _, o in rows],
            "how": [how for _, how, _ in rows],
        },
        schema={"text": pl.String, "origin_id": pl.String, "how": pl.String},
    )


def _distinct(make: Make, text: str, seen: set[str], tries: int) -> tuple[str, str]:
    """Return the first of a few samples that is new, or the last one asked for."""
    for _ in range(tries):
        sample, how = make(text)
        if sample not in seen:
            break
    seen.add(sample)
    return sample, how


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that nlpaug and AugLy draw from, and put their state back afterwards."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - they know no other generator
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


# ------------------------------------------------------------------------------------------- copies, template filler


def _copies(rng: np.random.Generator) -> Make:
    return lambda text: (text, "copy")


@lru_cache(maxsize=1)
def frames() -> tuple[str, ...]:
    """The template filler's frames."""
    document = yaml.safe_load(Path(__file__).with_name("topic_templates.yaml").read_text(encoding="utf-8"))
    return tuple(document["frames"])


def _template_filler(rng: np.random.Generator) -> Make:
    """The first five words of the prompt as the topic of a generic frame, as they stand."""

    def make(text: str) -> tuple[str, str]:
        number = int(rng.integers(len(frames())))
        return frames()[number].format(topic=" ".join(text.split()[:TOPIC_WORDS])), f"template filler:{number}"

    return make


# --------------------------------------------------------------------------------------------------- nlpaug and AugLy


def _in_turn(name: str, tools: Sequence[tuple[str, Tool]], rng: np.random.Generator) -> Make:
    """Tools in rotation, for each prompt from a first one that is drawn: every prompt meets all of them."""
    turns: dict[str, int] = {}

    def make(text: str) -> tuple[str, str]:
        turns[text] = turns[text] + 1 if text in turns else int(rng.integers(len(tools)))
        tool, change = tools[turns[text] % len(tools)]
        return change(text) or text, f"{name}:{tool}"

    return make


def _augment(aug: Any, text: str) -> str:
    found = aug.augment(text)
    return (found[0] if found else text) if isinstance(found, list) else str(found)


def _nlpaug(rng: np.random.Generator) -> Make:
    """Nlpaug's text augmenters that need no model, with the settings they come with."""
    from nlpaug.augmenter import char, word

    tools = {
        "keyboard": char.KeyboardAug(),
        "ocr": char.OcrAug(),
        "character insert": char.RandomCharAug(action="insert"),
        "character swap": char.RandomCharAug(action="swap"),
        "spelling": _sorted_spelling(),
        "word swap": word.RandomWordAug(action="swap"),
        "word delete": word.RandomWordAug(action="delete"),
        "split": word.SplitAug(),
        "synonym": _synonym_aug(),
    }
    return _in_turn("nlpaug", [(tool, partial(_augment, aug)) for tool, aug in tools.items()], rng)


def _sorted_spelling() -> Any:
    """Nlpaug's misspellings; it keeps them in the order of a set, which changes from one process to the next."""
    from nlpaug.augmenter.word import SpellingAug, spelling

    # nlpaug keeps one dictionary for the process, in the form that was first asked for; others ask for another.
    spelling.SPELLING_ERROR_MODEL = {}
    aug = SpellingAug()
    spelling.SPELLING_ERROR_MODEL = {}
    aug.model.dict = {right: sorted(wrong) for right, wrong in aug.model.dict.items()}
    return aug


class _Thesaurus:
    """What nlpaug's SynonymAug asks of its WordNet: synonyms, and Penn tags.

    nlpaug takes both from NLTK, whose data come from a server of its own. Here WordNet is read from its files, and a
    word gets the tag of the part of speech that WordNet has it most often as; function words get one left alone.
    """

    _PENN = {"n": "NN", "v": "VB", "a": "JJ", "r": "RB"}  # noqa: RUF012

    def predict(self, word: str, pos: str | None = None) -> list[str]:
        """Return synonyms of a word; nlpaug asks for adjectives twice, the second time by the mark of satellites."""
        return [] if pos == "s" else load_wordnet().synonyms(word, pos)

    def pos_tag(self, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """Return each token with its tag."""
        return [(token, "DT" if token.lower() in _STOPS else self._tag(token)) for token in tokens]

    def _tag(self, token: str) -> str:
        return self._PENN.get(load_wordnet().pos_of(token) or "", "FW")


def _synonym_aug() -> Any:
    from nlpaug.augmenter.word import SynonymAug

    class Synonyms(SynonymAug):
        @classmethod
        def get_model(cls, *_: Any) -> _Thesaurus:
            return _Thesaurus()

    return Synonyms()


def _augly(rng: np.random.Generator) -> Make:
    """AugLy's text augmentations that leave a prompt readable as it is typed, with the settings they come with.

    Left out are the disguises (zero-width, upside-down, bidirectional, fun fonts, marks between all letters), which
    would teach a detector that disguise is benign; of the typos only misspellings, for the others fail with nlpaug
    1.1.11.
    """
    from augly import text as augly

    tools = {
        "typos": augly.SimulateTypos(typo_type="misspelling"),
        "split words": augly.SplitWords(),
        "merge words": augly.MergeWords(),
        "similar characters": augly.ReplaceSimilarChars(),
        "case": augly.ChangeCase(seed=None),
        "contractions": augly.Contractions(seed=None),
        "gendered words": augly.SwapGenderedWords(),
    }
    return _in_turn("AugLy", [(tool, partial(_transform, aug)) for tool, aug in tools.items()], rng)


def _transform(aug: Any, text: str) -> str:
    found = aug(text)
    return (found[0] if found else text) if isinstance(found, list) else str(found)


# ------------------------------------------------------------------------------------------------------------------ EDA


def _eda(rng: np.random.Generator) -> Make:
    """Easy data augmentation (Wei and Zou 2019): its four operations in turn, alpha 0.1, at least one word changed.

    Words are split at white space and keep their case and marks (the paper's own code drops both, which would give the
    samples away by their looks alone).
    """
    operations: list[tuple[str, Tool]] = [
        ("synonym replacement", partial(synonym_replacement, rng=rng)),
        ("random insertion", partial(random_insertion, rng=rng)),
        ("random swap", partial(random_swap, rng=rng)),
        ("random deletion", partial(random_deletion, rng=rng)),
    ]
    return _in_turn("EDA", operations, rng)


def _changes(words: Sequence[str]) -> int:
    return max(1, int(ALPHA * len(words)))


@lru_cache(maxsize=50_000)
def _synonyms(word: str) -> tuple[str, ...]:
    """The synonyms of a word with its marks cut off; none for function words."""
    core = _WORD.search(word)
    if core is None or core[0].lower() in _STOPS:
        return ()
    plain = (re.sub(r"[^a-z ]", "", other.replace("-", " ")) for other in load_wordnet().synonyms(core[0]))
    return tuple(dict.fromkeys(other for other in plain if other.strip()))


def synonym_replacement(text: str, *, rng: np.random.Generator) -> str:
    """Replace a tenth of the words, none of them function words, by synonyms, wherever each occurs."""
    words = text.split()
    candidates = sorted({word for word in words if _synonyms(word)})
    for index in rng.permutation(len(candidates))[: _changes(words)]:
        old = candidates[index]
        core = _WORD.search(old)
        new = _synonyms(old)[int(rng.integers(len(_synonyms(old))))]
        changed = old[: core.start()] + new + old[core.end() :] if core else new
        words = [changed if word == old else word for word in words]
    return " ".join(words)


def random_insertion(text: str, *, rng: np.random.Generator) -> str:
    """Put synonyms of a tenth of the words at random places."""
    words = text.split()
    candidates = [word for word in words if _synonyms(word)]
    for _ in range(_changes(words) if candidates else 0):
        found = _synonyms(candidates[int(rng.integers(len(candidates)))])
        words.insert(int(rng.integers(len(words) + 1)), found[int(rng.integers(len(found)))])
    return " ".join(words)


def random_swap(text: str, *, rng: np.random.Generator) -> str:
    """Swap two words, as often as a tenth of the words."""
    words = text.split()
    for _ in range(_changes(words) if len(words) > 1 else 0):
        i, j = rng.choice(len(words), size=2, replace=False)
        words[i], words[j] = words[j], words[i]
    return " ".join(words)


def random_deletion(text: str, *, rng: np.random.Generator) -> str:
    """Drop each word with a probability of a tenth; one word at least stays."""
    words = text.split()
    if len(words) < 2:
        return text
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= ALPHA]
    return " ".join(kept) if kept else words[int(rng.integers(len(words)))]


_MAKERS: dict[str, Callable[[np.random.Generator], Make]] = {
    "copies": _copies,
    "template filler": _template_filler,
    "nlpaug": _nlpaug,
    "EDA": _eda,
    "AugLy": _augly,
}
