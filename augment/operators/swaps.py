"""Swaps one mention in a prompt (a language, a bank, a file type, a number) for a compatible other.

Takes a text and the lexicons and gives texts that differ in one mention, every occurrence of it changed alike. A
mention counts only where its surroundings say what it is ("a Go function", never "go"), and a replacement only where it
goes together with everything else that is mentioned: hooks keep their React, ownership its Rust.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crywolf.data.embedded.lexicons import Entry, Lexicons

from .inflect import article
from .parse import mask
from .types import Grown


@dataclass(frozen=True)
class Site:
    """A place in a text that may be swapped: all its occurrences, what stands there and from which lexicon."""

    lexicon: str
    entry: Entry
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Rule:
    """Where a lexicon's entries count as mentions: what stands before and after."""

    lexicon: str
    before: str
    after: str
    never: str = ""
    lower: bool = True


_LANGUAGE_NOUN = (
    r"(?= (?:function|program|script|code|snippet|application|app|implementation|command-line|console|web)\b)"
)
_LANGUAGE_BOUND = (
    r"\b(?:api|library|module|package|pdo|fetch|lambda|dom|html|css|jquery|built-in|stream"
    r"|struct|pointer|node|servlet|swing"
    r"|following|given|above|below|this|these|debug|fix|refactor|translate|convert|rewrite"
    r"|equivalent|spring|qt|arraylist|hashmap"
    r"|stringbuilder|tkinter|numpy|list comprehension|dictionary|dictionaries|tuple|vector"
    r"|std|iostream|goroutines?|hooks?|ownership"
    r"|prototype|promises?|async|generics?|decorators?|extends|abstract|static|public|main)\b"
)
_RULES = (
    _Rule(
        "language",
        r"(?<=\b[aA] )|(?<=\b[aA]n )|(?<=\bsimple )|(?<=\bsome )",
        _LANGUAGE_NOUN,
        _LANGUAGE_BOUND,
        lower=False,
    ),
    _Rule(
        "object_language",
        r"(?<=\b[aA] )|(?<=\b[aA]n )|(?<=\bsimple )|(?<=\bsome )",
        r"(?= (?:method|class)\b)",
        _LANGUAGE_BOUND,
        lower=False,
    ),
    _Rule(
        "language", r"(?<=\b[iI]n )|(?<=\busing )", r"(?=[.,?]|$| (?:to|that|which)\b)", _LANGUAGE_BOUND, lower=False
    ),
    _Rule(
        "script_language",
        r"(?<![\w-])",
        r"(?= script\b)",
        r"\b(?:following|given|this|these|translate|convert|fix|debug|explain|rewrite"
        r"|bash shell|command)\b",
    ),
    _Rule(
        "framework",
        r"(?<=\b[iI]n )|(?<=\busing )|(?<=\bwith )|(?<=\b[aA] )|(?<=\b[aA]n )",
        r"(?=[.,?]|$| (?:app|application|component|project|to)\b)",
        lower=False,
    ),
    _Rule(
        "relational_database",
        r"(?<=\b[aA] )|(?<=\b[aA]n )|(?<=\bthe )|(?<=\bin )|(?<=\bfrom )",
        r"(?= (?:database|table|server|instance)\b)",
        r"\b(?:pdo|mysqldump|mysqli|jdbc|dump|import|pl/sql|sql)\b",
        lower=False,
    ),
    _Rule(
        "os",
        r"(?<=\bon )|(?<=\bin )|(?<=\bunder )|(?<=\bfor )|(?<=\ba )|(?<=\bmy )",
        r"\b(?!/)",
        r"\b(?:apt|yum|brew|homebrew|registry|finder)\b",
    ),
    _Rule(
        "human_language",
        r"(?<=\bin )|(?<=\bto )|(?<=\binto )|(?<=\busing )|(?<=\bspeak )|(?<=\buse )"
        r"|(?<=\bbe )",
        r"(?=[.,?]|$| (?:with|from|now|please|instead|for|language|phrase|word)\b)",
    ),
    _Rule("country", r"(?<=\bin )|(?<=\bto )|(?<=\bfrom )|(?<=\bthrough )", r"\b"),
    _Rule("city", r"(?<=\bin )|(?<=\bto )|(?<=\bfrom )|(?<=\bnear )", r"\b", r"\bbetween\b"),
    _Rule("month", r"\b", r"\b", r"\b(?:march|may|august|\d\w\w month)\b"),
    _Rule("weekday", r"\b", r"\b"),
    _Rule(
        "first_name",
        r"(?<=\bcall me )|(?<=\bname is )|(?<=\bname's )|(?<=\btext )|(?<=\btell )|(?<=\bto )"
        r"|(?<=\bas )|(?<=\bsend )|(?<=\bname )|(?<=\badd )|(?<=\bcontact )|(?<=\bbe )",
        r"(?=[.,?]|$| (?:to|a|that|and|when|from|please|my|i)\b)",
    ),
    _Rule(
        "bank",
        r"(?<=\bmy )|(?<=\bthe )|(?<=\bon )|(?<=\bfrom )|(?<=\bat )",
        r"(?=[.,?]|$| (?:account|card|checking|savings|credit|visa|bank|right|immediately|now"
        r"|for)\b)",
    ),
    _Rule(
        "card",
        r"(?<=\bmy )|(?<=\ba )|(?<=\bnew )|(?<=\bthe )",
        r"(?=[.,?]|$| (?:card|credit|debit|account|application)\b)",
        r"\b(?:both|instead)\b",
    ),
    _Rule(
        "grocery",
        r"(?<=\bput )|(?<=\badd )|(?<=\bget )|(?<=\bbuy )|(?<=\bneed )|(?<=\bremove )"
        r"|(?<=\btake )|(?<=\bof )",
        r"(?= (?:on|to|from|off|and|removed)\b|[.,?]|$)",
    ),
    _Rule("chore", r"(?<=\bput )|(?<=\badd )|(?<=\bput )", r"(?= (?:on|to)\b)"),
    _Rule("cuisine", r"\b", r"(?= (?:meal|restaurant|recipe|food|dish|dinner|place)s?\b)"),
    _Rule("audience", r"(?<=\bfor )", r"\b"),
    _Rule("answer_form", r"(?<=\bas )", r"(?=[.,?]|$)", r"\bFAQ\b"),
    _Rule("security_topic", r"\b", r"\b"),
    _Rule(
        "file_kind",
        r"(?<=\bthe )|(?<=\ball )|(?<=\ba )|(?<=\bempty )|(?<=\bof )|(?<=\bhidden )",
        r"(?= files?\b)",
        r"\b(?:reads?|parses?|check|syntax|convert|play|execute|run|extract|compile|zip|lines?"
        r"|words?|contents?|search|image|archive|word)\b",
    ),
)
_ECOSYSTEM = frozenset({"language", "object_language", "script_language", "framework"})
_TECHNICAL = ("concept", "framework", "tool", "error")
_NUMBER = re.compile(
    r"(?<![\w.:/,$*+-])(?P<number>[2-9]|[1-9]\d{1,3})(?= ?(?:minutes?|hours?|days?|weeks?"
    r"|seconds?|MB|mb|GB|gb|KB|kb|bytes|megabytes"
    r"|kilobytes|gigabytes|dollars|percent|people|nights)\b)|(?<=\$)(?P<money>[2-9]|[1-9]\d{1,3})(?![\d.,x])"
)
_EXTENSION = re.compile(r"(?<=[\w*?\]\"'\s(\\}])\.(?P<ext>[a-z]{1,4}\d?)(?![\w/.@-])")
_EXTENSION_BOUND = re.compile(
    r"\b(?:tar|zip|unzip|gzip|gunzip|extract|compress|decompress|uncompress|convert|ffmpeg"
    r"|play|execute|import|compile|mysql|sql"
    r"|images?|videos?|audio|music|songs?|pictures?|photos?|text|java|python|perl|php|ruby"
    r"|html|xml|csv|json|shell|javascript|archives?|https?|ssh|run|c\+\+|source|log|logs"
    r"|pdf|script|code|class|function|program|contain\w*|grep|strings?"
    r"|lines?|words?|characters?|strict)\b",
    re.I,
)


