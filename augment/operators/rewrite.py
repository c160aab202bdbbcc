"""Rewrites a false positive into distinct, natural benign prompts: other frames, other words, other mentions.

Takes the text of one false positive and gives up to `n` `Grown` samples: what `parse` read of it is put into frames of
questions, requests, statements and titles (YAML in `data/embedded/frames`), after edits of its wording and swaps of its
mentions, with the situations that people mention around such prompts. No two results, nor any and the original, are
near-duplicates. What cannot be read safely is carried whole, or yields fewer samples: never nonsense. A text in another
language is only ever carried whole, in that language's own openings and thanks (`data/embedded/frames/native`), or not
rewritten at all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crywolf.data.embedded.grammar import read_yaml
from crywolf.data.embedded.lexicons import FRAMES, Lexicons
from crywolf.data.errors import BadInput

from .inflect import article, base_of_third, is_verb
from .parse import (
    BLOT,
    END_MARKS,
    FENCE,
    GREETING,
    Parsed,
    decap,
    domain_of,
    inflect_phrase,
    is_english,
    is_utterance,
    mask,
    parse,
    sentences,
    sub_masked,
)
from .swaps import swap_once
from .types import Grown

_THRESHOLD = 0.8
_SLOT = re.compile(r"\{(do|doing|does|np|a|emb|direct|whole)\}")
_KNOWN_SLOTS = {
    "task": {"do", "doing", "does"},
    "artifact": {"np", "do"},
    "assist": {"do", "doing"},
    "user": {"do", "doing"},
    "get": {"np"},
    "ask": {"emb", "direct"},
    "statement": {"whole"},
    "noun": {"np", "a"},
    "whole": {"whole"},
    "role": {"whole"},
    "math": {"whole"},
}
_FRAME_KEYS = {"text", "domains", "avoid", "only", "verbs", "bare", "single", "short"}
_DOMAINS = {"shell", "code", "assistant", "security", "general"}
_CUT_LENGTH = 103  # a harness cuts at 100 characters and adds "..."
_LONGEST_WHOLE = 4000  # a longer text that is carried whole stays a near-duplicate of itself
_ENDS = re.escape(END_MARKS)


@dataclass(frozen=True)
class Frame:
    """One sentence pattern with one slot, and the conditions under which it may be used."""

    kind: str
    family: str
    name: str
    text: str
    slot: str
    domains: frozenset[str] = frozenset()
    avoid: tuple[str, ...] = ()
    only: str = ""
    verbs: frozenset[str] = frozenset()
    single: bool = False
    short: bool = False


@dataclass(frozen=True)
class Context:
    """What may stand around the frames of one kind and domain."""

    where: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Native:
    """What may stand around a text in another language, and how one without an end mark of its own is ended."""

    families: Mapping[str, tuple[Frame, ...]]
    stop: str
    ask: str
    asks: re.Pattern[str]


@dataclass(frozen=True)
class Edit:
    """One way of saying a part of a phrase otherwise."""

    match: re.Pattern[str]
    to: tuple[str, ...]
    domains: frozenset[str]
    never: re.Pattern[str] | None


@dataclass(frozen=True)
class Book:
    """All frames by kind and family, the contexts, the edits, and the frames of other languages by code."""

    frames: Mapping[str, Mapping[str, tuple[Frame, ...]]]
    contexts: Mapping[str, Context]
    edits: tuple[Edit, ...]
    natives: Mapping[str, Native]


# ---------------------------------------------------------------- loading


@lru_cache(maxsize=1)
def book() -> Book:
    """Return the embedded frames, contexts and edits, read and checked once."""
    return load_book(FRAMES)


def load_book(folder: Path) -> Book:
    """Read the frames of `folder`.

    Raises:
        BadInput: a file is not of the documented form; the message names the file and the frame.
    """
    frames: dict[str, dict[str, tuple[Frame, ...]]] = {}
    contexts: dict[str, Context] = {}
    edits: tuple[Edit, ...] = ()
    for path in sorted(folder.glob("*.yaml")):
        document = read_yaml(path)
        if path.name in {"repairs.yaml", "words.yaml"}:
            continue
        if not isinstance(document, dict):
            raise BadInput(f"{path}: expected a mapping")
        if path.name == "contexts.yaml":
            contexts = {key: _read_context(path, key, body) for key, body in document.items()}
        elif path.name == "edits.yaml":
            edits = tuple(_read_edit(path, i, raw) for i, raw in enumerate(document.get("edits") or []))
        else:
            kind = document.get("kind")
            if kind not in _KNOWN_SLOTS or not isinstance(document.get("families"), dict):
                raise BadInput(f"{path}: needs `kind` (one of {', '.join(_KNOWN_SLOTS)}) and a mapping `families`")
            frames[kind] = {
                str(family): tuple(_read_frame(path, kind, family, i, raw) for i, raw in enumerate(items))
                for family, items in document["families"].items()
            }
    missing = set(_KNOWN_SLOTS) - set(frames)
    if missing:
        raise BadInput(f"{folder}: no frames for {', '.join(sorted(missing))}")
    natives = dict(_read_native(path) for path in sorted((folder / "native").glob("*.yaml")))
    return Book(frames, contexts, edits, natives)


def _read_native(path: Path) -> tuple[str, Native]:
    document = read_yaml(path)
    texts = ("language", "stop", "ask", "asks")
    if (
        not isinstance(document, dict)
        or document.get("kind") != "whole"
        or not isinstance(document.get("families"), dict)
        or not all(isinstance(document.get(key), str) for key in texts)
    ):
        raise BadInput(f"{path}: needs `kind: whole`, the texts {', '.join(texts)} and a mapping `families`")
    try:
        asks = re.compile(document["asks"])
    except re.error as error:
        raise BadInput(f"{path}: `asks` is no regular expression: {error}") from error
    families = {
        str(family): tuple(_read_frame(path, "whole", family, i, raw) for i, raw in enumerate(items))
        for family, items in document["families"].items()
    }
    return document["language"], Native(families, document["stop"], document["ask"], asks)


def _read_frame(path: Path, kind: str, family: str, index: int, raw: Any) -> Frame:
    where = f"{path}: {family} frame {index}"
    item = {"text": raw} if isinstance(raw, str) else raw
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise BadInput(f"{where}: expected a text or a mapping with `text`, got {raw!r}")
    unknown = set(item) - _FRAME_KEYS
    slots = _SLOT.findall(item["text"])
    rest = _SLOT.sub("", item["text"]).replace("{is}", "")
    if unknown or len(slots) != 1 or slots[0] not in _KNOWN_SLOTS[kind] or "{" in rest:
        raise BadInput(f"{where}: needs exactly one slot of {sorted(_KNOWN_SLOTS[kind])} and known keys, got {raw!r}")
    names = (item.get("only"), *(item.get("avoid") or ()))
    if any(name and name not in _CONDITIONS for name in names) or not set(item.get("domains") or ()) <= _DOMAINS:
        raise BadInput(f"{where}: unknown condition or domain in {raw!r}; known are {', '.join(_CONDITIONS)}")
    return Frame(
        kind,
        family,
        f"{family}{index}",
        item["text"],
        slots[0],
        frozenset(item.get("domains") or ()),
        tuple(item.get("avoid") or ()),
        item.get("only") or "",
        frozenset(item.get("verbs") or ()),
        bool(item.get("single")),
        bool(item.get("short")),
    )


def _read_context(path: Path, key: str, body: Any) -> Context:
    parts = {"where", "why", "asks", "notes", "writing"}
    if not isinstance(body, dict) or not set(body) <= parts:
        raise BadInput(f"{path}: context {key!r} may hold {', '.join(sorted(parts))}")
    return Context(**{part: tuple(str(text) for text in texts) for part, texts in body.items()})


def _read_edit(path: Path, index: int, raw: Any) -> Edit:
    try:
        never = re.compile(raw["never"]) if raw.get("never") else None
        domains = frozenset(raw.get("domains") or _DOMAINS)
        edit = Edit(re.compile(raw["match"]), tuple(str(to) for to in raw["to"]), domains, never)
    except (re.error, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: edit {index} needs `match` (a regular expression) and a list `to`: {error}") from error
    if not edit.to or not domains <= _DOMAINS:
        raise BadInput(f"{path}: edit {index} needs alternatives and known domains, got {raw!r}")
    return edit


# ---------------------------------------------------------------- conditions

_OWN = re.compile(
    r"(?:freeze|block|transfer|pay|report|book|cancel|order|track|schedule|reserve|rent"
    r"|reset|update|edit|activate|link|verify|redeem|change my (?:pin|address|insurance"
    r"|plan|account)|delete my account|put a (?:stop|hold|freeze|block) on|place a (?:stop"
    r"|hold|freeze|block) on)\b"
)
_ERRAND = re.compile(
    r"(?:report|get (?:a|my|the)|order|apply|update|edit|replace|reset|delete my|cancel"
    r"|submit|set up|dispute|request|activate|renew|open an?|close|file|unblock|freeze"
    r"|block|schedule|verify|transfer|roll ?over)\b"
)
_TROUBLE = re.compile(
    r"\b(?:stolen?|lost|can(?:'t|not)|could(?:n't| not)|(?:did|do|does|is|was|has|have"
    r"|wo)n't|(?:did|do|does|is|am) not|problem|broken|cracked|need|want|would like"
    r"|i'd like|wrong|unable|fraud|missing|stole|charged?|declined|missed|not working"
    r"|afraid|mugged|forgot|never|someone|somebody|twice|attacked|expired)\b",
    re.I,
)
# A task whose result is prose: only there may one ask for plain language or an even tone.
_WRITING = re.compile(
    r"\b(?:explain|describe|summari[sz]e|discuss|outline|compare|elaborate|paraphrase|rephrase|rewrite|illustrate"
    r"|define|introduce|teach|draft|compose|translate|write(?! (?:to|into)\b| §))\b"
    r"|\b(?:create|make|prepare|produce|generate|provide|give|develop|craft|design)\b[^.?!]{0,60}\b(?:guides?|essays?"
    r"|articles?|paragraphs?|poems?|stor(?:y|ies)|letters?|e?-?mails?|blog|summary|overview|introduction|explanations?"
    r"|descriptions?|definitions?|speech|lessons?|handouts?|checklists?|faq)\b",
    re.I,
)
_THING = re.compile(
    r"(?:(?:simple|small|short|quick|bash|shell|php|perl|python|linux|sed|awk|batch"
    r"|or) ){0,5}(?:script|command|function|one-liner)\b",
    re.I,
)

# Prose that leans on an attack's turns of phrase: harmless as a whole perhaps, but no part of it may be grown alone.
_DEFIANT = re.compile(
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|unrestricted|liberated"
    r"|without (?:any )?(?:restrictions|ethical|limits)|bypass"
    r"|safety protocols|no longer bound|previous instructions|ethical (?:guidelines"
    r"|implications)|jailbr\w+|enforcement demands)\b",
    re.I,
)


def _is_third(text: str) -> bool:
    words = [word for word in re.findall(r"[A-Za-z]+", text)[:8] if not word.endswith("ly")]
    return bool(words) and (
        base_of_third(words[0]) is not None or (text[:3] == "Rec" and any(map(base_of_third, words)))
    )


_CONDITIONS: dict[str, Callable[[str], bool]] = {
    "me": lambda t: bool(re.search(r"\b(?:me|for (?:my|the)|myself)\b|\bfor \w+$", t)),
    "you": lambda t: bool(re.search(r"\b(?:you|your|yourself)\b", t)),
    "time": lambda t: bool(
        re.search(
            r"\b(?:now|immediately|today|tonight|tomorrow|asap|soon|quickly|right away|swiftly"
            r"|minutes|stop)\b",
            t,
        )
    ),
    "long": lambda t: len(t) > 60,
    "brief": lambda t: len(t) < 45,
    "speech": lambda t: bool(re.match(r"(?:shut|stop|be|speak|talk|whisper|quit|hush)\b", t)),
    "trouble": lambda t: bool(_TROUBLE.search(t)),
    "wish": lambda t: bool(
        re.search(
            r"\bi(?:'d like| want| need| would like| am going to need"
            r"|'m going to need)\b(?! to know)",
            t,
            re.I,
        )
    ),
    "asks": lambda t: bool(re.search(r"\b(?:can|could|will|would) (?:you|i)\b|, tell me\b|\bare you$", t, re.I)),
    "third": lambda t: _is_third(t),
    "verbal": lambda t: is_verb(t.split(" ", 1)[0]),
    "adverb": lambda t: bool(re.match(r"\w+ly\b|just\b|only\b", t)),
    "own": lambda t: bool(_OWN.match(t)) and not re.search(r"\b(?:me|you|your)\b", t),
    "errand": lambda t: bool(_ERRAND.match(t)),
    "chore": lambda t: bool(
        re.match(r"(?:put|add|remove|take|delete|clear|set|pay|send|text|remind|cancel|turn)\b", t)
    ),
    "shared": lambda t: (
        bool(re.match(r"(?:play|skip|pause|start|move on|switch|flip|roll|try|end)\b", t)) and " my " not in t
    ),
    "definite": lambda t: bool(re.match(r"(?:the|my|your|his|her|this|that)\b", t, re.I)),
    "thing": lambda t: bool(_THING.match(t)),
    "question": lambda t: t.rstrip().endswith(("?", "？", "؟")),
    "wordless": lambda t: not _WRITING.search(mask(t)),
    "lengthy": lambda t: len(t) > 150,
    "account": lambda t: bool(
        re.search(
            r"\b(?:account|transfer|payment|top[- ]?up|money|purchase|transaction|identity"
            r"|balance)\b",
            t,
            re.I,
        )
    ),
    "cards": lambda t: bool(re.search(r"\bmy (?:\w+ ){0,3}card\b", t, re.I)),
}

# Openings of a clause of doing, before which "On Debian," may stand.
_DOING = re.compile(
    r"(?:How (?:do|can|would|should|does)|What's the|What would I|What command|What do I"
    r"|Which command|Is there|I (?:need|want|have) to|I'd like to|I'm trying to|\{do\}"
    r"|My script)"
)
_ASKABLE = re.compile(
    r"(?:How|What|Which|Is|Can|Could|Would|Will|Please|Do|Are|\{do\}|Show|Write|Give|I |I'|Help|Walk|Tell)"
)
_KEYWORDS = re.compile(
    r"\b(?:bash|shell|scripts?|command line|commands?|one-liners?|terminal|servers?|remote"
    r"|ssh|linux|unix|ubuntu|debian|fedora|macos|standard"
    r"|cron|installing|dependencies|show|machine|script|way|box|portable|example|help\w*"
    r"|thank\w*|appreciated?|explain\w*|explanation|simple\w*|tutorial"
    r"|exercis\w+|appreciate|please|question|guide|session|training|knowledge|code"
    r"|handbook|language|short|brief|project|docs"
    r"|how)\b",
    re.I,
)
_LOCATIVE = re.compile(
    r"^(?P<head>(?:recursively )?(?:find|locate|list|display|show|print|search for"
    r"|look for|count|delete|remove) (?:(?! and | or |,).){3,60}?)"
    r" (?P<where>(?:in|under|within|below|beneath|inside) (?:the (?:current"
    r"|working)(?: working)? (?:directory|folder)|§+ (?:directory|folder)"
    r"|(?:the )?(?:directory|folder) §+|the home directory|the entire file system))(?: tree)?"
    r"(?P<rest>(?: (?:which|that|whose|with|ending|starting|containing|named|larger|bigger"
    r"|modified|owned|excluding|except)\b.*)?)$"
)


# ---------------------------------------------------------------- building one candidate


@dataclass
class _Workshop:
    """The state of one false positive's rewriting: what was read, what may vary, and the generator of chance."""

    sources: list[tuple[Parsed, str]]
    rng: np.random.Generator
    lexicons: Lexicons
    book: Book

    def pick(self, items: Sequence[Any]) -> Any:
        """Return one of `items` at random."""
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        """Return True with probability `p`."""
        return bool(self.rng.random() < p)


