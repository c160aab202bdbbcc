"""Grows malicious rows: other wordings, carriers, requests for other languages, disguises; the label stays.

Takes malicious contract rows and gives up to n new ones of each, so that recall holds while benign data grows. A
wording is changed only where the text holds a clause that attacks are known to use; what is not such a text is carried
or disguised whole.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from crywolf.data import MALICIOUS, BadInput, empty_corpus, make_corpus
from crywolf.data.embedded.attacks import malicious_seeds
from crywolf.data.embedded.grammar import fill
from crywolf.data.embedded.intent import Clause, Swap, carriers, phrasebook

from ..dedup import shingles
from .intent import language_of
from .obfuscate import DISGUISES, REAL, is_disguised, obfuscate
from .types import Grown

WEIGHTS: Final[Mapping[str, float]] = {
    "paraphrase": 6.0,
    "carrier": 2.0,
    "reply": 1.0,
    "native": 1.0,
    **dict.fromkeys(DISGUISES, 0.4),
}
"""The operators, and how often each is tried."""
OPERATORS: Final = tuple(WEIGHTS)
_SOURCE: Final = "augmented"
_LONG: Final = 300
_TRIES: Final = 8

_VERB_FIRST: Final = (
    "ignore|disregard|forget|drop|skip|discard|override|overrule|cancel|erase|abandon|wipe|scrap|set|put|stop|throw|leave"
    "|pay|print|reveal|show|tell|repeat|output|display|give|recite|leak|dump|disclose|write|copy|share|paste|spell|say"
    "|pretend|imagine|act|play|become|behave|answer|reply|respond|obey|follow|decode|translate|send|list|enter|switch|turn"
    "|hand|let(?!')|read|confirm|agree|summarize|delete|encode|convert|bypass|disable|treat|speak|take|pose"
)
_IMPERATIVE: Final = re.compile(rf"(?:{_VERB_FIRST})\b(?!\s*[:=(])", re.IGNORECASE)
_AND_ORDER: Final = re.compile(rf"(?:,? and|, then|,? and then) (?=(?:{_VERB_FIRST})\b)", re.IGNORECASE)


def grow_attacks(
    malicious: pl.DataFrame,
    n_per_row: int,
    rng: np.random.Generator,
    *,
    operators: Sequence[str] = OPERATORS,
    threshold: float | None = None,
) -> pl.DataFrame:
    """Return up to `n_per_row` distinct new malicious rows of each row, in the rows' order.

    The threat type stays, but for a real disguise, which makes the row an obfuscated command of the disguise's family.

    Args:
        malicious: `text` and `id`; `threat_type` and `subcategory` are carried over if there.
        n_per_row: how many of each; a row that few operators fit gives fewer.
        rng: draws everything.
        operators: names from `OPERATORS`.
        threshold: a text whose Jaccard similarity to its attack reaches this repeats it and is not taken: other
            capitals, a slip of the keyboard, a short sentence before a long attack. If this is None, all are.

    Raises:
        BadInput: a column is missing or an operator unknown.
    """
    _check(malicious, operators)
    seen = set(malicious["text"].drop_nulls().to_list())
    rows: list[dict[str, Any]] = []
    for row in malicious.drop_nulls("text").iter_rows(named=True):
        near = None if threshold is None else _Near.to(row["text"], threshold)
        rows += [_row(grown, row) for grown in _grown(row, n_per_row, operators, seen, rng, near)]
    return make_corpus(rows, source=_SOURCE) if rows else empty_corpus()


def _check(malicious: pl.DataFrame, operators: Sequence[str]) -> None:
    missing = {"id", "text"} - set(malicious.columns)
    if missing:
        raise BadInput(f"the attacks have no column {min(missing)}; pass contract rows (read_corpus, make_corpus)")
    unknown = [name for name in operators if name not in WEIGHTS]
    if unknown or not operators:
        raise BadInput(f"operators {list(operators)!r}: choose one or more of {', '.join(OPERATORS)}")


@dataclass(frozen=True)
class _Near:
    """What repeats an attack: texts that share so much of its shingles."""

    own: frozenset[str]
    threshold: float

    @classmethod
    def to(cls, text: str, threshold: float) -> "_Near":
        return cls(shingles(text), threshold)

    def repeats(self, text: str) -> bool:
        other = shingles(text)
        shared = len(self.own & other)
        return shared >= self.threshold * (len(self.own) + len(other) - shared)

    def hopeless(self, operator: str) -> bool:
        """Whether all that the operator can put around a long attack is too little: a character adds one shingle."""
        own, most = len(self.own), _most_added().get(operator)
        return own > _LONG and most is not None and own >= self.threshold * (own + most)


@lru_cache(maxsize=1)
def _most_added() -> Mapping[str, int]:
    """The most characters that operators put around a long attack."""
    around = carriers()
    both = _longest(around.before) + _longest(around.after) + len(".\n\n\n\n")
    reply = _longest(around.reply_frames) + _longest(around.languages.values()) + 1
    return {"carrier": both, "reply": reply}


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts))


def _grown(
    row: Mapping[str, Any],
    n: int,
    operators: Sequence[str],
    seen: set[str],
    rng: np.random.Generator,
    near: _Near | None,
) -> list[Grown]:
    """Return up to `n` new texts of a row; an operator that the row does not take is not tried again."""
    weights = np.array([0.0 if near and near.hopeless(name) else WEIGHTS[name] for name in operators])
    made: list[Grown] = []
    for _ in range(n * _TRIES):
        if len(made) == n or not weights.any():
            break
        drawn = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
        grown = _apply(operators[drawn], row, rng)
        if grown is None:
            weights[drawn] = 0
        elif grown.text not in seen and not (near and near.repeats(grown.text)):
            seen.add(grown.text)
            made.append(grown)
    return made


def _apply(operator: str, row: Mapping[str, Any], rng: np.random.Generator) -> Grown | None:
    text = row["text"].strip()
    if operator in DISGUISES:
        return obfuscate(text, operator, rng)
    if operator == "native":
        return native(text, rng, threat_type=row.get("threat_type"))
    return _PLAIN[operator](text, rng)


def _row(grown: Grown, row: Mapping[str, Any]) -> dict[str, Any]:
    disguised = grown.operator in REAL
    return {
        "text": grown.text,
        "label": MALICIOUS,
        "subcategory": grown.subcategory if disguised else row.get("subcategory"),
        "threat_type": "obfuscated_command" if disguised else row.get("threat_type"),
        "origin_id": row["id"],
        "how": grown.how,
    }


# --------------------------------------------------------------------------------------------------------- paraphrase


def paraphrase(text: str, rng: np.random.Generator) -> Grown | None:
    """Return the attack in other words; None if it holds no clause that attacks are known to use.

    Overrides and requests for the prompt get other verbs and objects, set phrases their synonyms; then the sentence may
    be split, turned round, or made polite, firm or a question.
    """
    if is_disguised(text) or language_of(text) not in {"en", None}:
        return None
    book = phrasebook()
    marks: list[str] = []
    new = _reword(text, book.overrides, "override", rng, marks)
    new = _reword(new, book.reveals, "reveal", rng, marks)
    new = _swapped(new, book.swaps, rng, marks)
    if not marks:
        return None
    new = _restructured(new, rng, marks)
    return Grown(new, "paraphrase:" + ",".join(marks), "paraphrase") if new != text else None


def _reword(text: str, clause: Clause, mark: str, rng: np.random.Generator, marks: list[str]) -> str:
    """Replace the clauses that `clause` finds outside code by others of its verbs and objects."""

    def change(match: re.Match[str]) -> str:
        said = f"{_pick(clause.verbs, rng)} {_pick(clause.objects, rng)}"
        if said.lower() == match[0].lower():
            return match[0]
        marks.append(mark)
        return _like(said, match[0])

    return text if _looks_like_code(text) else clause.find.sub(change, text)


def _swapped(text: str, swaps: Sequence[Swap], rng: np.random.Generator, marks: list[str]) -> str:
    if _looks_like_code(text):
        return text
    for number, swap in enumerate(swaps, 1):
        match = swap.find.search(text)
        if not match or (swap.unless and swap.unless.search(text)) or rng.random() < 0.25:
            continue
        if swap.start and not _starts_clause(text, match.start()):
            continue
        said = _like(_pick(swap.put, rng), match[0])
        if said != match[0]:
            text = text[: match.start()] + said + text[match.end() :]
            marks.append(f"swap{number}")
    return text


def _starts_clause(text: str, at: int) -> bool:
    before = text[:at].rstrip()
    return not before or before.endswith((".", "!", "?", ":", ";", ",", "and", "then", "\n"))


def _looks_like_code(text: str) -> bool:
    return bool(re.search(r"[{}<>]|\w\(|==|=>|^\s*[$#]|^\s*\w+\s*=|```", text, re.MULTILINE))


def _like(said: str, model: str) -> str:
    """Give new words the capitals of those they replace."""
    letters = [char for char in model if char.isalpha()]
    if len(letters) > 3 and all(char.isupper() for char in letters):
        return said.upper()
    return said[:1].upper() + said[1:] if model[:1].isupper() else said


def _restructured(text: str, rng: np.random.Generator, marks: list[str]) -> str:
    """Change the build of a text that is an order of one or two parts; leave every other as it is."""
    if text.isupper() or "\n" in text or _looks_like_code(text) or not _IMPERATIVE.match(_bare(text)):
        return text
    move = rng.random()
    if move < 0.3:
        return text
    if move < 0.65:
        turned = _joined(text, rng, marks)
        if turned != text:
            return turned
    return _opened(text, rng, marks)


def _bare(text: str) -> str:
    """The text without a "please" at its head."""
    return re.sub(r"^(?:please|kindly|now),? ", "", text, flags=re.IGNORECASE)


def _joined(text: str, rng: np.random.Generator, marks: list[str]) -> str:
    """Split "override and order" into two sentences, or put the order first."""
    match = _AND_ORDER.search(text)
    if not match or re.search(r"[.!?;]\s", text) or '"' in text[: match.start()]:
        return text
    override, order = text[: match.start()], text[match.end() :]
    lower = text[:1].islower()
    if rng.random() < 0.5:
        join = _pick(phrasebook().joins, rng)
        marks.append("split")
        return f"{override}{join.lower() if lower else join}{_decap(order)}"
    marks.append("turned")
    ended = order.rstrip()
    stop = ended[-1] if ended[-1] in ".!?" else ""
    pattern = _pick(phrasebook().fronts, rng)
    turned = fill(pattern, {"order": _decap(ended[:-1] if stop else ended), "override": _decap(_bare(override))})
    turned = turned.lower() if text.islower() else turned[:1].upper() + turned[1:]
    return turned.removesuffix(".") + (stop or ("" if lower else "."))


def _opened(text: str, rng: np.random.Generator, marks: list[str]) -> str:
    """Put an opening before an order: a request, a duty, or a question."""
    bare, lower = _bare(text), text[:1].islower()
    book = phrasebook()
    whole = not re.search(r"[.!?;:]\s", bare)
    if whole and rng.random() < 0.25:
        opening = _pick(book.question, rng)
        body = _decap(bare.rstrip().rstrip(".!?")) + ("" if lower and rng.random() < 0.5 else "?")
    else:
        opening, body = _pick(book.base, rng), _decap(bare)
    marks.append("opening")
    return (opening[:1].lower() + opening[1:] if lower and not opening.startswith("I") else opening) + body


def _decap(text: str) -> str:
    first = text.split(" ", 1)[0]
    return text if first.isupper() and len(first) > 1 else text[:1].lower() + text[1:]


# --------------------------------------------------------------------------------------------- carriers and languages


def carry(text: str, rng: np.random.Generator) -> Grown | None:
    """Return the attack after or before a harmless sentence, or inside an ordinary document."""
    around = carriers()
    if len(text) <= _LONG and "\n" not in text and rng.random() < 0.4:
        number = int(rng.integers(len(around.documents)))
        return Grown(fill(around.documents[number], {"attack": text}), f"carrier:document{number + 1}", "carrier")
    before = _pick(around.before, rng) if rng.random() < 0.75 else ""
    after = _pick(around.after, rng) if not before or rng.random() < 0.35 else ""
    gap = "\n\n" if "\n" in text or len(text) > _LONG else " "
    where = "both" if before and after else "before" if before else "after"
    return Grown(gap.join(filter(None, (before, _ended(text, after), after))), f"carrier:{where}", "carrier")


def reply_in(text: str, rng: np.random.Generator) -> Grown | None:
    """Return the attack with the request to answer in another language."""
    around = carriers()
    if len(text) > 2 * _LONG:
        return None
    code = _pick(tuple(around.languages), rng)
    number = int(rng.integers(len(around.reply_frames)))
    values = {"attack": text, "language": around.languages[code]}
    framed = _fill_ended(around.reply_frames[number], values)
    return Grown(framed, f"reply:{code},{number + 1}", "reply")


def native(text: str, rng: np.random.Generator, *, threat_type: str | None = None) -> Grown | None:
    """Return the attack beside an attack of the same type in another language, from the embedded seeds."""
    if len(text) > _LONG or is_disguised(text) or language_of(text) != "en":
        return None
    around = carriers()
    code = _pick(tuple(around.languages), rng)
    choices = _native_seeds(code, threat_type) or _native_seeds(code, "context_manipulation")
    if not choices:
        return None
    number = int(rng.integers(len(around.native_frames)))
    seed_id, said = choices[rng.integers(len(choices))]
    values = {"attack": text, "native": said, "language": around.languages[code]}
    framed = _fill_ended(around.native_frames[number], values)
    return Grown(framed, f"native:{code},{number + 1},{seed_id}", "native")


@lru_cache(maxsize=64)
def _native_seeds(code: str, threat_type: str | None) -> list[tuple[str, str]]:
    seeds = malicious_seeds()
    if threat_type is None:
        return []
    mine = (pl.col("extra").struct.field("notes") == f"lang={code}") & (pl.col("threat_type") == threat_type)
    short = (pl.col("text").str.len_chars() <= 160) & ~pl.col("text").str.contains("\n", literal=True)
    return [(row[0], row[1]) for row in seeds.filter(mine & short).select("id", "text").iter_rows()]


def _ended(text: str, following: str) -> str:
    """End a text with a full stop if a sentence follows and it has no stop of its own."""
    return text + "." if following and text[-1:].isalnum() else text


def _fill_ended(pattern: str, values: Mapping[str, str]) -> str:
    """Fill a pattern; a value that a sentence follows on the same line gets its full stop."""

    def close(match: re.Match[str]) -> str:
        stop = "." if values[match[1]][-1:].isalnum() else ""
        return f"{{{match[1]}}}{stop} "

    return fill(re.sub(r"\{(attack|native)\} (?=[A-Z{])", close, pattern), values)


def _pick(values: Sequence[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


_PLAIN: Final[Mapping[str, Callable[[str, np.random.Generator], Grown | None]]] = {
    "paraphrase": paraphrase,
    "carrier": carry,
    "reply": reply_in,
}
