"""A layer of rules beside the model: patterns that always flag a prompt, whole texts that never do.

Takes a YAML file of `deny` and `allow` rules and gives a `RuleSet`, which says of a text which rules it meets and
where. Every rule carries examples that it must match and texts that it must not, checked on load, so that a rule set
comes with tests of its own false positives; a pattern that could take long on a hostile text is refused.
"""

import importlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from crywolf.data import THREAT_TYPES, BadInput

from .views import View

MAX_CHARS: Final = 4096
"""Characters of a text that rules look at, and of a rule file's pattern or example."""
MAX_EFFORT: Final = 10_000
"""How often a pattern may start over at one place of a text of `MAX_CHARS`; see `effort`."""
MAX_ALLOWED: Final = 500
"""Characters of the longest text that an allow pattern may match."""
MAX_RULES: Final = 1000
EMBEDDED: Final = "embedded"
"""Names the rules that come with crywolf where a file is asked for."""

_FIELDS = {"id", "action", "pattern", "contains", "equals", "unless", "threat_type", "why", "matches", "misses"}
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: Its name in answers.
        action: `deny` flags a text in which it is found anywhere; `allow` clears a text that it matches as a whole.
        regex: The pattern, ignoring case; None where phrases are given.
        phrases: Any of them, case and white space folded: contained in the text for `deny`, equal to it for `allow`.
        unless: Phrases; a text that contains one of them, folded likewise, is not denied. They keep a rule from people
            who write about attacks; an attacker who adds one meets the model all the same.
        why: What it is for.
        threat_type: What a denied text is called; "unknown" unless the rule says.
        matches: Texts that it must match.
        misses: Texts that it must not match.
    """

    id: str
    action: Literal["deny", "allow"]
    regex: re.Pattern[str] | None
    phrases: tuple[str, ...]
    unless: tuple[str, ...]
    why: str
    threat_type: str
    matches: tuple[str, ...]
    misses: tuple[str, ...]

    def find(self, text: str) -> tuple[int, int] | None:
        """Where a text meets the rule, in characters; None where it does not. Only `MAX_CHARS` are looked at."""
        if self.action == "allow":
            # Of a longer text only the beginning would be looked at, which is not the whole.
            return (0, len(text)) if len(text) <= MAX_CHARS and self._is(text) else None
        found = self._within(text[:MAX_CHARS])
        if found and self.unless and any(phrase in fold(text[:MAX_CHARS]) for phrase in self.unless):
            return None
        return found

    def _is(self, text: str) -> bool:
        if self.regex is None:
            return fold(text) in self.phrases
        return self.regex.fullmatch(text.strip()) is not None

    def _within(self, text: str) -> tuple[int, int] | None:
        if self.regex is not None:
            found = self.regex.search(text)
            return found.span() if found else None
        folded = fold(text)
        return next((_place(text, phrase) for phrase in self.phrases if phrase in folded), None)


@dataclass(frozen=True)
class Hit:
    """A rule that a text meets, and where.

    Attributes:
        rule: Which.
        start: Where what it met begins, in characters of the prompt.
        end: Where that ends.
        coded: What it met stands there in code.
    """

    rule: Rule
    start: int
    end: int
    coded: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "id": self.rule.id,
            "action": self.rule.action,
            "why": self.rule.why,
            "start": self.start,
            "end": self.end,
        }


@dataclass(frozen=True)
class RuleSet:
    """Rules that were checked against their own examples; make one with `load_rules`."""

    rules: tuple[Rule, ...]
    source: str

    def hits(self, text: str, views: Sequence[View] = ()) -> list[Hit]:
        """Every rule that a text meets, deny rules first.

        Args:
            text: The prompt.
            views: What stands in it in code; see `views.decoded`. Deny rules judge it too. Allow rules do not: code in
                a prompt is not the whole of it.
        """
        found = [Hit(rule, *span) for rule in self.rules if (span := rule.find(text)) is not None]
        met = {hit.rule.id for hit in found}
        for rule in self.rules:
            if rule.action == "deny" and rule.id not in met:
                coded = next((view for view in views if rule.find(view.text) is not None), None)
                found += [] if coded is None else [Hit(rule, coded.start, coded.end, coded=True)]
        return sorted(found, key=lambda hit: (hit.rule.action != "deny", hit.coded))

    def apply(self, text: str, score: float, views: Sequence[View] = ()) -> float:
        """The score after the rules: 1 where a text is denied, 0 where it is allowed, else as it was; see `hits`."""
        return ruled(verdict_of(self.hits(text, views)), score)


def verdict_of(hits: Sequence[Hit]) -> Literal["deny", "allow"] | None:
    """What the hits of a rule set come to: a denial outweighs any allowance, so that no rule hides an attack."""
    return hits[0].rule.action if hits else None


def ruled(verdict: str | None, score: float) -> float:
    """A score after a verdict of the rules."""
    return {"deny": 1.0, "allow": 0.0}.get(verdict or "", score)


def embedded_rules_path() -> Path:
    """The deny rules that come with crywolf."""
    import crywolf.data.embedded

    return Path(str(crywolf.data.embedded.__file__)).parent / "rules" / "deny.yaml"


def load_rules(path: str | Path) -> RuleSet:
    """Load a rule file and check every rule against its own examples.

    Args:
        path: A YAML file with a list under `rules`, or "embedded" for the rules that come with crywolf.

    Raises:
        BadInput: The file cannot be read; a rule lacks a field, has one too many, or a pattern that is no regular
            expression or could take too long; an example is not matched as it must be. It names file and rule.
    """
    file = embedded_rules_path() if str(path) == EMBEDDED else Path(path)
    return rules_from(read_yaml(file), str(file))


def read_yaml(file: Path) -> Any:
    """The plain data of a YAML file; BadInput where it cannot be read, which tells the line and no more."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{file}{line}: not YAML ({getattr(error, 'problem', None) or type(error).__name__})") from error