def rewrites(
    fp: str,
    *,
    n: int,
    rng: np.random.Generator,
    lexicons: Lexicons,
    category: str | None = None,
    language: str = "en",
) -> list[Grown]:
    """Return up to `n` rewrites of `fp`, the most different families of frames first.

    Every two results, and each and `fp`, have a Jaccard similarity of character 5-grams below 0.8. A prompt that was
    cut ("...") and one of a single word give none; one that cannot be read safely gives fewer than `n`.

    Args:
        fp: the text of one false positive.
        n: how many at most.
        rng: draws everything.
        lexicons: what mentions may be swapped for.
        category: what the false positive was about, if known.
        language: what `crywolf.data.language.identify` takes the text for. One in another language than English gives
            a few texts around it in its own language, none where there are no frames of that; an undetermined one
            (`und`) is English if it is ASCII.
    """
    if n < 1 or not is_utterance(fp) or (len(fp) == _CUT_LENGTH and fp.endswith("...")):
        return []
    if not is_english(fp, language):
        return _native_rewrites(fp, n, rng, category, language)
    shop = _Workshop(_sources(fp, category, rng, lexicons), rng, lexicons, book())
    parsed = shop.sources[0][0]
    kept = _Kept(fp)
    out: list[Grown] = []
    decks = _Decks(shop, parsed)
    for _ in range(8 * n + 40):
        if len(out) == n:
            break
        family = decks.next_family()
        if family is None:
            break
        made = _swapped(shop, fp) if family == "swap" else _framed(shop, decks.next_frame(family))
        if made is None or not _sound(made.text, fp) or not kept.add(made.text):
            continue
        out.append(replace(made, category=_grown_category(parsed), subcategory=family))
    return out


