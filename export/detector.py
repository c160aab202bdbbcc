"""The runtime: loads a package with onnxruntime and tokenizers alone, and answers in the harness's JSON shape.

Each prompt runs alone and unpadded: dynamic INT8 scales every activation tensor by its own maximum, so in a batch a
score would depend on the neighbours. What stands in the prompt in code (Base64 and its like) is decoded and judged too;
rules may lie over the model's score. Takes text and an optional L1 result, gives a plain dictionary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, CorruptPackage

from .explain import Span, find_span
from .package import MODEL, RULES, TOKENIZER, PackageInfo, read_settings, verify
from .rules import Hit, RuleSet, load_rules, ruled, verdict_of
from .views import View, decoded

THREAT_MAJORITY = 0.5


@dataclass(frozen=True)
class Detector:
    """A packaged detector; make one with `Detector.load`.

    Attributes:
        info: the package's settings.
        session: the onnxruntime session of the INT8 model.
        tokenizer: the fast tokenizer, truncating at `info.max_length`.
        rules: the rule layer over the model's score, None where there is none.
        decode: judge what stands in a prompt in code as well, model and deny rules alike; see `views.decoded`.
    """

    info: PackageInfo
    session: Any
    tokenizer: Any
    rules: RuleSet | None = None
    decode: bool = True

    @classmethod
    def load(
        cls, folder: str | Path, *, threads: int = 1, rules: str | Path | bool | None = None, decode: bool | None = None
    ) -> "Detector":
        """Load a package after checking every file against its manifest.

        Args:
            folder: the package's directory.
            threads: threads inside one inference; 1 is best for short prompts and many callers.
            rules: a rule file, or "embedded" for the rules that come with crywolf; see `rules.load_rules`. None takes
                the package's own rules.yaml if it was exported with one, else none; False takes none in any case.
            decode: judge what stands in a prompt in code as well; None does as the package was exported to.

        Raises:
            CorruptPackage: a file is missing, altered, or not what the runtime can load.
            BadInput: the rule file is not one.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        folder = Path(folder)
        verify(folder)
        info = read_settings(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            model = str(folder / MODEL)
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:
            raise CorruptPackage(f"{folder}: the model or its tokenizer cannot be loaded ({error})") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=info.max_length)
        return cls(info, session, tokenizer, _rules(folder, rules), info.decode if decode is None else decode)

    @property
    def threshold(self) -> float:
        """Scores at or above this are flagged."""
        return self.info.thresholds["default"]

    @property
    def version(self) -> str:
        """Name of the model in answers."""
        return self.info.version

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the calibrated probability that each text is malicious, shape (n,).

        It is the highest of the text's own and of those that stand in it in code. Where the rules deny one of these it
        is 1, where they allow the text itself 0: what is measured is what decides.
        """
        return np.array([self._score(text) for text in texts], dtype=np.float64)

    def threats(self, texts: Sequence[str]) -> list[str]:
        """Return the threat type of each text, as if it were an attack; see `name_threat`."""
        return [self._threat(text) for text in texts]

    def name_threat(self, probabilities: NDArray[np.float64]) -> str:
        """Return the threat type that holds the majority of `probabilities`, or "unknown" where none does.

        It is also "unknown" whenever the threat head was not trained: its probabilities mean nothing then.
        """
        if not self.info.threat_head_trained:
            return "unknown"
        best = int(probabilities.argmax())
        return self.info.threat_types[best] if probabilities[best] >= THREAT_MAJORITY else "unknown"

    def predict(self, text: str, l1: Any = None, *, at: str | None = None, explain: bool = False) -> dict[str, Any]:
        """Judge one prompt.

        Args:
            text: the prompt; past `info.max_chars` characters it is cut and a note says so.
            l1: results of an earlier layer, passed through unchanged under "l1_results".
            at: the operating point whose threshold decides: "strict", "balanced" or "lenient"; by default the
                package's own, which is "balanced".
            explain: look for the words that carried the verdict; it costs some twenty more runs of the model, and only
                where the prompt is flagged.

        Returns:
            A JSON-ready dictionary: predictions (one entry with threat_type, confidence and explanation when flagged,
            else empty), is_threat, score, threshold, processing_time_ms, model_version, truncated, notes, l1_results;
            at (the operating point), rules (those met, each with id, action, why, start and end), model_score (before
            the rules), and span (start, end, text and what it weighed; None unless asked for and flagged).

        Raises:
            BadInput: `text` is not a string or holds nothing but white space, or there is no such operating point.
        """
        if not isinstance(text, str) or not text.strip():
            raise BadInput("prompt: expected a text with at least one visible character")
        threshold = self.info.threshold(at)
        start = time.perf_counter()
        notes = []
        truncated = len(text) > self.info.max_chars
        if truncated:
            notes.append(f"prompt of {len(text):,} characters cut to the first {self.info.max_chars:,}")
        views = self._views(text)
        own, threat, code = self._judge(text, views)
        if code is not None:
            notes.append("the score is that of a text that stands in the prompt in code")
        hits = self._hits(text, views)
        notes += [f"rule {hit.rule.id} is met by a text that stands in the prompt in code" for hit in hits if hit.coded]
        score = ruled(verdict_of(hits), own)
        flagged = score >= threshold
        span = self._span(text, hits, threshold, code) if explain and flagged else None
        return {
            "predictions": [self._prediction(score, threshold, threat, hits)] if flagged else [],
            "is_threat": bool(flagged),
            "score": round(float(score), 6),
            "threshold": threshold,
            "processing_time_ms": round((time.perf_counter() - start) * 1000, 3),
            "model_version": self.version,
            "truncated": truncated,
            "notes": notes,
            "l1_results": l1,
            "at": at or "balanced",
            "rules": [hit.to_dict() for hit in hits],
            "model_score": round(float(own), 6),
            "span": span.to_dict() if span else None,
        }

    def encode(self, text: str) -> Any:
        """Return the tokenizer's encoding of a text, cut to `max_chars` characters and `max_length` tokens."""
        return self.tokenizer.encode(_encodable(text[: self.info.max_chars]))

    def _prediction(
        self, score: float, threshold: float, threat: NDArray[np.float64], hits: Sequence[Hit]
    ) -> dict[str, Any]:
        denial = hits[0].rule if verdict_of(hits) == "deny" else None
        reason = f"score {score:.3f} is at or above the threshold {threshold:.3f}; {self._likeliest(threat)}"
        if denial:
            reason = f"denied by rule {denial.id}: {denial.why}; by it the score is 1, over any threshold"
        return {
            "threat_type": denial.threat_type if denial else self.name_threat(threat),
            "confidence": round(float(score), 6),
            "explanation": reason,
        }

    def _views(self, text: str) -> list[View]:
        return decoded(text[: self.info.max_chars]) if self.decode else []

    def _hits(self, text: str, views: Sequence[View]) -> list[Hit]:
        return [] if self.rules is None else self.rules.hits(text, views)

    def _score(self, text: str) -> float:
        views = self._views(text)
        return ruled(verdict_of(self._hits(text, views)), self._judge(text, views)[0])

    def _threat(self, text: str) -> str:
        """The threat type that a deny rule gives a text or, where none is met, the model."""
        views = self._views(text)
        hits = self._hits(text, views)
        denied = verdict_of(hits) == "deny"
        return hits[0].rule.threat_type if denied else self.name_threat(self._judge(text, views)[1])

    def _span(self, text: str, hits: Sequence[Hit], threshold: float, code: View | None) -> Span | None:
        """The words that a deny rule met or, without one, that the model's score hangs on."""
        if verdict_of(hits) == "deny":
            return Span(hits[0].start, hits[0].end, text[hits[0].start : hits[0].end], 0.0, turned=True, runs=0)
        if code is not None:
            without = text[: code.start] + text[code.end :]
            rest = self._judge(without, self._views(without))[0] if without.strip() else 0.0
            return Span(code.start, code.end, text[code.start : code.end], 0.0, turned=rest < threshold, runs=1)
        # What lies behind the last token was not read; without this bound it would move up as words are left out.
        offsets = self.encode(text).offsets
        read = text[: max((end for _, end in offsets), default=0)]
        return find_span(read, self._log_odds, _logit(threshold))

    def _log_odds(self, text: str) -> float:
        """The calibrated score's log-odds, which goes on where the score itself is 1.000."""
        margin, _ = self._outputs(text)
        return self.info.scale * margin + self.info.bias

    def _likeliest(self, threat: NDArray[np.float64]) -> str:
        if not self.info.threat_head_trained:
            return "this model was not trained to tell threat types"
        best = int(threat.argmax())
        return f"likeliest threat type: {self.info.threat_types[best]} ({threat[best]:.0%} among types)"

    def _judge(self, text: str, views: Sequence[View]) -> tuple[float, NDArray[np.float64], View | None]:
        """The text's own score and threat, or those of the text in code in it that scores higher, with that text."""
        score, threat = self._run(text)
        code = None
        for view in views:
            other, named = self._run(view.text)
            if other > score:
                score, threat, code = other, named, view
        return score, threat, code

    def _run(self, text: str) -> tuple[float, NDArray[np.float64]]:
        """Return the model's calibrated score and the probabilities over threat types, shape (t,)."""
        margin, threat_logits = self._outputs(text)
        return platt(margin, self.info.scale, self.info.bias), softmax(threat_logits)

    def _outputs(self, text: str) -> tuple[float, NDArray[np.float32]]:
        """Return the logit margin MALICIOUS - BENIGN and the threat head's logits, shape (t,)."""
        encoding = self.encode(text)
        feed = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
        }
        logits, threat_logits = self.session.run(["logits", "threat_logits"], feed)
        return float(logits[0, 1]) - float(logits[0, 0]), threat_logits[0]


def _rules(folder: Path, asked: str | Path | bool | None) -> RuleSet | None:
    """The rules that were asked for, or the package's own."""
    if asked is False:
        return None
    if asked is None or asked is True:
        own = folder / RULES
        if asked and not own.is_file():
            raise BadInput(f"{folder}: this package carries no rules; name a rule file")
        return load_rules(own) if own.is_file() else None
    return load_rules(asked)


def platt(margin: float, scale: float, bias: float) -> float:
    """Return the calibrated probability of a logit margin (Platt 1999), safe for any finite margin."""
    return float(0.5 * (1.0 + np.tanh(0.5 * (scale * margin + bias))))


def _logit(score: float) -> float:
    """The log-odds of a score, finite at both ends."""
    inside = min(max(score, 1e-12), 1 - 1e-12)
    return float(np.log(inside) - np.log1p(-inside))


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the softmax of a vector in double precision."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum(), dtype=np.float64)


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and the tokenizer's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