def rules_from(raw: Any, where: str) -> RuleSet:
    """The rules of a file that was read; see `load_rules`."""
    entries = raw.get("rules") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or not entries or set(raw) != {"rules"}:
        raise BadInput(f"{where}: expected one key, `rules`, with a list of rules")
    if len(entries) > MAX_RULES:
        raise BadInput(f"{where}: {len(entries)} rules; at most {MAX_RULES:,} are taken")
    rules = tuple(_rule(entry, f"{where}: rule {number}") for number, entry in enumerate(entries, 1))
    names = [rule.id for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{where}: two rules are called {name!r}")
    found = RuleSet(rules, where)
    for rule in rules:
        _check_examples(rule, found)
    return found


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: expected a mapping of fields")
    name = entry.get("id")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
        raise BadInput(f"{where}: id {name!r}; give lower-case letters, digits, '-', '_' and '.', at most 64")
    where = f"{where} ({name})"
    for field in entry:
        if field not in _FIELDS:
            raise BadInput(f"{where}: unknown field {field!r}; there are {', '.join(sorted(_FIELDS))}")
    action = entry.get("action")
    if action not in ("deny", "allow"):
        raise BadInput(f"{where}: action {action!r}; expected deny or allow")
    threat = entry.get("threat_type", "unknown")
    if threat not in THREAT_TYPES or (action == "allow" and "threat_type" in entry):
        raise BadInput(f"{where}: threat_type {threat!r}; a deny rule may name one of {', '.join(THREAT_TYPES)}")
    why = entry.get("why")
    if not isinstance(why, str) or not why.strip():
        raise BadInput(f"{where}: `why` is missing; say in a sentence what the rule is for")
    if action == "allow" and "unless" in entry:
        raise BadInput(f"{where}: `unless` is for deny rules; a rule to allow names whole texts anyway")
    regex, phrases = _what(entry, action, where)
    unless = tuple(fold(phrase) for phrase in _texts(entry, "unless", where)) if "unless" in entry else ()
    examples = (_texts(entry, "matches", where), _texts(entry, "misses", where))
    return Rule(name, action, regex, phrases, unless, " ".join(why.split()), threat, *examples)


def _what(entry: dict[str, Any], action: str, where: str) -> tuple[re.Pattern[str] | None, tuple[str, ...]]:
    """The rule's pattern or its phrases: exactly one of the two."""
    listed = "contains" if action == "deny" else "equals"
    given = [field for field in ("pattern", "contains", "equals") if field in entry]
    if given not in (["pattern"], [listed]):
        raise BadInput(f"{where}: a rule to {action} has either `pattern` or `{listed}`, not {given or 'nothing'}")
    if given == ["pattern"]:
        return compile_pattern(entry["pattern"], where, whole=action == "allow"), ()
    phrases = tuple(fold(phrase) for phrase in _texts(entry, listed, where))
    if short := [phrase for phrase in phrases if len(phrase) < (4 if action == "deny" else 1)]:
        raise BadInput(f"{where}: the phrase {short[0]!r} is too short to mean anything; give 4 characters or more")
    return None, phrases


def _texts(entry: dict[str, Any], field: str, where: str) -> tuple[str, ...]:
    texts = entry.get(field)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadInput(f"{where}: `{field}` must list at least one text")
    if any(len(text) > MAX_CHARS for text in texts):
        raise BadInput(f"{where}: a text in `{field}` is longer than {MAX_CHARS:,} characters")
    return tuple(texts)


def _check_examples(rule: Rule, found: RuleSet) -> None:
    """A rule's own examples, and that no deny rule stands against what an allow rule is there to clear."""
    for number, text in enumerate(rule.matches, 1):
        if rule.find(text) is None:
            raise BadInput(f"{found.source}: rule {rule.id} does not match example {number} of its `matches`")
        verdict = verdict_of(found.hits(text))
        if verdict != rule.action:
            raise BadInput(f"{found.source}: rule {rule.id} allows example {number}, but another rule denies it")
    for number, text in enumerate(rule.misses, 1):
        if rule.find(text) is not None:
            raise BadInput(f"{found.source}: rule {rule.id} matches example {number} of its `misses`")


def compile_pattern(pattern: Any, where: str, *, whole: bool = False) -> re.Pattern[str]:
    """Compile a rule's pattern, or say why it is none that may run on hostile text.

    Args:
        pattern: A regular expression of Python's `re`; it ignores case, and `(?-i:...)` turns that off.
        where: Begins the error message.
        whole: The pattern allows whole texts: it must not match texts of more than `MAX_ALLOWED` characters.
    """
    if not isinstance(pattern, str) or not pattern or len(pattern) > MAX_CHARS:
        raise BadInput(f"{where}: `pattern` must be a text of 1 to {MAX_CHARS:,} characters")
    # The parser has no public name since Python 3.11, and no other way in.
    parser: Any = importlib.import_module("re._parser")
    try:
        compiled = re.compile(pattern, re.IGNORECASE)
        parsed = parser.parse(pattern, re.IGNORECASE)
        needed = effort(parsed)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"{where}: `pattern` is not a regular expression ({error})") from error
    if compiled.search(""):
        raise BadInput(f"{where}: `pattern` matches the empty text, so it matches any")
    if needed > MAX_EFFORT:
        raise BadInput(
            f"{where}: `pattern` could take very long on a hostile text: repeats within repeats, or too many of them "
            r"in a row, or a back-reference; bound them (\s{1,8}) or make them possessive (\s++)"
        )
    widest = parsed.getwidth()[1]
    if whole and widest > MAX_ALLOWED:
        raise BadInput(
            f"{where}: a pattern that allows must match at most {MAX_ALLOWED} characters, so that no attack fits into "
            "what it leaves open; bound its repeats"
        )
    return compiled