def _native_rewrites(fp: str, n: int, rng: np.random.Generator, category: str | None, language: str) -> list[Grown]:
    """Return the text between openings, situations and thanks of its own language."""
    native, whole = book().natives.get(language), fp.strip()
    if native is None or len(whole) > _LONGEST_WHOLE:
        return []
    lower = whole == whole.lower()
    if not _is_ended(whole):
        whole += native.ask if native.asks.search(whole) else native.stop
    parsed = Parsed("whole", whole, domain_of(fp, category), lower)
    usable = [f for frames in native.families.values() for f in frames if _usable(f, parsed)]
    heads = [f for f in usable if not f.text.startswith("{whole}")]
    tails = [f for f in usable if f.text.startswith("{whole}")]
    # one alone first, then an opening with an ending, which a longer text needs to differ enough
    singles = [[usable[i]] for i in rng.permutation(len(usable))]
    pairs = [[head, tail] for head in heads for tail in tails]
    kept = _Kept(fp)
    out: list[Grown] = []
    for chosen in (*singles, *(pairs[i] for i in rng.permutation(len(pairs)))):
        text = whole
        for frame in chosen:
            text = _placed(frame.text.lower() if lower else frame.text, text)
        if len(out) < n and kept.add(text):
            how = f"rewrite:whole/{language}," + ",".join(frame.name for frame in chosen)
            out.append(Grown(text, how, "rewrite", _grown_category(parsed), chosen[0].family))
    return out


