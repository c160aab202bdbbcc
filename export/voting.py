"""Several detectors voting as one: an ensemble file wherever a DETECTOR is asked for.

Takes a YAML file of members (packages, URLs, `module:function`) with weights and a mode, loads each as any DETECTOR is,
and gives one score callable with one threshold, so that an ensemble is measured, and must earn its place, like any
other detector. A rule file may lie over the vote; with a single member that is the hybrid of rules and model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crywolf.data import THREAT_TYPES, BadInput, Score

from .package import MODEL, is_package, read_settings, sha256
from .rules import EMBEDDED, MAX_CHARS, Hit, RuleSet, load_rules, read_yaml, ruled, verdict_of
from .views import decoded

Mode = Literal["mean", "majority", "any", "all"]
Threats = Callable[[Sequence[str]], list[str]]
SUFFIXES: Final = (".yaml", ".yml")
MAX_MEMBERS: Final = 32
_EVEN: Final = 0.5
_KEYS = {"name", "mode", "threshold", "rules", "members"}
_MEMBER_KEYS = {"detector", "weight", "threshold", "at"}


@dataclass(frozen=True)
class Member:
    """One voice.

    Attributes:
        name: What it is called.
        score: Texts to P(malicious).
        threshold: Its own: scores at or above it are a vote to flag.
        threats: Texts to threat types, None where it names none.
        weight: What its voice counts, above 0.
    """

    name: str
    score: Score
    threshold: float
    threats: Threats | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Ensemble:
    """Members and how they vote.

    Attributes:
        name: What it is called.
        members: At least one.
        mode: `mean` takes the weighted mean of the members' calibrated scores. The others count votes at the members'
            own thresholds: `majority` flags what more than half of the weight flags, `any` what one member flags, `all`
            what every member does.
        own_threshold: For `mean`: scores at or above it are flagged; None takes the weighted mean of the members'.
        rules: Lie over the vote, None where there are none.
        decode: Deny rules judge what stands in a prompt in code as well; each member decodes for itself, or not.
    """

    name: str
    members: tuple[Member, ...]
    mode: Mode = "mean"
    own_threshold: float | None = None
    rules: RuleSet | None = None
    decode: bool = True

    @property
    def threshold(self) -> float:
        """Scores at or above it are flagged; votes are counted on a scale whose middle is every member's threshold."""
        if self.mode != "mean":
            return _EVEN
        if self.own_threshold is not None:
            return self.own_threshold
        return float(np.average([member.threshold for member in self.members], weights=self._weights))

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The ensemble's score of each text, shape (n,): at or above `threshold` exactly where the vote flags it."""
        scores = np.stack([member.score(texts) for member in self.members])
        combined = combine(scores, self.mode, self._weights, np.array([m.threshold for m in self.members]))
        if self.rules is None:
            return combined
        verdicts = [ruled(verdict_of(self._hits(text)), score) for text, score in zip(texts, combined, strict=True)]
        return np.array(verdicts, dtype=np.float64)

    def threats(self, texts: Sequence[str]) -> list[str]:
        """The threat type with the most weight behind it; `unknown` where none is named, or two are even."""
        tally = np.zeros((len(texts), len(THREAT_TYPES)))
        place = {name: at for at, name in enumerate(THREAT_TYPES)}
        for member in self.members:
            if member.threats is not None:
                for row, threat in enumerate(member.threats(texts)):
                    if threat in place and threat != "unknown":
                        tally[row, place[threat]] += member.weight
        most = tally.max(axis=1, initial=0.0)
        clear = (most > 0) & ((tally == most[:, None]).sum(axis=1) == 1)
        named = [THREAT_TYPES[at] if sure else "unknown" for at, sure in zip(tally.argmax(axis=1), clear, strict=True)]
        return named if self.rules is None else [self._denied(*pair) for pair in zip(texts, named, strict=True)]

    def _denied(self, text: str, named: str) -> str:
        hits = self._hits(text)
        return hits[0].rule.threat_type if verdict_of(hits) == "deny" else named

    def _hits(self, text: str) -> list[Hit]:
        if self.rules is None:
            return []
        return self.rules.hits(text, decoded(text[:MAX_CHARS]) if self.decode else ())

    @property
    def _weights(self) -> NDArray[np.float64]:
        return np.array([member.weight for member in self.members])


