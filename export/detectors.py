"""DETECTOR on the command line: a package folder, a URL, `module:function` or an ensemble; all become one callable.

Takes the user's words and gives a `LoadedDetector`, so that any guard on the market can be measured, and its false
positives harvested, in the same way. Scores from outside are checked before anybody counts with them.
"""

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, CrywolfError, Score

from .detector import Detector
from .voting import is_ensemble, load_ensemble

DEFAULT_THRESHOLD = 0.5
_URL_WORKERS = 4
_DECODING = {None: "", True: ", decoding", False: ", not decoding"}


@dataclass(frozen=True)
class LoadedDetector:
    """A detector ready to be measured.

    Attributes:
        name: what tables call it.
        kind: where it came from.
        score: list of str -> (n,) probabilities of MALICIOUS, checked to be finite and within [0, 1].
        threshold: scores at or above it count as flagged.
        threats: list of str -> the likeliest threat type of each, or None where the detector names none.
    """

    name: str
    kind: Literal["package", "url", "function", "ensemble"]
    score: Score
    threshold: float
    threats: Callable[[Sequence[str]], list[str]] | None = None


def load_detector(
    spec: str,
    *,
    threshold: float | None = None,
    timeout: float = 30.0,
    at: str | None = None,
    decode: bool | None = None,
) -> LoadedDetector:
    """Load what DETECTOR names.

    Args:
        spec: a package folder, an http(s) URL that takes {"prompt": text} and answers in the shape of
            `Detector.predict`, `module:function` (list of str -> scores), looked up from the current folder too, or an
            ensemble file of such detectors (.yaml; see `voting.load_ensemble`).
        threshold: overrides the package's or the ensemble's own threshold, or a function's attribute `threshold`, or
            0.5 for what has none.
        timeout: seconds to wait for one answer of a URL, more than 0.
        at: an operating point of a package ("strict", "balanced", "lenient"), whose threshold is then its own; it is
            said in the name.
        decode: judge what stands in a prompt in code as well; None does what the package was exported to do. For
            packages, and for ensembles, which hand it on to theirs; said in the name.

    Raises:
        BadInput: `spec` names nothing that can be loaded, its module cannot be imported, `threshold` is outside [0, 1],
            `at` is no operating point of it, `decode` is given for a URL or a function, or `timeout` is not a number
            above 0. Scoring raises it too, where an answer's score is no number.
        CorruptPackage: the folder is a package that fails its checks.
    """
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise BadInput(f"threshold {threshold}: expected a number from 0 to 1")
    if not (math.isfinite(timeout) and timeout > 0):
        raise BadInput(f"timeout {timeout}: expected a number of seconds above 0")
    if at is not None and (threshold is not None or not Path(spec).is_dir()):
        raise BadInput(f"detector {spec!r}: an operating point ({at}) is for packages, and stands for a threshold")
    if decode is not None and not (Path(spec).is_dir() or is_ensemble(spec)):
        raise BadInput(f"detector {spec!r}: whether text in code is decoded can be said of packages and ensembles only")
    if spec.startswith(("http://", "https://")):
        return _from_url(spec, threshold, timeout)
    if Path(spec).is_dir():
        detector = Detector.load(spec, decode=decode)
        chosen = detector.info.threshold(at) if threshold is None else threshold
        name = (detector.version if at is None else f"{detector.version} at {at}") + _DECODING[decode]
        return LoadedDetector(name, "package", checked(detector.score, spec), chosen, detector.threats)
    if is_ensemble(spec):
        return _from_ensemble(spec, threshold, timeout, decode)
    if ":" in spec:
        return _from_function(spec, threshold)
    raise BadInput(
        f"detector {spec!r}: neither a package folder, an http(s) URL, module:function, nor an ensemble (.yaml)"
    )


def _from_ensemble(spec: str, threshold: float | None, timeout: float, decode: bool | None) -> LoadedDetector:
    ensemble = load_ensemble(spec, partial(load_detector, timeout=timeout), decode=decode)
    chosen = ensemble.threshold if threshold is None else threshold
    name = ensemble.name + _DECODING[decode]
    return LoadedDetector(name, "ensemble", checked(ensemble.score, spec), chosen, ensemble.threats)