def _sources(fp: str, category: str | None, rng: np.random.Generator, lexicons: Lexicons) -> list[tuple[Parsed, str]]:
    """Return the reading of the prompt and of some copies of it with a mention swapped, each with its note."""
    first = parse(fp, category)
    out = [(first, "")]
    if first.kind in {"role", "math"} or len(fp) > 600:
        return out
    for _ in range(5):
        swapped = swap_once(fp, rng=rng, lexicons=lexicons)
        if swapped is None:
            break
        again = swap_once(swapped[0], rng=rng, lexicons=lexicons) if rng.random() < 0.3 else None
        text, note = swapped
        if again is not None and again[1].split(":")[0] != note.split(":")[0]:
            text, note = again[0], f"{note}+{again[1]}"
        other = parse(text, category)
        if other.kind == first.kind:
            out.append((other, note))
    return out


class _Decks:
    """Deals families in turn and the frames of a family in random order, each before any comes again."""

    def __init__(self, shop: _Workshop, parsed: Parsed) -> None:
        self._shop = shop
        usable = {
            family: [f for f in frames if _usable(f, parsed)]
            for family, frames in shop.book.frames[parsed.kind].items()
        }
        self._frames = {family: frames for family, frames in usable.items() if frames}
        self._left: dict[str, list[Frame]] = {}
        # a family takes turns in proportion to what it has to offer
        self._turns = [family for family, frames in self._frames.items() for _ in range(1 + (len(frames) > 8))]
        if len(shop.sources) > 1:
            self._turns.append("swap")
        self._round: list[str] = []

    def next_family(self) -> str | None:
        """Return the family whose turn it is, None where there is none at all."""
        if not self._round:
            order = self._shop.rng.permutation(len(self._turns))
            self._round = [self._turns[i] for i in order]
        return self._round.pop() if self._round else None

    def next_frame(self, family: str) -> Frame:
        """Return the next frame of `family`."""
        if not self._left.get(family):
            frames = self._frames[family]
            self._left[family] = [frames[i] for i in self._shop.rng.permutation(len(frames))]
        return self._left[family].pop()