def swaps(text: str, *, n: int, rng: np.random.Generator, lexicons: Lexicons) -> list[Grown]:
    """Return up to `n` distinct copies of `text` with one mention swapped (two where there are two to swap)."""
    out: dict[str, Grown] = {}
    for attempt in range(4 * n):
        grown = swap_once(text, rng=rng, lexicons=lexicons)
        if grown is None:
            break
        new, note = grown
        if attempt % 2:
            again = swap_once(new, rng=rng, lexicons=lexicons)
            if again is not None and again[1].split(":")[0] != note.split(":")[0]:
                new, note = again[0], f"{note}+{again[1]}"
        if new != text and len(out) < n:
            out.setdefault(new, Grown(new, f"swap:{note}", "swap"))
        if len(out) == n:
            break
    return list(out.values())


def swap_once(text: str, *, rng: np.random.Generator, lexicons: Lexicons) -> tuple[str, str] | None:
    """Return `text` with one randomly chosen mention swapped, and a note "lexicon:old>new"; None with none to swap."""
    makers = _options(text, lexicons)
    for i in rng.permutation(len(makers)):
        found = makers[int(i)](rng)
        if found is not None:
            return found
    return None


_Maker = Callable[[np.random.Generator], tuple[str, str] | None]


def _options(text: str, lexicons: Lexicons) -> list[_Maker]:
    options: list[_Maker] = [_site_maker(text, site, lexicons) for site in sites(text, lexicons)]
    masked = mask(text)
    numbers = list(_NUMBER.finditer(masked))
    if len(numbers) == 1 and not re.search(r"\b(?:between|from \d)", masked):
        options.append(lambda rng: _swap_number(text, numbers[0], rng))
    extension = _only_extension(text, lexicons)
    if extension is not None:
        options.append(lambda rng: _swap_extension(text, extension, rng, lexicons))
    paths = _paths(text, lexicons)
    if paths is not None:
        options.append(_site_maker(text, paths, lexicons))
    return options