def effort(parsed: Any) -> float:
    """How many ways a parsed pattern can match from one place, at most: what backtracking may have to try.

    Parts in a row multiply; alternatives add unless the letters that they begin with tell them apart; a repeat has as
    many ways as it has lengths, and a repeat of something that has several ways grows exponentially. Possessive
    repeats, atomic groups and look-arounds have no ways but those within them.
    """
    total = 1.0
    for operation, argument in parsed:
        total *= _ways(str(operation), argument)
    return total


def _ways(operation: str, argument: Any) -> float:
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        return _repeat_ways(*argument)
    if operation == "POSSESSIVE_REPEAT":
        return _within(effort(argument[2]), int(argument[1]))
    if operation == "SUBPATTERN":
        return effort(argument[-1])
    if operation == "ATOMIC_GROUP":
        return effort(argument)
    if operation == "BRANCH":
        return _branch_ways(argument[1])
    if operation in ("ASSERT", "ASSERT_NOT"):
        return effort(argument[1])
    if operation in ("GROUPREF", "GROUPREF_EXISTS"):
        return math.inf
    return 1.0


def _branch_ways(branches: Any) -> float:
    ways = [effort(branch) for branch in branches]
    begun = sorted(opening for branch in branches for opening in _openings(branch))
    # In sorted order whatever begins with a text follows it.
    apart = not any(after.startswith(before) for before, after in pairwise(begun))
    return max(ways) if apart else sum(ways)


def _openings(parsed: Any) -> list[str]:
    """The letters, case folded, that a pattern begins with: those of each alternative; "" where they are not fixed."""
    start = ""
    for operation, argument in parsed:
        name = str(operation)
        if name == "LITERAL":
            start += chr(argument).casefold()
        elif name in ("SUBPATTERN", "BRANCH"):
            inner = [argument[-1]] if name == "SUBPATTERN" else argument[1]
            return [start + opening for part in inner for opening in _openings(part)]
        elif name != "AT":
            break
    return [start]


def _repeat_ways(least: int, most: int, body: Any) -> float:
    reach = min(int(most), MAX_CHARS)
    return (reach - int(least) + 1) * _within(effort(body), reach)


def _within(ways: float, times: int) -> float:
    """The ways of something repeated: one stays one, more grow with every time."""
    if ways <= 1:
        return 1.0
    return math.inf if min(times, MAX_CHARS) * math.log(ways) > math.log(MAX_EFFORT) else ways**times


def fold(text: str) -> str:
    """A text with case and white space folded, as phrases are compared."""
    return _SPACE.sub(" ", text).strip().casefold()


def _place(text: str, phrase: str) -> tuple[int, int]:
    """Where a folded phrase stands in a text; the whole text where folding case has moved it."""
    words = r"\s+".join(re.escape(word) for word in phrase.split(" "))
    found = re.search(words, text, re.IGNORECASE)
    return found.span() if found else (0, len(text))