def _usable(frame: Frame, parsed: Parsed) -> bool:
    if frame.domains and parsed.domain not in frame.domains:
        return False
    if frame.verbs and parsed.verb not in frame.verbs:
        return False
    if frame.slot == "whole" and len(parsed.text) > _LONGEST_WHOLE:
        return False
    text = _subject(parsed)
    if any(_CONDITIONS[name](text) for name in frame.avoid) or (frame.only and not _CONDITIONS[frame.only](text)):
        return False
    masked = mask(text)
    if frame.single and re.search(r"\band\b", masked):
        return False
    if (frame.short or frame.family == "title") and (
        len(text) > (60 if frame.short else 90) or parsed.tail or parsed.attached
    ):
        return False
    return parsed.kind != "task" or not _clash(frame.text, masked)


def _subject(parsed: Parsed) -> str:
    """Return the part of the prompt that conditions look at."""
    if parsed.kind in {"get", "noun"}:
        return parsed.np
    if parsed.kind == "ask":
        return parsed.emb or parsed.direct
    return parsed.vp or parsed.text


def _clash(a: str, *others: str) -> bool:
    """Say whether one piece of a sample repeats a telling word of the others ("a bash command that runs a command")."""
    words = _telling(a)
    return bool(words) and any(not words.isdisjoint(_telling(other)) for other in others)


# words that say the same thing twice when they meet
_SAME = {
    "one-liner": "command",
    "terminal": "command line",
    "explanation": "explain",
    "appreciated": "thank",
    "help": "thank",
    "appreciate": "thank",
    "installing": "standard",
    "dependencie": "standard",
}


@lru_cache(maxsize=16384)
def _telling(text: str) -> frozenset[str]:
    words = (word.lower().rstrip("s") for word in _KEYWORDS.findall(text))
    return frozenset(_SAME.get(word, word) for word in words)


def _swapped(shop: _Workshop, fp: str) -> Grown | None:
    """Return the prompt itself with one or two mentions swapped and its wording edited."""
    parsed, note = shop.pick(shop.sources[1:])
    if parsed.kind in {"whole", "role", "math"} or "\n" in parsed.text:
        return None
    text = _edited(shop, parsed.text, parsed)
    return Grown(text + (f"\n{parsed.attached}" if parsed.attached else ""), f"swap:{note}", "swap")


def _framed(shop: _Workshop, frame: Frame) -> Grown | None:
    parsed, note = shop.sources[0] if len(shop.sources) == 1 or shop.chance(0.6) else shop.pick(shop.sources[1:])
    if frame.slot == "whole":
        return _carried(shop, frame, parsed, note)
    phrase, front = _phrase(shop, frame, parsed)
    if not phrase or (frame.slot == "do" and _echoes(frame, phrase)):
        return None
    lower = parsed.lower and shop.chance(0.85 if parsed.domain == "assistant" else 0.6)
    text, marks = _assembled(shop, frame, parsed, phrase, front, lower)
    if not text:
        return None
    if parsed.attached:
        text = f"{text}\n{parsed.attached}"
    how = ",".join([f"{frame.kind}/{frame.name}", *marks, *([note] if note else [])])
    return Grown(text, f"rewrite:{how}", "rewrite")


def _echoes(frame: Frame, phrase: str) -> bool:
    """Say whether a frame already says the verb of the phrase ("show me how to show ...")."""
    first = phrase.split(" ", 1)[0].lower()
    return len(first) > 3 and bool(re.search(rf"\b{re.escape(first)}\b", frame.text.lower()))


# ---------------------------------------------------------------- phrases


def _phrase(shop: _Workshop, frame: Frame, parsed: Parsed) -> tuple[str, str]:
    """Return what goes into the slot, in its form ("" if it has none), and an adverbial that must stand in front."""
    if frame.slot in {"do", "doing", "does"}:
        return _verb_phrase(shop, frame, parsed)
    if frame.slot == "np":
        return _edited(shop, parsed.np, parsed), parsed.front
    if frame.slot == "a":
        return (f"{article(parsed.np)} {decap(parsed.np)}" if parsed.np else ""), ""
    return (parsed.emb if frame.slot == "emb" else parsed.direct), parsed.front