def combine(
    scores: NDArray[np.float64], mode: Mode, weights: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Combine members' scores (m, n) into one (n,).

    For the modes that vote, each member's scores are first stretched so that its threshold comes to 0.5. The highest is
    then the vote of `any`, the lowest that of `all`, and the majority's is the highest score that more than half of the
    weight reaches: each is at least 0.5 exactly where the vote is to flag, and still ranks what lies on either side.
    """
    if mode == "mean":
        # Rounding may leave the convex hull of the scores.
        return np.clip(np.average(scores, axis=0, weights=weights), scores.min(axis=0), scores.max(axis=0))
    stretched = np.stack([stretch(row, float(at)) for row, at in zip(scores, thresholds, strict=True)])
    if mode == "any":
        return np.asarray(stretched.max(axis=0))
    if mode == "all":
        return np.asarray(stretched.min(axis=0))
    order = np.argsort(-stretched, axis=0, kind="stable")
    behind = np.cumsum(weights[order], axis=0)
    enough = (behind > weights.sum() / 2 * (1 + 1e-12)).argmax(axis=0)
    ranked = np.take_along_axis(stretched, order, axis=0)
    return np.asarray(np.take_along_axis(ranked, enough[None, :], axis=0)[0])


def stretch(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Scores on a scale where this threshold is 0.5: linear on either side, 0 and 1 where they were."""
    share = np.minimum(scores, threshold) / threshold if threshold > 0 else np.zeros_like(scores)
    below = np.minimum(_EVEN * share, np.nextafter(_EVEN, 0.0))
    above = _EVEN + _EVEN * (scores - threshold) / (1 - threshold) if threshold < 1 else np.ones_like(scores)
    return np.asarray(np.where(scores >= threshold, above, below), dtype=np.float64)


def is_ensemble(spec: str) -> bool:
    """Whether DETECTOR names an ensemble file."""
    return spec.endswith(SUFFIXES) and not spec.startswith(("http://", "https://"))


def model_hashes(spec: str | Path) -> dict[str, str]:
    """Return the SHA-256 of every model file that a DETECTOR decides by, under the version of its package.

    An ensemble's are told apart by the member's number. A URL or a function has no file to hash and is left out.

    Raises:
        BadInput: An ensemble's file cannot be read.
        CorruptPackage: A package's settings or its model cannot be.
    """
    if is_package(Path(spec)):
        return {read_settings(Path(spec)).version: sha256(Path(spec) / MODEL)}
    return {
        f"member {number}: {version}": hash_
        for number, folder in member_packages(spec)
        for version, hash_ in model_hashes(folder).items()
    }


def member_packages(spec: str | Path) -> list[tuple[int, Path]]:
    """Return number (from 1) and folder of the members of an ensemble that are packages; of what is none, nothing."""
    if not (is_ensemble(str(spec)) and Path(spec).is_file()):
        return []
    raw = read_yaml(Path(spec))
    entries = raw.get("members") if isinstance(raw, dict) else None
    named = [entry.get("detector") if isinstance(entry, dict) else entry for entry in entries or []]
    places = [Path(_place(str(name), Path(spec))) for name in named]
    return [(number, place) for number, place in enumerate(places, 1) if is_package(place)]


def load_ensemble(path: str | Path, load: Callable[..., Any], *, decode: bool | None = None) -> Ensemble:
    """Load an ensemble file and every member.

    The file holds `members`, a list of DETECTORs or of mappings with `detector` and, if wanted, `weight`, `threshold`
    or `at` (an operating point), and beside it, if wanted, `name`, `mode`, `threshold` (for the mean) and `rules` (a
    rule file). Packages and rule files are looked up from the ensemble's own folder.

    Args:
        path: The YAML file.
        load: Gives a `LoadedDetector` of a DETECTOR; takes `threshold`, `at` and, for a package, `decode` too.
        decode: Of rules and packages: judge what stands in a prompt in code as well. None leaves it to each package.

    Raises:
        BadInput: The file cannot be read or is not an ensemble; it names file and field. What `load` raises.
    """
    file = Path(path)
    raw = read_yaml(file)
    _known(raw, _KEYS, str(file))
    mode, threshold, rules = raw.get("mode", "mean"), raw.get("threshold"), raw.get("rules")
    if mode not in get_args(Mode):
        raise BadInput(f"{file}: mode {mode!r}; expected one of {', '.join(get_args(Mode))}")
    if threshold is not None and mode != "mean":
        raise BadInput(f"{file}: `threshold` is for mode mean; in mode {mode} the members vote at their own")
    if rules is not None and not isinstance(rules, str):
        raise BadInput(f"{file}: `rules` must name a rule file")
    entries = raw.get("members")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_MEMBERS:
        raise BadInput(f"{file}: `members` must list 1 to {MAX_MEMBERS} detectors")
    return Ensemble(
        name=str(raw.get("name") or file.stem),
        members=tuple(_member(entry, file, number, load, decode) for number, entry in enumerate(entries, 1)),
        mode=mode,
        own_threshold=None if threshold is None else _share(threshold, f"{file}: threshold"),
        rules=None if rules is None else load_rules(rules if rules == EMBEDDED else file.parent / rules),
        decode=decode is not False,
    )


def _place(spec: str, file: Path) -> str:
    """A member as it is loaded: a package is looked up from beside the ensemble's file."""
    beside = file.parent / spec
    return str(beside) if "://" not in spec and beside.is_dir() else spec


def _member(entry: Any, file: Path, number: int, load: Callable[..., Any], decode: bool | None) -> Member:
    where = f"{file}: member {number}"
    given = {"detector": entry} if isinstance(entry, str) else entry
    _known(given, _MEMBER_KEYS, where)
    spec = given.get("detector")
    if not isinstance(spec, str) or not spec:
        raise BadInput(f"{where}: `detector` must be a package folder, an http(s) URL, or module:function")
    if is_ensemble(spec):
        raise BadInput(f"{where}: {spec} is an ensemble itself; list its members here instead")
    weight, threshold = given.get("weight", 1.0), given.get("threshold")
    if not _is_number(weight) or not 0 < float(weight) < math.inf:
        raise BadInput(f"{where}: weight {weight!r}; expected a number above 0")
    place = _place(spec, file)
    loaded = load(
        place,
        threshold=None if threshold is None else _share(threshold, f"{where}: threshold"),
        at=given.get("at"),
        **({"decode": decode} if Path(place).is_dir() else {}),
    )
    return Member(loaded.name, loaded.score, loaded.threshold, loaded.threats, float(weight))


def _known(given: Any, keys: set[str], where: str) -> None:
    if not isinstance(given, dict):
        raise BadInput(f"{where}: expected a mapping of {', '.join(sorted(keys))}")
    for key in given:
        if key not in keys:
            raise BadInput(f"{where}: unknown field {key!r}; there are {', '.join(sorted(keys))}")


def _share(value: Any, where: str) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise BadInput(f"{where} {value!r}: expected a number from 0 to 1")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