def sites(text: str, lexicons: Lexicons) -> list[Site]:
    """Return the mentions of `text` that may be swapped, each with all its occurrences."""
    return list(_sites(text, lexicons))


def _sites(text: str, lexicons: Lexicons) -> Iterator[Site]:
    masked = mask(text)
    taken: set[tuple[int, int]] = set()
    for rule, pattern, never in _compiled(lexicons):
        if never is not None and never.search(masked):
            continue
        found: dict[str, list[tuple[int, int]]] = {}
        for match in pattern.finditer(masked):
            if match.span() not in taken:
                found.setdefault(match[0].lower(), []).append(match.span())
        # two different mentions of one kind stand in some relation ("from June to July"): leave both
        if len(found) != 1:
            continue
        ((word, spans),) = found.items()
        # what is also written in code or a quotation belongs together with it
        everywhere = [m.span() for m in re.finditer(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text, re.I)]
        entry = lexicons.entry(rule.lexicon, word)
        if rule.lexicon == "file_kind" and _EXTENSION.search(text):
            continue
        if entry is not None and len(everywhere) == len(spans):
            taken.update(spans)
            yield Site(rule.lexicon, entry, tuple(spans))


_CACHE: dict[int, tuple[Lexicons, list[tuple[_Rule, re.Pattern[str], re.Pattern[str] | None]]]] = {}


def _compiled(lexicons: Lexicons) -> list[tuple[_Rule, re.Pattern[str], re.Pattern[str] | None]]:
    """Compile the rules for one set of lexicons, once."""
    known = _CACHE.get(id(lexicons))
    if known is not None and known[0] is lexicons:
        return known[1]
    rules = []
    for rule in _RULES:
        if rule.lexicon not in lexicons.names():
            continue
        spellings = [s for entry in lexicons.entries(rule.lexicon) for s in (entry.text, *entry.aliases)]
        words = "|".join(sorted((re.escape(s) for s in spellings), key=len, reverse=True))
        flags = re.I if rule.lower else 0
        pattern = re.compile(rf"(?:{rule.before})(?<![\w-])(?:{words})(?![\w-])(?:{rule.after})", flags)
        rules.append((rule, pattern, re.compile(rule.never, re.I) if rule.never else None))
    _CACHE[id(lexicons)] = (lexicons, rules)
    return rules


def _site_maker(text: str, site: Site, lexicons: Lexicons) -> _Maker:
    def make(rng: np.random.Generator) -> tuple[str, str] | None:
        choices = _replacements(text, site, lexicons)
        if not choices:
            return None
        new = choices[int(rng.integers(len(choices)))]
        return _replace(text, site, new), f"{site.lexicon}:{site.entry.text}>{new.text}"

    return make