def _verb_phrase(shop: _Workshop, frame: Frame, parsed: Parsed) -> tuple[str, str]:
    vp, front = _edited(shop, parsed.vp, parsed), parsed.front
    if parsed.kind == "task":
        if parsed.context and parsed.context.lower() not in vp.lower():
            front = front or f"in {parsed.context}"
        if not front and parsed.domain == "shell" and _DOING.match(frame.text) and shop.chance(0.3):
            vp, front = _fronted(vp)
    if parsed.tail:
        joined = _join_tail(vp, parsed.tail) if frame.slot == "do" else ""
        vp = joined or vp
    form = {"do": "base", "doing": "gerund", "does": "third"}[frame.slot]
    return inflect_phrase(vp, form) or "", front


def _fronted(vp: str) -> tuple[str, str]:
    """Move a place from inside a phrase to its front ("find all files in X which ..." -> "in X" and the rest)."""
    match = _LOCATIVE.match(mask(vp))
    if not match or re.search(r"\b(?:in|under|within|below)\b", match["head"][8:]):
        return vp, ""
    start, end = match.span("where")
    tree = re.match(r" tree", vp[end:])
    where_end = end + (tree.end() if tree else 0)
    return (vp[: match.end("head")] + vp[where_end:]).strip(), vp[start:where_end]


def _join_tail(vp: str, tail: str) -> str:
    """Return the phrase with a following imperative sentence joined to it, "" where the tail is something else."""
    if len(sentences(tail)) > 1 or not tail.endswith(".") or tail.endswith(" ."):
        return ""
    if tail.startswith(("Do not ", "Don't ")):
        return f"{vp}, and {decap(tail).rstrip('.')}"
    word = re.match(r"(?:Then )?([A-Z][a-z]+) ", tail)
    if not word or not is_verb(word[1]):
        return ""
    return f"{vp}, then {decap(re.sub(r'^Then ', '', tail)).rstrip('.')}"


def _edited(shop: _Workshop, phrase: str, parsed: Parsed) -> str:
    """Return `phrase` with some of the edits that fit it."""
    out = decap(phrase)
    restore = phrase[:1].isupper() and out != phrase
    fitting = _fitting_edits(out, parsed.domain)
    for i in shop.rng.permutation(len(fitting)):
        edit = shop.book.edits[fitting[i]]
        if shop.chance(0.5):
            out = sub_masked(edit.match, shop.pick(edit.to), out, count=1)
    return out[:1].upper() + out[1:] if restore else out


@lru_cache(maxsize=4096)
def _fitting_edits(phrase: str, domain: str) -> tuple[int, ...]:
    """Return the numbers of the embedded edits that fit `phrase`."""
    masked = mask(phrase)
    return tuple(
        i
        for i, edit in enumerate(book().edits)
        if domain in edit.domains
        and edit.match.search(masked)
        and not (edit.never is not None and edit.never.search(masked))
    )


# ---------------------------------------------------------------- sentences


def _assembled(
    shop: _Workshop, frame: Frame, parsed: Parsed, phrase: str, front: str, lower: bool
) -> tuple[str, list[str]]:
    """Put phrase, frame, tail and context together; "" where they do not fit one another."""
    pattern, marks = frame.text, []
    if front:
        opens = _DOING if parsed.kind == "task" else _ASKABLE
        if frame.family in {"title", "document"} or not opens.match(pattern):
            return "", []
        marks.append("front")
    else:
        front, mark = _where(shop, frame, parsed, phrase)
        marks += mark
    if parsed.plural and "{is}" in pattern:
        pattern = pattern.replace("{is}", "are")
    pattern = pattern.replace("{is}", "is")
    if front:
        pattern = f"{front[0].upper()}{front[1:]}, {_decap_frame(pattern)}"
    before, after = _around(shop, frame, parsed, (pattern, mask(phrase), mask(parsed.tail)))
    marks += (["why"] if before else []) + (["note"] if after else [])
    if lower:
        pattern, before, after = (_lowered(part, front) for part in (pattern, before, after))
    body = _filled(pattern, phrase, lower)
    if body is None:
        return "", []
    if parsed.tail and decap(parsed.tail).rstrip(".") not in phrase:
        body = f"{_closed(body)} {parsed.tail}"
    if after:
        body = _closed(body)
        body = f"{body}\n{after}" if body.endswith(FENCE) else f"{body} {after}"
    return _finished(f"{before} {body}" if before else body, lower, shop), marks


def _decap_frame(pattern: str) -> str:
    return pattern if pattern.startswith(("I ", "I'", "{")) else pattern[0].lower() + pattern[1:]


def _lowered(text: str, front: str) -> str:
    """Lower a frame's own words; slots and what a prompt itself put in front keep their letters."""
    if front and text.lower().startswith(front.lower()):
        return text[: len(front)][0].lower() + text[1 : len(front)] + text[len(front) :].lower()
    return text.lower()