def checked(score: Callable[[Sequence[str]], Any], name: str) -> Score:
    """Wrap `score` so that it gives float64 (n,) in [0, 1] or raises CrywolfError saying what it gave instead."""

    def run(texts: Sequence[str]) -> NDArray[np.float64]:
        try:
            values = np.asarray(score(texts), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CrywolfError(f"detector {name}: its scores are not numbers ({error})") from error
        if values.shape != (len(texts),):
            raise CrywolfError(f"detector {name}: {len(texts)} texts gave scores of shape {values.shape}")
        if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()):
            raise CrywolfError(f"detector {name}: scores must be finite and from 0 to 1")
        return values

    return run


def _from_function(spec: str, threshold: float | None) -> LoadedDetector:
    module_name, _, function_name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which can fail in any way
        raise BadInput(f"detector {spec!r}: module {module_name} cannot be imported: {_reason(error)}") from error
    try:
        function = getattr(module, function_name)
    except AttributeError as error:
        raise BadInput(f"detector {spec!r}: {error}") from error
    if not callable(function):
        raise BadInput(f"detector {spec!r}: {function_name} is not a function")
    own = getattr(function, "threshold", None)
    chosen = own if threshold is None and isinstance(own, float) and 0.0 <= own <= 1.0 else threshold
    return LoadedDetector(spec, "function", checked(function, spec), _or_default(chosen))


def _from_url(url: str, threshold: float | None, timeout: float) -> LoadedDetector:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None)

    def ask(text: str) -> dict[str, Any]:
        try:
            response = session.post(url, json={"prompt": text}, timeout=timeout)
            response.raise_for_status()
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            # The exception's text can quote the request; its kind is enough and shows no prompt.
            raise CrywolfError(f"detector {url}: no usable answer ({type(error).__name__}); is it up?") from None
        if not isinstance(answer, dict):
            raise CrywolfError(f"detector {url}: expected a JSON object, got {type(answer).__name__}")
        return answer

    def ask_all(texts: Sequence[str]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(_URL_WORKERS) as pool:
            return list(pool.map(ask, texts))

    def score(texts: Sequence[str]) -> list[float]:
        return [answer_score(answer, url) for answer in ask_all(texts)]

    def threats(texts: Sequence[str]) -> list[str]:
        return [answer_threat(answer, url) for answer in ask_all(texts)]

    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry, pool_maxsize=_URL_WORKERS))
    session.mount("https://", HTTPAdapter(max_retries=retry, pool_maxsize=_URL_WORKERS))
    return LoadedDetector(url, "url", checked(score, url), _or_default(threshold), threats)


def answer_score(answer: dict[str, Any], name: str) -> float:
    """Return a service answer's score: its "score", else its highest confidence, else 0.

    Raises:
        BadInput: one of them is not a finite number; the message begins with the detector's `name`.
    """
    if answer.get("score") is not None:
        return _number(answer["score"], "score", name)
    return max((confidence for confidence, _ in _predictions(answer, name)), default=0.0)


def answer_threat(answer: dict[str, Any], name: str) -> str:
    """Return the threat type of the most confident prediction, "unknown" where there is none; raises as above."""
    _, best = max(_predictions(answer, name), key=lambda pair: pair[0], default=(0.0, {}))
    return str(best.get("threat_type", "unknown"))


def _predictions(answer: dict[str, Any], name: str) -> list[tuple[float, dict[str, Any]]]:
    """Each prediction of an answer with its confidence."""
    raw = answer.get("predictions") or []
    if not isinstance(raw, list) or not all(isinstance(p, dict) and "confidence" in p for p in raw):
        raise CrywolfError(f"detector {name}: an answer's predictions are not a list of objects with a confidence")
    return [(_number(p["confidence"], "confidence", name), p) for p in raw]


def _number(value: Any, field: str, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        # The value is not quoted: a service may echo the prompt in it.
        raise BadInput(f"detector {name}: an answer's {field} is not a finite number ({type(value).__name__})")
    return number


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _or_default(threshold: float | None) -> float:
    return DEFAULT_THRESHOLD if threshold is None else threshold
