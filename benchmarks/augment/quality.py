"""How good a generator's samples are, whatever a detector learns from them: variety, repetition, distance, grammar.

Takes the samples, the id of the prompt each was grown from, and those prompts by id; gives one flat dictionary of
numbers. What cannot be measured here is None, and `grammar_checker` says who judged the grammar, or why nobody did.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import grammar
import numpy as np
from numpy.typing import NDArray

from crywolf.augment import distinct_n, near_duplicate_clusters, nearest_reference
from crywolf.data.embedded.contexts import all_contexts
from crywolf.data.language import language_of

BLEU_SAMPLE = 500
GRAMMAR_SAMPLE = 400
SEED = 7
"""Chooses the samples that self-BLEU and the grammar checker look at: the same places for every generator."""
ORDER = 4

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Gram = tuple[str, ...]

_TOKEN = re.compile(r"\w+|[^\w\s]")


def quality(
    texts: Sequence[str], origins: Sequence[str | None], fp_texts: Mapping[str, str], *, encode: Encode | None = None
) -> dict[str, float | int | str | None]:
    """Measure samples.

    Args:
        texts: the samples.
        origins: the id of the prompt that each was grown from; None for one without.
        fp_texts: the prompts by id.
        encode: texts to unit vectors; without it the semantic distance is None.

    Returns:
        distinct_1, distinct_2: distinct words and word pairs over all of them.
        self_bleu: BLEU-4 of a sample against the others of a random 500, the mean of 500 (0 is varied, 1 all the same).
        near_duplicates_within: the share of samples that could go and leave one of each near-duplicate cluster.
        near_duplicates_of_fps: the share that nearly repeats one of the prompts.
        semantic_distance: 1 - cosine between a sample and its prompt, the mean.
        ungrammatical: the share that the checker flags, of the samples of English prompts among a random 400.
        misspelt: of the same, the share with a word that the checker does not know and that its prompt does not have.
        grammar_judged, grammar_not_judged: how many of those 400 were judged, and how many not.
        grammar_checker: its name, or why there is none.
    """
    return {
        "samples": len(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "self_bleu": self_bleu([texts[i] for i in _some(len(texts), BLEU_SAMPLE)]),
        **_near_duplicates(texts, list(fp_texts.values())),
        "semantic_distance": None if encode is None else semantic_distance(texts, origins, fp_texts, encode),
        **_grammar(texts, [fp_texts.get(origin or "") for origin in origins]),
    }


def _some(n: int, limit: int) -> list[int]:
    """A random sample of n places, at most so many, in their order."""
    return sorted(np.random.default_rng(SEED).permutation(n)[:limit].tolist())


# ------------------------------------------------------------------------------------------------------ variety


def tokens(text: str) -> list[str]:
    """Return lower-cased words and marks."""
    return _TOKEN.findall(text.lower())


def self_bleu(texts: Sequence[str]) -> float | None:
    """Return the mean BLEU-4 of each text against all others; None for fewer than two texts.

    It is sacrebleu's sentence BLEU (effective order, exponential smoothing) over `tokens`, reached without comparing
    every pair: an n-gram's largest count among the others needs only the two largest counts over all.
    """
    if len(texts) < 2:
        return None
    words = [tokens(text) for text in texts]
    lengths = sorted(map(len, words))
    counts = [[_grams(one, order) for one in words] for order in range(1, ORDER + 1)]
    tops = [_top_counts(of_order) for of_order in counts]
    scores = [_bleu(i, [of_order[i] for of_order in counts], tops, lengths) for i in range(len(texts))]
    return float(np.mean(scores))


def _grams(words: Sequence[str], order: int) -> Counter[Gram]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _top_counts(counters: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int, int]]:
    """Each n-gram's largest count in one text, that text, and the largest count in any other."""
    tops: dict[Gram, tuple[int, int, int]] = {}
    for i, counter in enumerate(counters):
        for gram, count in counter.items():
            first, holder, second = tops.get(gram, (0, -1, 0))
            tops[gram] = (count, i, first) if count > first else (first, holder, max(second, count))
    return tops