def _filled(pattern: str, phrase: str, lower: bool) -> str | None:
    """Put `phrase` into the slot of `pattern` with the right capital and no doubled punctuation; None if it can't."""
    match = _SLOT.search(pattern)
    if match is None:
        return None
    head, rest = pattern[: match.start()], pattern[match.end() :]
    if not lower:
        phrase = sub_masked(re.compile(r"\bi\b(?=[' ]|$)"), "I", phrase)
        if not head or re.search(r"[.?!]\s*$", head):
            phrase = phrase[:1].upper() + phrase[1:] if mask(phrase)[:1] != BLOT else phrase
    if re.search(r"\s\.{1,2}$", phrase) or phrase.endswith(FENCE):
        # the phrase ends in the name of the current directory or in code: a full stop would read as part of it
        if rest not in ({".", "?", ""} if phrase.endswith(FENCE) else {".", ""}):
            return None
        rest = ""
    return head + phrase + rest


def _closed(body: str) -> str:
    """Give a body the full stop that lets a sentence follow, unless it has its own end."""
    return body if body.endswith((*END_MARKS, FENCE)) else body + "."


def _where(shop: _Workshop, frame: Frame, parsed: Parsed, phrase: str) -> tuple[str, list[str]]:
    context = _context(shop, parsed)
    if not context.where or frame.family in {"title", "document"} or not _DOING.match(frame.text):
        return "", []
    if not shop.chance(0.35 if len(phrase) < 60 else 0.5):
        return "", []
    where = _with_os(shop, shop.pick(context.where))
    if (
        _clash(where, frame.text, mask(phrase))
        or _mentions_system(parsed.text)
        or re.search(r"\b(?:on|from) (?:the|a|my) (?:server|host)", phrase)
    ):
        return "", []
    return where, ["where"]


_SYSTEM = re.compile(
    r"\b(?:linux|unix|ubuntu|debian|fedora|centos|mac|macos|freebsd|windows|solaris|gnu"
    r"|server|host|remote|ssh)\b",
    re.I,
)


@lru_cache(maxsize=8192)
def _mentions_system(text: str) -> bool:
    return bool(_SYSTEM.search(text))


def _context(shop: _Workshop, parsed: Parsed) -> Context:
    contexts = shop.book.contexts
    return contexts.get(f"{parsed.kind}.{parsed.domain}") or contexts.get(parsed.kind) or Context()


def _around(shop: _Workshop, frame: Frame, parsed: Parsed, body: tuple[str, ...]) -> tuple[str, str]:
    """Return a sentence to stand before and one to stand after, either may be ""; longer prompts get more of them."""
    context = _context(shop, parsed)
    before = after = ""
    size = sum(map(len, body))
    if frame.family == "title" or (parsed.kind == "get" and not shop.chance(0.5)):
        return "", ""
    if context.why and frame.family != "document" and shop.chance(0.15 if size < 70 else 0.3 if size < 140 else 0.6):
        before = _fitting(shop, context.why, body)
    asks = context.asks if frame.family == "statement" and "how to" not in frame.text else ()
    notes = context.notes + (context.writing if _WRITING.search(mask(parsed.text)) else ())
    options = (*asks, *asks, *notes)
    if options and shop.chance((0.2 if size < 50 else 0.45 if size < 140 else 0.75) * (0.5 if before else 1)):
        after = _fitting(shop, options, (before, *body))
    return before, after


def _fitting(shop: _Workshop, options: Sequence[str], body: tuple[str, ...]) -> str:
    """Return one of `options` that repeats no telling word of `body`, "" if three draws find none."""
    for _ in range(3):
        text = shop.pick(options)
        if "{os}" in text and any(map(_mentions_system, body)):
            continue
        filled = _with_os(shop, text)
        if not _clash(filled, *body):
            return filled
    return ""


def _with_os(shop: _Workshop, text: str) -> str:
    if "{os}" not in text:
        return text
    systems = [e for e in shop.lexicons.entries("os") if "os:unix" in e.tags]
    name = shop.pick(systems).text
    if "server" in text:
        name = shop.pick([e for e in systems if "os:linux" in e.tags]).text
    article_fixed = re.sub(
        r"\b([Aa]) \{os\}", lambda m: f"{article(name) if m[1] == 'a' else article(name).capitalize()} {name}", text
    )
    return article_fixed.replace("{os}", name)


def _finished(text: str, lower: bool, shop: _Workshop) -> str:
    """Give the text the capital and the final punctuation of its style."""
    text = text.strip()
    if lower:
        stopped = text.endswith((".", "。", "।")) and not re.search(r"\s\.$|[.…]\.$", text)
        if stopped or (text.endswith(("?", "？", "؟")) and shop.chance(0.4)):
            text = text[:-1]
        return text
    return text[0].upper() + text[1:] if mask(text)[0] != BLOT else text


# ---------------------------------------------------------------- prompts carried whole