def _replacements(text: str, site: Site, lexicons: Lexicons) -> list[Entry]:
    """Return the entries that may stand at `site`: others, of its number, compatible with the other mentions."""
    others = [e for e in _mentioned(text, lexicons) if e != site.entry]
    if site.lexicon == "framework":
        others += _languages(text, lexicons)
    choices = []
    for entry in lexicons.entries(site.lexicon):
        if entry == site.entry or entry.text.lower() in text.lower() or entry.plural != site.entry.plural:
            continue
        if site.lexicon == "os" and not lexicons.compatible(entry, site.entry):
            continue
        if site.lexicon in _ECOSYSTEM and not all(lexicons.compatible(entry, other) for other in others):
            continue
        if entry.text.endswith("card") and text[site.spans[0][1] :].startswith(" card"):
            continue
        choices.append(entry)
    return choices


def _languages(text: str, lexicons: Lexicons) -> list[Entry]:
    return [
        e
        for e in lexicons.entries("language")
        if len(e.text) > 2 and re.search(rf"(?<![\w-]){re.escape(e.text)}(?![\w-])", text)
    ]


@lru_cache(maxsize=4096)
def _mentioned_cached(text: str, key: int) -> tuple[Entry, ...]:
    lexicons = _CACHE[key][0]
    low = text.lower()
    found = []
    for name in _TECHNICAL:
        for entry in lexicons.entries(name):
            word = re.sub(r"^(?:the|an?) ", "", entry.text).lower()
            if entry.tags and word in low and re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", low):
                found.append(entry)
    return tuple(found)


def _mentioned(text: str, lexicons: Lexicons) -> list[Entry]:
    """Return the tagged technical entries that `text` mentions anywhere."""
    _compiled(lexicons)
    return list(_mentioned_cached(text, id(lexicons)))


def _replace(text: str, site: Site, new: Entry) -> str:
    out = text
    for start, end in reversed(site.spans):
        old = text[start:end]
        word = new.text
        if old.islower() and not site.entry.text.islower():
            word = word.lower()
        elif old[0].isupper() and word[0].islower() and (start == 0 or site.lexicon == "script_language"):
            word = word[0].upper() + word[1:]
        out = out[:start] + word + out[end:]
        out = _fix_article(out, start, word)
    return out


def _fix_article(text: str, start: int, word: str) -> str:
    match = re.search(r"\b([aA])n? $", text[:start])
    if not match:
        return text
    right = article(word)
    return text[: match.start()] + (right if match[1] == "a" else right.capitalize()) + " " + text[start:]


def _swap_number(text: str, match: re.Match[str], rng: np.random.Generator) -> tuple[str, str] | None:
    group = "number" if match["number"] else "money"
    old = int(match[group])
    choices = _alike(old)
    new = choices[int(rng.integers(len(choices)))]
    start, end = match.span(group)
    return text[:start] + str(new) + text[end:], f"number:{old}>{new}"


def _alike(number: int) -> list[int]:
    """Return round numbers of about the size of `number`, which people would write in its place."""
    if number < 10:
        pool = list(range(2, 10))
    elif number < 100:
        pool = [10, 12, 14, 15, 20, 25, 30, 40, 45, 50, 60, 75, 90]
    else:
        pool = [100, 120, 150, 200, 250, 300, 400, 500, 600, 750, 800, 900, 1000]
    return [n for n in pool if n != number and number / 5 <= n <= number * 5]


def _only_extension(text: str, lexicons: Lexicons) -> Entry | None:
    """Return the one file extension that `text` names, None with none, several, or words that depend on it."""
    found = {m["ext"] for m in _EXTENSION.finditer(text)}
    if len(found) != 1 or _EXTENSION_BOUND.search(_EXTENSION.sub(" ", text)):
        return None
    return lexicons.entry("file_type", "." + found.pop())


def _swap_extension(text: str, old: Entry, rng: np.random.Generator, lexicons: Lexicons) -> tuple[str, str] | None:
    choices = [e for e in lexicons.entries("file_type") if e != old and lexicons.compatible(e, old)]
    new = choices[int(rng.integers(len(choices)))]
    return _EXTENSION.sub(new.text, text), f"file_type:{old.text}>{new.text}"


def _paths(text: str, lexicons: Lexicons) -> Site | None:
    """Return the one well-known directory that `text` names by itself, not as part of a longer path."""
    words = "|".join(sorted((re.escape(e.text) for e in lexicons.entries("folder_path")), key=len, reverse=True))
    found = list(re.finditer(rf"(?<![\w/~.$*}}-])(?:{words})(?![\w/*.-])", text))
    if len(found) != 1 or text.count(found[0][0]) != 1:
        return None
    entry = lexicons.entry("folder_path", found[0][0])
    return Site("folder_path", entry, (found[0].span(),)) if entry else None