def _bleu(
    i: int, counters: Sequence[Counter[Gram]], tops: Sequence[dict[Gram, tuple[int, int, int]]], lengths: Sequence[int]
) -> float:
    length = sum(counters[0].values())
    precisions: list[float] = []
    smooth, all_hits = 1.0, 0
    for counter, top in zip(counters, tops, strict=True):
        total = sum(counter.values())
        if not total:
            break
        hits = sum(min(count, _among_others(top[gram], i)) for gram, count in counter.items())
        all_hits += hits
        if not hits:
            smooth *= 2
        precisions.append(hits / total if hits else 1 / (smooth * total))
    if not all_hits:
        return 0.0
    closest = _closest(length, lengths)
    brevity = 1.0 if length >= closest else float(np.exp(1 - closest / length))
    return brevity * float(np.exp(np.mean(np.log(precisions))))


def _among_others(top: tuple[int, int, int], i: int) -> int:
    first, holder, second = top
    return second if holder == i else first


def _closest(length: int, lengths: Sequence[int]) -> int:
    """The other length nearest to this one, the shorter of two; `lengths` is sorted and has this one too."""
    at = int(np.searchsorted(lengths, length))
    near = [*lengths[max(at - 1, 0) : at], *lengths[at + 1 : at + 2]]
    return min(near, key=lambda other: (abs(other - length), other))


# --------------------------------------------------------------------------------------- repetition, distance, grammar


def _near_duplicates(texts: Sequence[str], fps: Sequence[str]) -> dict[str, float | None]:
    if not texts:
        return {"near_duplicates_within": None, "near_duplicates_of_fps": None}
    clusters = len(np.unique(near_duplicate_clusters(texts)))
    return {
        "near_duplicates_within": 1.0 - clusters / len(texts),
        "near_duplicates_of_fps": float((nearest_reference(texts, fps) >= 0).mean()) if fps else 0.0,
    }


def semantic_distance(
    texts: Sequence[str], origins: Sequence[str | None], fp_texts: Mapping[str, str], encode: Encode
) -> float | None:
    """Return the mean of 1 - cosine over the samples with a known prompt, None where there is none."""
    pairs = [
        (text, fp_texts[origin]) for text, origin in zip(texts, origins, strict=True) if origin and origin in fp_texts
    ]
    if not pairs:
        return None
    distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: i for i, text in enumerate(distinct)}
    vectors = np.asarray(encode(distinct), dtype=np.float32)
    left, right = (vectors[[place[pair[side]] for pair in pairs]] for side in (0, 1))
    return float(1.0 - np.einsum("ij,ij->i", left, right).mean())


def _grammar(texts: Sequence[str], prompts: Sequence[str | None]) -> dict[str, float | int | str | None]:
    """Judge English samples of English prompts; noise that makes English strange must not save it from judgement."""
    chosen = _some(len(texts), GRAMMAR_SAMPLE)
    pairs = [(texts[i], prompts[i] or texts[i]) for i in chosen]
    why = grammar.unavailable()
    if why is not None:
        nothing = {"ungrammatical": None, "misspelt": None, "grammar_judged": 0, "grammar_not_judged": len(pairs)}
        return {**nothing, "grammar_checker": why}
    # A sample in another language, as a generator may well write of an English prompt, is not for this checker.
    known_languages = tuple(all_contexts())
    english = [grammar.is_english(prompt) and language_of(text, known_languages) == "en" for text, prompt in pairs]
    verdicts = grammar.ungrammatical([text for text, _ in pairs], english)
    known = [verdict for verdict in verdicts if verdict is not None]
    misspelt = [
        bool(grammar.unknown_words(text) - grammar.unknown_words(prompt))
        for (text, prompt), verdict in zip(pairs, verdicts, strict=True)
        if verdict is not None
    ]
    return {
        "ungrammatical": sum(known) / len(known) if known else None,
        "misspelt": sum(misspelt) / len(misspelt) if misspelt else None,
        "grammar_judged": len(known),
        "grammar_not_judged": len(pairs) - len(known),
        "grammar_checker": grammar.checker(),
    }
