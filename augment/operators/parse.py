"""Reads a prompt far enough to say it again: what kind of utterance it is, and which phrase of it a frame may carry.

Takes the text of a false positive (and its category, if known) and gives a `Parsed`: a base verb phrase, a noun phrase,
an embedded question or the whole text, with whatever must be kept beside it (following sentences, attached code). Where
the text cannot be read safely the kind is "whole": a frame may then quote it, never take it apart. All patterns run on
a mask of the text in which quotations, paths and code are blotted out, so that nothing inside them is ever touched.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from crywolf.data.embedded.grammar import read_yaml
from crywolf.data.embedded.lexicons import FRAMES
from crywolf.data.errors import BadInput

from .inflect import (
    NOUN_LIKE,
    PHRASAL,
    PLURAL_NOUNS,
    Form,
    base_of_gerund,
    base_of_third,
    can_be_verb,
    inflect,
    is_plural,
    is_prefixed,
    is_verb,
)

Kind = Literal["task", "assist", "user", "artifact", "get", "ask", "statement", "noun", "role", "math", "whole"]
Domain = Literal["shell", "code", "assistant", "security", "general"]

BLOT = "§"
FENCE = "```"
END_MARKS = ".?!…。？！؟।"
"""What a sentence may end with, in the languages that there are frames for."""

_QUOTED = re.compile(
    r"```.*?```|\"(?:[^\"\\\n]|\\.)*\"|`[^`\n]*`|“[^”\n]*”|(?<![\w§])'(?:[^'\\\n]|\\."
    r"|(?<=\w)'(?=\w))*'(?![\w§])",
    re.S,
)
_CODE = re.compile(
    r"\S*[/\\$*=<>|_@#{}~^\[\]%+]\S*|(?<!\S)[.-][\w.-]+|(?<!\S)\.{1,2}(?=\s|$)"
    r"|\S*\w\.[A-Za-z]\w*\S*|\S*\d[A-Za-z]\S*|\S*[A-Za-z]\d\S*|\S+\(\)\S*|\d[\d.,:-]*\d"
    r"|(?<!\w)&(?!\w)"
)
_PROSE_SLASH = re.compile(
    r"[A-Za-z]+(?:[-'][A-Za-z]+)*(?:/[A-Za-z]+)+[,.;:)?!]*|[$]?\d[\d,]*(?:st|nd|rd"
    r"|th)?[,.;:)?!]*|\d+(?:MB|GB|KB|TB|kb|mb|gb|k|K|M|G)[,.;:)?!]*|401k|w2|W2|C\+\+|C#"
    r"|[a-z]+[.]{2,}|\d+-\w+,?"
)
_TRAILING = ",.;:)?!"
_SENTENCE_END = re.compile(r"(?<=[\w§\")'\]])([.?!]+)(?=\s+[\"'(§A-Z0-9]|\s*$)|(?<=[\w§])(\?+)(?=\s)")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Mr|Mrs|Dr|St|No|approx|incl|resp)\.?$", re.I)


@dataclass(frozen=True)
class Parsed:
    """What of a prompt a frame may use; exactly the fields that its `kind` needs are set."""

    kind: Kind
    text: str
    domain: Domain
    lower: bool
    vp: str = ""
    np: str = ""
    emb: str = ""
    direct: str = ""
    verb: str = ""
    tail: str = ""
    attached: str = ""
    context: str = ""
    front: str = ""
    plural: bool = False


# ---------------------------------------------------------------- languages

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
# Han, Kana and Hangul: scripts that say in four characters what others say in two words
_DENSE = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def is_english(text: str, language: str = "en") -> bool:
    """Say whether English words may be put into `text`, given what its language was taken for.

    An undetermined text (`und`) passes if it is ASCII; one that is mostly in other letters never does.
    """
    if language == "und":
        return text.isascii()
    if language != "en":
        return False
    if text.isascii():
        return True
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(c.isascii() for c in letters) >= len(letters)


def is_utterance(text: str) -> bool:
    """Say whether there is anything to rewrite: two words, or four characters of a script without blanks."""
    words = [word for word in _WORD.findall(_DENSE.sub(" ", text)) if any(map(str.isalpha, word))]
    return len(words) >= 2 or len(_DENSE.findall(text)) >= 4


# ---------------------------------------------------------------- masks


@lru_cache(maxsize=65536)
def mask(text: str) -> str:
    """Return `text` with quotations, paths, options and code blotted out, character for character."""

    def blot(match: re.Match[str]) -> str:
        return BLOT * len(match[0])

    def blot_code(match: re.Match[str]) -> str:
        token = match[0]
        if _PROSE_SLASH.fullmatch(token.lstrip("(")):
            return token
        body = token.rstrip(_TRAILING)
        return BLOT * len(body) + token[len(body) :] if body else BLOT * len(token)

    return _CODE.sub(blot_code, _QUOTED.sub(blot, text))


def sub_masked(pattern: re.Pattern[str], to: str, text: str, count: int = 0) -> str:
    """Substitute `pattern` in the unmasked prose of `text`; groups that hold blots are copied from the text itself."""
    out, last, done = [], 0, 0
    for match in pattern.finditer(mask(text)):
        if count and done >= count:
            break
        out += [text[last : match.start()], _expand(to, match, text)]
        last, done = match.end(), done + 1
    return "".join([*out, text[last:]]) if done else text


def _expand(to: str, match: re.Match[str], text: str) -> str:
    def group(ref: re.Match[str]) -> str:
        start, end = match.span(int(ref[1]))
        return text[start:end] if start >= 0 else ""

    filled = re.sub(r"\\(\d)", group, to)
    head = text[match.start() : match.start() + 1]
    # a replacement at the head of a sentence keeps the capital of what it replaces
    return filled[:1].upper() + filled[1:] if head.isupper() and filled[:1].islower() and match.start() == 0 else filled


def fold(text: str) -> str:
    """Fold runs of blanks outside quotations and code into one, and drop those at the ends."""
    return sub_masked(re.compile(r"[ \t]{2,}"), " ", text).strip()


def sentences(text: str) -> list[str]:
    """Split one paragraph into sentences, at ends that are outside quotations and follow no abbreviation."""
    masked, out, start = mask(text), [], 0
    for match in _SENTENCE_END.finditer(masked):
        if _ABBREVIATION.search(masked[start : match.end()].rstrip("?!")) and match[0] == ".":
            continue
        out.append(text[start : match.end()].strip())
        start = match.end()
    rest = text[start:].strip()
    return [s for s in [*out, rest] if s]


def decap(text: str) -> str:
    """Lower the first letter of `text` unless its first word is "I", an acronym, a name in capitals or code."""
    word = re.match(r"[A-Za-z']+", text)
    if not word or word[0] == "I" or word[0].startswith("I'") or any(c.isupper() for c in word[0][1:]):
        return text
    return text if mask(text)[0] == BLOT else text[0].lower() + text[1:]


# ---------------------------------------------------------------- verb phrases

_CONJ = re.compile(
    r"(?:,? (?:and|or|but)(?: then| also)?|,? then|,|;|§&§?| &)\s+((?:[a-z]+ly|also|then"
    r"|finally|just) )?(?P<verb>[a-z]+)\b"
    r"(?P<next>\s+\S+)?"
)
_OBJECT = re.compile(
    r"\s+(?:them|it|the|all|each|every|their|its|any|those|these|only|a|an|both|his|her|my|your|me|him|everything"
    r"|if|whether|out|up|for|as|into|to|from|on|in)\b"
)
_STRICT_OBJECT = re.compile(r"\s+(?:them|it|the|all|each|every|their|its|any|those|these|a|an|my|your|me|him|§)")
# "and zap the log": what is neither a small word nor the form of a plural or participle can only be a verb here
_VERB_PLACE = re.compile(
    r"(?:,? (?:and|or|but)(?: then| also)?|,? then|;) "
    r"(?!(?:a|about|above|after|all|also|any|are|as|at|before|below|beneath|both|by"
    r"|during|each|even|every|for|from|her|his|how|if|in|inside|into|is|its|just|my|not|on|only|or|our|over|per|so|than|that|the|their"
    r"|then|these|this|those|to|under|until|was|were|what|when|where|which|while|who|with|within|without|your|yet) )"
    r"(?:[a-z]+ly )?[a-z]*[a-rt-z](?<!ing)(?<!ed)(?<!ly) (?:them|it|the|a|an|its|their|these|those|your|my)"
)
_ADVERB = re.compile(r"((?:[A-Za-z]+ly(?: and [a-z]+ly)?|just|always|also|first|then) )")
_NESTED = re.compile(
    r"\b(?:to|can|could|will|would|should|must|may|which|who|that|not|i|we|they|you) (?:[a-z]+ly )?([a-z]+)\b"
)


@dataclass(frozen=True)
class Head:
    """A verb of a verb phrase that takes the form of the whole: its place and its base form."""

    start: int
    end: int
    base: str


def heads(vp: str, source: Form = "base") -> list[Head] | None:
    """Return the verbs of `vp` that inflect together, first verb first; None where coordination is ambiguous."""
    masked = mask(vp)
    adverb = _ADVERB.match(masked)
    start = adverb.end() if adverb else 0
    word = re.match(r"[A-Za-z]+", masked[start:])
    base = _to_base(word[0], source) if word else None
    if not word or base is None:
        return None
    found = [Head(start, start + word.end(), base)]
    for match in _CONJ.finditer(masked, start + word.end()):
        verdict = _conjunct(masked, match, source)
        if verdict is None:
            return None
        if verdict:
            found.append(Head(match.start("verb"), match.end("verb"), verdict))
    return found


def _to_base(word: str, source: Form) -> str | None:
    low = word.lower()
    if source == "third":
        return base_of_third(low)
    if source == "gerund":
        return base_of_gerund(low)
    return low if can_be_verb(low) or low in PHRASAL else None


def _conjunct(masked: str, match: re.Match[str], source: Form) -> str | None:
    """Return the base of a conjunct verb, "" where the word is no verb of this level, None where nobody can tell."""
    word, following = match["verb"], match["next"] or ""
    base = _to_base(word, source) if source != "base" else (word if is_verb(word) else None)
    if base is None:
        return _unknown_conjunct(masked, match) if source == "base" else ""
    if source == "base" and word in {"then", "all", "its", "back", "like", "last", "top"}:
        return ""
    before = masked[: match.start()]
    nested = any(can_be_verb(m[1]) for m in _NESTED.finditer(before))
    if source == "base":
        objectlike = _STRICT_OBJECT if word in NOUN_LIKE else _OBJECT
        if objectlike.match(following) or (word not in NOUN_LIKE and following):
            return None if nested else base
        return None
    return base if base not in PLURAL_NOUNS or _STRICT_OBJECT.match(following) else None


def _unknown_conjunct(masked: str, match: re.Match[str]) -> str | None:
    """Judge a conjunct that the list of verbs does not hold: a known verb behind a prefix counts as one ("rerun")."""
    word, following = match["verb"], match["next"] or ""
    if is_prefixed(word) and _OBJECT.match(following):
        nested = any(can_be_verb(m[1]) for m in _NESTED.finditer(masked[: match.start()]))
        return None if nested else word
    # any other base form before an object may be a verb; a word after "and" that no dictionary knows as one, too
    if can_be_verb(word):
        return None if _STRICT_OBJECT.match(following) else ""
    return None if _VERB_PLACE.fullmatch(masked[match.start() : match.end()]) else ""


@lru_cache(maxsize=65536)
def inflect_phrase(vp: str, form: Form, source: Form = "base") -> str | None:
    """Return `vp` with all its coordinated verbs in `form`, None where that cannot be done safely."""
    if form == source:
        return vp
    found = heads(vp, source)
    if found is None:
        return None
    out = vp
    for head in reversed(found):
        word = inflect(head.base, form)
        if word is None:
            return None
        out = out[: head.start] + word + out[head.end :]
    return out


def split_phrasal(vp: str) -> str:
    """Write verbs such as "backup" as the two words that they inflect as."""
    found = heads(vp)
    out = vp
    for head in reversed(found or []):
        if head.base in PHRASAL:
            out = out[: head.start] + PHRASAL[head.base] + out[head.end :]
    return out


# ---------------------------------------------------------------- questions

_AUX = r"am|are|is|was|were|can|could|will|would|should|must"
_PRONOUN = r"i|you|we|they|he|she|it"
_WH = r"what|which|who|whom|whose|when|where|why|how"
_WH_PRONOUN = re.compile(rf"^(?P<wh>(?:{_WH})\b(?: [\w'-]+){{0,6}}?) (?P<subject>{_PRONOUN}) (?P<rest>\S.*)$", re.I)
_WH_NOUN = re.compile(
    rf"^(?P<wh>{_WH}) (?P<subject>(?:my|your|the|this|that|his|her|their|our) (?:(?!(?:{_AUX})\b)[\w'-]+ ?){{1,5}}) "
    rf"(?P<aux>is|are|was|were|will|can|should|would|could)\b(?P<rest>(?: .*)?)$",
    re.I,
)
_CONTRACTED = {
    "i'm": "i am",
    "you're": "you are",
    "we're": "we are",
    "they're": "they are",
    "it's": "it is",
    "he's": "he is",
    "she's": "she is",
    "what's": "what is",
    "where's": "where is",
    "who's": "who is",
    "when's": "when is",
    "how's": "how is",
    "i've": "i have",
    "you've": "you have",
}


def expand_contractions(text: str) -> str:
    """Write "what's" as "what is", so that its verb can move."""

    def full(match: re.Match[str]) -> str:
        words = _CONTRACTED.get(match[0].lower(), match[0])
        return words.capitalize() if match[0][0].isupper() and words[0] != "i" else words

    return re.sub(r"\b[A-Za-z]+'[a-z]+\b", full, text)


def direct_question(emb: str) -> str:
    """Return the direct question for an embedded one ("what my name is" -> "what is my name"), "" if unsafe."""
    text = expand_contractions(emb)
    if text.lower().startswith(("if ", "whether ")):
        return _direct_polar(text.split(" ", 1)[1])
    if re.match(r"who (?:[a-z]+ed|made|built|wrote|sent|owns|can)\b", text, re.I):
        return text
    pronoun = _WH_PRONOUN.match(text)
    if pronoun:
        return _move_verb(pronoun["wh"], pronoun["subject"], pronoun["rest"])
    noun = _WH_NOUN.match(text)
    if noun and not re.search(r"\b(?:i|you|we|they|which|who|that)\b", noun["subject"], re.I):
        return f"{noun['wh']} {noun['aux']} {noun['subject'].strip()}{noun['rest']}"
    return ""


def _move_verb(wh: str, subject: str, rest: str) -> str:
    verb, _, after = rest.partition(" ")
    after = f" {after}" if after else ""
    if re.fullmatch(_AUX, verb, re.I):
        return f"{wh} {verb} {subject}{after}"
    if subject.lower() in {"i", "you", "we", "they"} and _present(verb):
        return f"{wh} do {subject} {verb}{after}"
    return ""


def _present(verb: str) -> bool:
    """Say whether a word after "i" or "you" is surely a verb in the present, which "do" may replace."""
    known = is_verb(verb) or verb in {"have", "need", "want", "think", "like", "mean", "own", "owe", "live", "prefer"}
    return known and verb not in {"put", "set", "read", "cut", "let", "shut", "split", "quit"}


def _direct_polar(clause: str) -> str:
    match = re.match(rf"({_PRONOUN}) ({_AUX})\b(.*)$", clause, re.I)
    if match:
        return f"{match[2].lower()} {match[1]}{match[3]}"
    match = re.match(r"(i|you|we|they) ([a-z]+)\b(.*)$", clause, re.I)
    if match and _present(match[2]):
        return f"do {match[1]} {match[2]}{match[3]}"
    return ""


_DO = re.compile(rf"^(?P<wh>(?:{_WH})\b.*?) do (?P<subject>i|you|we|they) (?P<verb>[a-z]+)\b(?P<rest>.*)$", re.I)
_AUX_PRONOUN = re.compile(rf"^(?P<wh>(?:{_WH})\b.*?) (?P<aux>{_AUX}) (?P<subject>{_PRONOUN})\b(?P<rest>.*)$", re.I)
_BE_NOUN = re.compile(
    r"^(?P<wh>what|who|where|when|how) (?P<be>is|are|was) (?P<subject>(?:my|your|the|this|that) [\w' -]+)$", re.I
)
_POLAR = re.compile(rf"^(?P<aux>{_AUX}) (?P<subject>{_PRONOUN})\b(?P<rest> .+)$", re.I)
_POLAR_DO = re.compile(r"^do (?P<subject>i|you|we|they)\b(?P<rest> .+)$", re.I)


def embedded_question(direct: str) -> str:
    """Return the embedded form of a direct question ("what is my name" -> "what my name is"), "" if unsafe."""
    text = expand_contractions(direct)
    low = text.lower()
    if re.match(r"who (?:[a-z]+ed|made|built|wrote|sent|owns|can|has)\b", low):
        return text
    for pattern, build in _EMBEDDERS:
        match = pattern.match(text)
        if match:
            return build(match)
    return ""


def _embed_be(match: re.Match[str]) -> str:
    subject = match["subject"].strip()
    if len(subject.split()) > 4 or re.search(r"\b(?:to|that|which|i|you|for|of)\b", subject):
        return ""
    return f"{match['wh']} {subject} {match['be']}"


_EMBEDDERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_DO, lambda m: f"{m['wh']} {m['subject']} {m['verb']}{m['rest']}"),
    (_AUX_PRONOUN, lambda m: f"{m['wh']} {m['subject']} {m['aux']}{m['rest']}"),
    (_BE_NOUN, _embed_be),
    (_POLAR, lambda m: f"if {m['subject']} {m['aux'].lower()}{m['rest']}"),
    (_POLAR_DO, lambda m: f"if {m['subject']}{m['rest']}"),
)

# ---------------------------------------------------------------- domains

_SHELL = re.compile(
    r"\b(?:files?|filenames?|director(?:y|ies)|folders?|sub-?(?:director(?:y|ies)"
    r"|folders?)|bash|shell|stdin|stdout|stderr"
    r"|standard (?:input|output|error)|permissions?|symlinks?|symbolic links?|inodes?"
    r"|crontabs?|cron|regex|ssh|rsync|grep|sed"
    r"|awk|xargs|tar|gzip|gunzip|path|archive|file ?systems?|mount|partition"
    r"|process(?:es)?|pid|hostname|host|server|ip"
    r"|variable|lines?|username|terminal|command|disk|kernel|linux|unix|apache|mysql|newlines?|environment|script"
    r"|mod_\w+|localhost|port|characters?)\b|\.(?:txt|log|sh|py|java|c|gz|tar|zip|html?"
    r"|php|jpg|conf|csv|xml)\b|/(?:etc|usr|var|home|tmp|bin|dev|path)\b",
    re.I,
)
_CODE_WORDS = re.compile(
    r"\b(?:function|program|class|method|algorithm|python|java|javascript|c\+\+|c#|php"
    r"|ruby|perl|swift|kotlin|sql|query|array"
    r"|string|api|html|css|react|node\.js|code|snippet|compiler|script|regex|wordpress"
    r"|database|sharepoint|jquery|\.net"
    r"|bash|plugin|json|xml|server|browser|dll|android|iphone|oracle|pl/sql)\b",
    re.I,
)
_SECURITY = re.compile(
    r"\b(?:prompt injection|jailbreak|phishing|guardrails?|red-team|system prompts?"
    r"|input validation|data privacy|api key"
    r"|access control|prompt design|prompt leakage|cybersecurity|security (?:engineer|guideline))\b",
    re.I,
)
_PERSONAL = re.compile(r"\b(?:my|me|your|you|i|i'm|yourself)\b", re.I)
_BY_CATEGORY: dict[str, Domain] = {
    "technical_docs": "shell",
    "daily_tasks": "assistant",
    "programming": "code",
    "professional": "assistant",
    "conversational": "assistant",
}


def domain_of(text: str, category: str | None) -> Domain:
    """Return the domain whose frames suit the text: its category decides where it is one of ours, else its words."""
    if _SECURITY.search(text):
        return "security"
    if category in _BY_CATEGORY:
        return _BY_CATEGORY[category]
    first = text[:400]
    if _ARTIFACT.match(first) or (_CODE_WORDS.search(first) and not _PERSONAL.search(first)):
        return "shell" if len(_SHELL.findall(first)) > 2 and not _ARTIFACT.match(first) else "code"
    if _SHELL.search(first) and not _PERSONAL.search(first):
        return "shell"
    return "assistant" if _PERSONAL.search(first) and len(first) < 200 else "general"


_ARTIFACT = re.compile(
    r"^(?:write|create|implement|develop|design|construct|compose|generate|craft|build"
    r"|devise|make|provide|draft|show(?: me)?|give me) "
    r"(?:an? |some |the )?[^.\n]{0,40}?\b(?:function|script|program|class|method|query"
    r"|code|snippet|algorithm|command|application|app|api|page|form|regex"
    r"|regular expression|one-liner|template|module|tool)\b",
    re.I,
)


# ---------------------------------------------------------------- wrappers

GREETING = re.compile(
    r"^(?:(?:hi|hello|hey|ok|okay|so|well|ai|alexa|siri|shh|whoa|dear assistant"
    r"|good morning)(?: there)?\b[,!.]*\s*)(?=\S)",
    re.I,
)
_TITLE_CONTEXT = re.compile(
    r"^(?P<context>bash|linux|shell|unix|wordpress|apache|php|sed|awk|terminal|mac os x|perl|sql)\s?(?::|-(?= ))\s*",
    re.I,
)
_REMARK = re.compile(r"^\((?P<remark>[A-Za-z -]{3,30})\)\s*")
_PLEASE_FRONT = re.compile(r"^(?:(?:please|kindly|just|now|let's|lets|also)[,.]?\s+)+", re.I)
_FRONT = re.compile(
    r"^(?P<front>(?:as root|(?:on|from|in) (?:§+|(?:host|server|machine|another|the|a|all)\b[^,]{0,40}))), (?=[a-z])",
    re.I,
)
_PLEASE_BACK = re.compile(
    r"(?:[,.!]?\s+(?:please if you would|if you please|please|thank you|thanks|thx|pls"
    r"|(?<!\bor )(?<!\ban )(?<!\bthe )ai))+\s*[.!?]*$",
    re.I,
)
_IN_LANGUAGE = re.compile(r"^(?P<context>(?i:in|using|with) [A-Z][\w+#.]*(?: [A-Z][\w+#.]*)?), (?=[A-Za-z])")

_WRAPPERS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.I), role)
    for pattern, role in (
        (
            r"^(?:i would like to know|i'd like to know|i want to know|i wanna know|i need to know"
            r"|i must know|i would like to find out"
            r"|i am wanting to know|do you know|do you mind (?:telling|informing) me|i wonder"
            r"|i was wondering|tell me|inform me|let me know|would you let me know"
            r"|(?:can|could|would|will) you (?:please )?(?:tell me|let me know|inform me|explain)"
            r"|please tell me|explain to me) (?=(?:if|whether|" + _WH + r")\b)",
            "ask",
        ),
        (r"^(?:can|could|would) you (?:please )?(?:help|assist) me (?:to |with )?", "user"),
        (r"^(?:please )?help me (?:to )?", "user"),
        (
            r"^(?:(?:can|could|would) you (?:please )?)?(?:(?:show|tell|teach|instruct) me|explain"
            r"|explain to me|demonstrate|walk me through)"
            r"(?: please)? how (?:to|do i|can i|i can|i could|i would|i should|would i) ",
            "user",
        ),
        (r"^(?:how|where) (?:do|can|would|should|could|might|may) (?:i|we|you|one) ", "user"),
        (r"^how does one ", "user"),
        (r"^how to ", "user"),
        (
            r"^(?:is there|is their) an?y? ?(?:easy |simple |good |better )?way (?:i can |i could "
            r"|for me to |to )",
            "user",
        ),
        (
            r"^(?:what is|what's|whats) (?:the|a) (?:best|easiest|fastest|right|correct|simplest"
            r"|good|proper) way (?:for me )?to ",
            "user",
        ),
        (r"^what (?:do i|should i|must i) (?:need to |have to )?do to ", "user"),
        (r"^i (?:need|want|would like|am needing) (?:for )?you to (?:please |immediately |immediatly )?", "assist"),
        (r"^i'd like (?:for )?you to (?:please )?", "assist"),
        (r"^i would like for you to ", "assist"),
        (
            r"^(?:i (?:really )?(?:want|need|have|would like|wish|am trying|am looking|got|gotta)"
            r"|i'd like|i'm trying|i'm looking|i have got) to ",
            "user",
        ),
        (r"^i (?:wanna|gotta|must|should) ", "user"),
        (r"^(?:can|could|will|would|may) you (?:please |kindly |just |be able to |go ahead and )*", "assist"),
        (r"^(?:go ahead and|be sure to|make sure to|feel free to|you need to|you should) ", "assist"),
        (r"^(?:are you able to|is it possible for you to) ", "assist"),
        (r"^(?:is it possible to|can i|could i|may i|am i able to) ", "user"),
    )
)
_MIND = re.compile(r"^(?:would|do) you mind (?=[a-z]+ing\b)", re.I)
_GET = re.compile(
    r"^(?:(?P<tell>tell me|inform me (?:of|on|about)|let me know|remind me of|i (?:want to"
    r"|need to|would like to|have to|wanna) know|i'd like to know|do you know|what is"
    r"|what's|what are|what was)"
    r"|(?P<show>show me|display|pull up|bring up|i (?:want|need|would like) to see|let me see)"
    r"|(?P<give>give me|provide me(?: with)?|provide|send me|get me|find me|i want|i need"
    r"|can i (?:get|have)|could i (?:get|have)|may i have)) "
    r"(?P<np>(?:the|my|your|a|an|all|some|any|this|that|his|her|their|popular|new|more"
    r"|instructions|directions|information|advice|help|assistance)\b.*)$",
    re.I,
)
_CLAUSE_IN_NP = re.compile(
    r"\b(?:if|whether|because|so that|and (?:tell|show|give|then|let|explain|how)|but"
    r"|to be|frozen|blocked|changed|repeated|done|please|saved|called|listed|stored|known"
    r"|placed|put|made|sent|switched|turned|lowered)\b|, (?:i|we|it|my|you|tell|so|as"
    r"|or)\b|[.;?!]",
    re.I,
)
_ROLE = re.compile(
    r"^(?:let's |please )?(?:pretend|imagine|role-?play|act as|you are|take on the role"
    r"|play the (?:role|character|part)|assume the (?:role|persona)|suppose you are"
    r"|put yourself)\b",
    re.I,
)


@dataclass(frozen=True)
class _Input:
    """One sentence on its way through the readers, with what was cut off before."""

    core: str
    base: Parsed
    polite: bool = False


@lru_cache(maxsize=1)
def _repairs() -> tuple[re.Pattern[str], dict[str, str], tuple[tuple[re.Pattern[str], str], ...]]:
    path = FRAMES / "repairs.yaml"
    document = read_yaml(path)
    words, mends = document.get("misspellings"), document.get("mends")
    if not isinstance(words, dict) or not isinstance(mends, list):
        raise BadInput(f"{path}: expected a mapping `misspellings` and a list `mends`")
    try:
        rules = tuple((re.compile(item["match"], re.I), str(item["to"])) for item in mends)
    except (re.error, KeyError, TypeError) as error:
        raise BadInput(f"{path}: a mend needs `match` (a regular expression) and `to`: {error}") from error
    spelled = {str(wrong): str(right) for wrong, right in words.items()}
    return re.compile(rf"\b(?:{'|'.join(spelled)})\b", re.I), spelled, rules


def repair(text: str) -> str:
    """Correct known misspellings and small slips of grammar outside quotations and code."""
    pattern, spelled, mends = _repairs()
    out, last = [], 0
    for match in pattern.finditer(mask(text)):
        word = spelled[match[0].lower()]
        right = word if match[0].islower() else word[0].upper() + word[1:]
        out += [text[last : match.start()], right]
        last = match.end()
    text = "".join([*out, text[last:]])
    for rule, to in mends:
        text = sub_masked(rule, to, text)
    return text


# ---------------------------------------------------------------- the reading


@lru_cache(maxsize=16384)
def parse(text: str, category: str | None = None) -> Parsed:
    """Read `text`; see the module docstring. The same text and category always give the same answer."""
    body, attached = _attachment(text.strip())
    body = fold(repair(_stray_quote(body)))
    domain = domain_of(text, category)
    lower = _is_lower(body)
    whole = Parsed("whole", fold(text) if not attached else text.strip(), domain, lower, attached=attached)
    if not body or "\n" in body:
        return replace(whole, text=text.strip(), attached="")
    first, *rest = sentences(body) or [body]
    if _ROLE.match(first) and len(body) > 60:
        return replace(whole, kind="role", text=text.strip(), attached="")
    if _is_math(body):
        return replace(whole, kind="math", text=text.strip(), attached="")
    if len(rest) > 3 or sum(map(len, rest)) > 300:
        return replace(whole, text=text.strip(), attached="")
    base = replace(whole, text=body, tail=" ".join(rest))
    return _read(first, base)


def _attachment(text: str) -> tuple[str, str]:
    """Split an instruction from the lines of code or sample input under it."""
    head, newline, rest = text.partition("\n")
    return (head.strip(), rest.rstrip()) if newline and len(head) > 15 and not head.startswith("#") else (text, "")


def _stray_quote(text: str) -> str:
    return text[1:].lstrip() if text.startswith('"') and text.count('"') % 2 == 1 else text


def _is_lower(text: str) -> bool:
    letters = re.sub(r"[^A-Za-z]", "", mask(text))
    return bool(letters) and not text[0].isupper() and sum(c.isupper() for c in letters) <= 0.02 * len(letters)


def _is_math(text: str) -> bool:
    return bool(
        len(re.findall(r"\b\d+\b", text)) >= 2
        and re.search(r"\bhow (?:many|much|long|far|old)\b[^?]*\?\s*$", text, re.I)
        and len(text) > 120
    )


def _read(sentence: str, base: Parsed) -> Parsed:
    """Cut greetings, contexts and politeness off a sentence and let the readers try the core, one after another."""
    core, context, front = _strip_frame(sentence)
    questioned = sentence.rstrip().endswith("?")
    polite = bool(re.search(r"\bplease\b", sentence, re.I))
    item = _Input(core, replace(base, context=context, front=front), polite)
    for reader in _READERS:
        found = reader(item)
        if found is not None:
            return replace(found, tail=base.tail)
    if not core or front:
        return base
    if questioned or (
        _QUESTION_WORD.match(core) and not re.match(r"(?:what|who) (?:you|i)\b.* (?:is|was)\b", core, re.I)
    ):
        return _question(item, core, base)
    return _statement_or_title(item, base)


def _strip_frame(sentence: str) -> tuple[str, str, str]:
    """Return the core of a sentence, its title context ("bash") and the adverbial before it ("As root")."""
    core, context, front = sentence.strip(), "", ""
    remark = _REMARK.match(core)
    if remark:
        core = core[remark.end() :]
    match = _TITLE_CONTEXT.match(core)
    if match:
        context, core = match["context"], core[match.end() :]
    match = _IN_LANGUAGE.match(core)
    if match:
        front, core = decap(match["context"]), core[match.end() :]
    match = _FRONT.match(mask(core))
    if match and not front:
        front, core = core[: match.end("front")], core[match.end() :]
    for pattern in (GREETING, _PLEASE_FRONT):
        core = pattern.sub("", core)
    core = _strip_end(core)
    core = _strip_end(_PLEASE_BACK.sub("", core))
    return core, context, front


_HERE = re.compile(r"\b(?:in|under|from|of|to|into|at|on|within|find|below|directory named|except|and) [.!]$")


def _strip_end(text: str) -> str:
    """Drop final punctuation, but not a lone dot, which names the current directory."""
    text = text.rstrip()
    while text and text[-1] in END_MARKS + ",;:" and not _HERE.search(text):
        text = text[:-1].rstrip()
    return text


def _read_ask(item: _Input) -> Parsed | None:
    match = _WRAPPERS[0][0].match(item.core)
    if not match:
        return None
    emb = item.core[match.end() :].strip()
    if re.match(rf"(?:{_WH}) (?:do|does|did|{_AUX}) ", emb, re.I):
        # an embedded question that was not turned round: it is the direct one
        return _ask(embedded_question(emb), emb, item.base)
    if re.match(r"how to\b", emb, re.I):
        return _user(emb[7:], item.base)
    if re.match(r"how (?:i|we) (?:can|could|should|would) ", emb, re.I):
        return _user(" ".join(emb.split(" ")[3:]), item.base)
    return _ask(emb, direct_question(emb), item.base)


def _ask(emb: str, direct: str, base: Parsed) -> Parsed | None:
    if _UNSAFE.search(mask(emb)):
        return None
    if not emb or re.match(rf"(?:(?:{_WH})$|what (?:is|are|was) )", emb, re.I):
        return None
    return replace(base, kind="ask", emb=decap(emb), direct=decap(direct))


def _read_get(item: _Input) -> Parsed | None:
    match = _GET.match(item.core)
    if not match or _CLAUSE_IN_NP.search(mask(match["np"])) or item.base.domain in {"shell", "code", "security"}:
        return None
    verb = "tell" if match["tell"] else "show" if match["show"] else "give"
    np = re.sub(r" for me$", "", match["np"])
    if (
        match["give"]
        and match["give"].lower() in {"i want", "i need"}
        and not re.match(r"(?:a|an|some|the|my|your) ", np, re.I)
    ):
        return None
    if match["tell"] and re.match(r"(?:a|an|some|any|all|more) ", np, re.I):
        return None
    if re.search(r"\b(?:yourself|way to|you to|me to)\b", np, re.I):
        return None
    return replace(item.base, kind="get", np=np, verb=verb, plural=_np_plural(np))


def _np_plural(np: str) -> bool:
    """Say whether the head of a noun phrase, the last word before its first complement, is plural."""
    cut = re.split(
        r"\b(?:of|for|to|on|in|at|about|that|which|with|from|by|i|you|we|when|where|who|right|now|is|are)\b",
        np,
        maxsplit=1,
    )[0]
    words = re.findall(r"[A-Za-z'-]+", cut)
    return bool(words) and is_plural(words[-1])


def _read_wrapped(item: _Input) -> Parsed | None:
    match = _MIND.match(item.core)
    if match:
        vp = inflect_phrase(item.core[match.end() :], "base", "gerund")
        return _assist(vp, item.base) if vp else None
    for pattern, role in _WRAPPERS[1:]:
        match = pattern.match(item.core)
        if match:
            rest = _PLEASE_FRONT.sub("", item.core[match.end() :])
            word = re.match(r"(?:[a-z]+ly )?([A-Za-z]+)\b", rest)
            if not word or not can_be_verb(word[1]):
                return None
            nested = _strip_end(_PLEASE_BACK.sub("", rest))
            if role == "user":
                if re.match(r"how (?:do|would|can) (?:you|we|one) ", match[0], re.I) and re.search(
                    r"\byour?\b", nested, re.I
                ):
                    # "you" is either anybody, whose things are mine, or the assistant, whose things are not
                    if item.base.domain == "assistant":
                        return None
                    nested = re.sub(r"\byour\b", "my", nested)
                return _user(nested, item.base)
            return _read_get(replace(item, core=nested)) or _assist(nested, item.base)
    return None


def _read_imperative(item: _Input) -> Parsed | None:
    core = item.core
    match = re.match(
        r"((?:[A-Za-z]+ly(?: and [a-z]+ly)?|just|always|also) )?([A-Za-z]+)\b(?P<next>(?: +[^\s]+)?)", mask(core)
    )
    if not match:
        return None
    known = is_verb(match[2]) or match[2].lower() in PHRASAL
    following = re.match(
        r" (?:the|my|your|a|an|all|this|that|me|it|everything|vacuuming|faster|slower|up)\b", match["next"]
    )
    if not known and not (item.polite and following and can_be_verb(match[2]) and item.base.domain == "assistant"):
        return None
    if re.match(
        r" (?:script|command|function|error|question|problem|issue|engine|comprehension|code"
        r"|tutorial|is|are|was|of|prompt|output)\b",
        match["next"],
    ) and match[2].lower() not in {
        "run",
        "execute",
        "write",
        "print",
        "fix",
        "create",
        "complete",
        "use",
        "debug",
        "display",
        "show",
        "send",
        "generate",
        "force",
        "redirect",
        "discard",
        "save",
        "clear",
        "provide",
    }:
        return None
    if not match["next"] and match[2].lower() in NOUN_LIKE and item.base.domain != "assistant":
        return None
    return _assist(decap(core), item.base)


def _read_third(item: _Input) -> Parsed | None:
    match = re.match(r"((?:[A-Za-z]+ly(?: and [a-z]+ly)?) )?([A-Z]?[a-z]+s)\b(?= +\S)", mask(item.core))
    if not match or item.base.domain not in {"shell", "code"} or base_of_third(match[2]) is None:
        return None
    vp = inflect_phrase(decap(item.core), "base", "third")
    if vp is None or _THIRD_LEFT.search(mask(vp)):
        return None
    return _assist(vp, item.base)


_THIRD_LEFT = re.compile(
    r"(?:,| and| then| or) (?:prints|finds|lists|shows|displays|removes|deletes|copies"
    r"|moves|saves|writes|executes|runs|changes|sets|sorts|searches|greps|replaces|appends"
    r"|creates|counts|outputs)\b"
)
# what a frame cannot carry: a second clause of another mood, or a phrase that was broken to begin with
_UNSAFE = re.compile(
    r"\b(?:please|if you (?:can|could)|if i were|(?:and|or) (?:what|who|where|when|how|why"
    r"|show)|(?:you|gotta|want|need) to (?:your|my|the|a))\b"
    r"|, (?:tell|show|can|could|please|what|how|is|are|or)\b|;|\bwhere to a\b|\bif your a\b|[?!]"
)
_TO_ME = re.compile(r"\b(?:me|you|your|yourself|us)\b", re.I)
_GIVE_ME = re.compile(r"\b(?:me|you|yourself)\b", re.I)
_YOUR_MACHINE = re.compile(
    r"\byour (?=home|system|server|current|files|SSH|machine|local|computer|file system|disk|root|own)", re.I
)
_EXPLAIN = {
    "explain",
    "describe",
    "summarize",
    "compare",
    "suggest",
    "illustrate",
    "paraphrase",
    "discuss",
    "translate",
    "define",
    "outline",
    "recommend",
    "rewrite",
    "rephrase",
    "elaborate",
    "propose",
    "analyze",
    "demonstrate",
    "provide",
    "give",
    "tell",
    "show",
    "teach",
    "draft",
    "design",
    "compose",
    "refactor",
    "debug",
    "complete",
    "fix",
}
_NP_ARTIFACT = re.compile(
    r"^(?:write|create|implement|develop|design|construct|compose|generate|craft|build"
    r"|devise|make|draft|provide|show|give|code) (?:me )?"
    r"(?P<np>(?:an?|some|the) (?:[\w+#.'-]+ ){0,5}?(?:function|script|program|class|method"
    r"|query|code|snippet|algorithm|command|application|app|API|page|form|one-liner"
    r"|expression|template|module|tool)\b.*)$",
    re.I,
)


def _assist(vp: str, base: Parsed) -> Parsed | None:
    """Sort a request by who would do it: a machine at a shell, or the assistant that is addressed."""
    vp = split_phrasal(decap(vp.strip()))
    if not vp or _unsafe_phrase(vp, base):
        return None
    verb = _first_verb(vp)
    if base.domain in {"shell", "code"} and not _GIVE_ME.search(mask(vp)):
        vp = sub_masked(_YOUR_MACHINE, "my ", vp)
    if base.domain in {"shell", "code"} and not _TO_ME.search(mask(vp)) and verb not in _EXPLAIN | {"write"}:
        artifact = _NP_ARTIFACT.match(vp)
        if not artifact or base.domain == "shell":
            return replace(base, kind="task", vp=vp, verb=verb)
    artifact = _NP_ARTIFACT.match(vp)
    if artifact and base.domain in {"shell", "code"}:
        return replace(base, kind="artifact", vp=vp, np=artifact["np"], verb=verb)
    if base.domain == "shell" and not _TO_ME.search(mask(vp)) and verb not in {"explain", "describe"}:
        return replace(base, kind="task", vp=vp, verb=verb)
    return replace(base, kind="assist", vp=vp, verb=verb)


def _unsafe_phrase(vp: str, base: Parsed) -> bool:
    masked = mask(vp)
    found = _UNSAFE.search(masked)
    # a semicolon or an "or" is ordinary in a shell task
    return bool(found) and not (
        base.domain in {"shell", "code", "security"} and not re.search(r"please|if you", masked)
    )


def _first_verb(vp: str) -> str:
    match = re.match(r"(?:[a-z]+ly (?:and [a-z]+ly )?|just |always |also )?([A-Za-z]+)", vp)
    return match[1].lower() if match else ""


def _user(vp: str, base: Parsed) -> Parsed | None:
    vp = split_phrasal(decap(vp.strip()))
    verb = _first_verb(vp)
    if verb == "know":
        return _assist(f"tell me {vp[5:]}", base)
    if not verb or not can_be_verb(verb) or _unsafe_phrase(vp, base):
        return None
    if base.domain in {"shell", "code"} and not _TO_ME.search(mask(vp)):
        return replace(base, kind="task", vp=vp, verb=verb)
    return replace(base, kind="user", vp=vp, verb=verb)


_QUESTION_WORD = re.compile(rf"(?:{_WH}|{_AUX}|do|does|did|has|have)\b", re.I)


def _question(item: _Input, core: str, base: Parsed) -> Parsed:
    asked = replace(base, context=item.base.context)
    emb = embedded_question(core)
    if emb and mask(core) == core:
        found = _ask(emb, core, asked)
        if found is not None:
            return found
    if _QUESTION_WORD.match(core):
        return replace(asked, kind="ask", direct=decap(core))
    return asked


_FINITE = re.compile(
    r"^(?:(?:i|you|we|they|it|he|she|my|someone|there|this|that|the|your)\b|i'm|i've|it's|there's)", re.I
)
_HAS_VERB = re.compile(
    r"^(?:i|you|we|they|it|he|she|someone|i'm|i've|it's|there's)\b|\b(?:is|are|was|were"
    r"|has|have|will|can|won't|needs?|got|isn't|went|did|does"
    r"|didn't|doesn't|shows?|keeps?|am|should|would|could)\b",
    re.I,
)
_UNSAFE_STATEMENT = re.compile(r"\b(?:(?:you|gotta|want|need) to (?:your|my|the|a))\b|\bplease\b(?!$)|[?;]", re.I)
_GERUND_TITLE = re.compile(r"^([A-Z]?[a-z]+ing)\b(?= +\S)")


def _statement_or_title(item: _Input, base: Parsed) -> Parsed:
    core = item.core
    gerund = _GERUND_TITLE.match(mask(core))
    if gerund and base_of_gerund(gerund[1]) and base.domain in {"shell", "code"}:
        vp = inflect_phrase(decap(core), "base", "gerund")
        if vp:
            return replace(item.base, kind="task", vp=vp, verb=_first_verb(vp))
    if (
        base.domain in {"assistant", "general"}
        and _FINITE.match(core)
        and _HAS_VERB.search(core)
        and not _UNSAFE_STATEMENT.search(core)
    ):
        return replace(item.base, kind="statement", text=base.text)
    if base.domain in {"shell", "code"} and not base.tail and len(core) < 140 and _is_noun_title(core):
        return replace(item.base, kind="noun", np=core)
    return base


def _is_noun_title(core: str) -> bool:
    """Say whether a title is one noun phrase: no finite verb, no second sentence, no pronoun."""
    masked = mask(core)
    first = re.match(r"(?:[a-z]+ly (?:and [a-z]+ly )?)?([a-z]+)", core, re.I)
    if not first or first[0] != first[1] or base_of_third(first[1]) or base_of_gerund(first[1]):
        return False
    return not re.search(
        r"[.;?!:]|\b(?:is|are|was|were|do|does|did|want|wants|need|needs|has|have|can|i|you|my|but|not|how)\b",
        masked,
        re.I,
    )


_READERS: tuple[Callable[[_Input], Parsed | None], ...] = (
    _read_ask,
    _read_get,
    _read_wrapped,
    _read_imperative,
    _read_third,
)