def _carried(shop: _Workshop, frame: Frame, parsed: Parsed, note: str) -> Grown | None:
    """Carry the whole prompt in `frame`; a long one gets a closing too, or only its first sentences."""
    whole, part = _portion(shop, parsed)
    lower = parsed.lower
    ended = _ended(_edited(shop, whole, parsed), parsed)
    pattern = frame.text.lower() if lower else frame.text
    after = pattern[_SLOT.search(pattern).end() :] if _SLOT.search(pattern) else ""  # type: ignore[union-attr]
    if not after.strip() and ended.endswith(".") and lower:
        ended = ended[:-1]
    if not pattern.startswith("{whole}"):
        ended = _without_greeting(ended)
    if re.search(r"[A-Za-z], \{whole\}|, but \{whole\}", pattern):
        ended = decap(ended)
    text = _placed(pattern, ended)
    families = shop.book.frames[parsed.kind]
    ending = "plea" if "plea" in families else "closing"
    closings = families.get(ending, ())
    marks = [f"{frame.kind}/{frame.name}", *part]
    fitting = [f for f in closings if _usable(f, parsed)]
    if fitting and frame.family != ending and len(whole) > 60 and shop.chance(0.75):
        closing = shop.pick(fitting)
        text = _placed(closing.text.lower() if lower else closing.text, text)
        marks.append(closing.name)
    if _clash(pattern, mask(whole)) and parsed.kind not in {"whole", "role"}:
        return None
    if parsed.attached and "\n" not in whole:
        text = f"{text}\n{parsed.attached}"
    return Grown(text, "rewrite:" + ",".join([*marks, *([note] if note else [])]), "rewrite")


def _without_greeting(text: str) -> str:
    """Drop the greeting of a message that is introduced by something else."""
    cut = GREETING.sub("", text)
    return text if cut == text else cut[:1].upper() + cut[1:] if text[:1].isupper() else cut


def _ended(whole: str, parsed: Parsed) -> str:
    """Give a whole prompt the final punctuation that lets another sentence follow."""
    whole = whole.rstrip()
    if _is_ended(whole) or mask(whole)[-1] == BLOT:
        return whole
    question = re.match(r"(?:what|who|where|when|why|how|which|can|could|would|will|do|does|is|are|may)\b", whole, re.I)
    return whole + ("?" if question else ".")


def _is_ended(text: str) -> bool:
    """Say whether a text ends in a mark of any language, a bracket, a quotation mark or a closing code fence."""
    return bool(re.search(rf"(?:[{_ENDS}:;)\"'\]}}”’»」』）】：；]|{FENCE})$", text))


def _placed(pattern: str, whole: str) -> str:
    """Put `whole` into `pattern`; what stands beside a code fence gets a line of its own."""
    head, _, rest = pattern.partition("{whole}")
    if head and whole.startswith(FENCE):
        head = head.rstrip() + "\n"
    if rest and whole.endswith(FENCE):
        rest = "\n" + rest.lstrip()
    return head + whole + rest


def _portion(shop: _Workshop, parsed: Parsed) -> tuple[str, list[str]]:
    """Return the prompt, or for a long one of plain prose sometimes its first sentences."""
    text = parsed.text
    if _DEFIANT.search(text) or len(text) < 450 or "\n" in text.strip() or not shop.chance(0.6):
        return text, []
    parts = sentences(text)
    if len(parts) < 4:
        return text, []
    k = int(shop.rng.integers(max(2, len(parts) // 2), len(parts)))
    kept = " ".join(parts[:k])
    balanced = kept.count('"') % 2 == 0 and kept.count("(") == kept.count(")")
    return (kept, [f"first{k}"]) if balanced and kept.endswith((".", "?", "!")) else (text, [])


# ---------------------------------------------------------------- what is kept


class _Kept:
    """The shingles of the prompt and of what was accepted, to keep near-duplicates out."""

    def __init__(self, fp: str) -> None:
        self._sets = [_shingles(fp)]

    def add(self, text: str) -> bool:
        """Accept `text` unless it is a near-duplicate of the prompt or of an accepted text."""
        new = _shingles(text)
        size = len(new)
        for old in self._sets:
            low, high = (size, len(old)) if size < len(old) else (len(old), size)
            if low < _THRESHOLD * high:
                continue
            common = len(new & old)
            if common >= _THRESHOLD * (size + len(old) - common):
                return False
        self._sets.append(new)
        return True


def _shingles(text: str) -> frozenset[str]:
    folded = " ".join(text.lower().split())
    return frozenset(folded[i : i + 5] for i in range(len(folded) - 4)) or frozenset((folded,))


_BAD = re.compile(
    r"[?!,:;]\s*[?!,.:;]|[。？！؟।]\s*[?!,.:;。？！؟।]|…\.|(?<!\.)\.\s*[?!,:;]|\s[,:;?!](?=\s|$)|\(\s*\)|\b(a|an|the|to|of"
    r"|in|is|and|for|my|please)\s+\1\b",
    re.I,
)


def _sound(text: str, fp: str) -> bool:
    """Say whether a sample shows no slip of assembly that the prompt itself did not have."""
    masked = mask(text)
    if _BAD.search(masked) and not _BAD.search(mask(fp)):
        return False
    if len(re.findall(r"\bplease\b", masked, re.I)) > max(1, len(re.findall(r"\bplease\b", fp, re.I))):
        return False
    return len(re.findall(r"\bthank", masked, re.I)) <= 1 and "{" not in _new_braces(masked, fp)


def _new_braces(masked: str, fp: str) -> str:
    return "" if "{" in fp else masked


_CATEGORY = {"shell": "legitimate_programming", "code": "legitimate_programming", "security": "legitimate_educational"}


def _grown_category(parsed: Parsed) -> str:
    if parsed.kind == "math":
        return "legitimate_educational"
    return _CATEGORY.get(parsed.domain, "generic_variation")
