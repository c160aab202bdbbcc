"""The runtime: loads a package with onnxruntime and tokenizers alone, and answers in the harness's JSON shape.

Each prompt runs alone and unpadded: dynamic INT8 scales every activation tensor by its own maximum, so in a batch a
score would depend on the neighbours. Takes text and an optional L1 result, gives a plain dictionary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crywolf.data import BadInput, CorruptPackage

from .package import MODEL, TOKENIZER, PackageInfo, read_settings, verify

THREAT_MAJORITY = 0.5


@dataclass(frozen=True)
class Detector:
    """A packaged detector; make one with `Detector.load`.

    Attributes:
        info: the package's settings.
        session: the onnxruntime session of the INT8 model.
        tokenizer: the fast tokenizer, truncating at `info.max_length`.
    """

    info: PackageInfo
    session: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: str | Path, *, threads: int = 1) -> "Detector":
        """Load a package after checking every file against its manifest.

        Args:
            folder: the package's directory.
            threads: threads inside one inference; 1 is best for short prompts and many callers.

        Raises:
            CorruptPackage: a file is missing, altered, or not what the runtime can load.
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
        return cls(info, session, tokenizer)

    @property
    def threshold(self) -> float:
        """Scores at or above this are flagged."""
        return self.info.thresholds["default"]

    @property
    def version(self) -> str:
        """Name of the model in answers."""
        return self.info.version

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the calibrated probability that each text is malicious, shape (n,)."""
        return np.array([self._run(text)[0] for text in texts], dtype=np.float64)

    def threats(self, texts: Sequence[str]) -> list[str]:
        """Return the threat type of each text, as if it were an attack; see `name_threat`."""
        return [self.name_threat(self._run(text)[1]) for text in texts]

    def name_threat(self, probabilities: NDArray[np.float64]) -> str:
        """Return the threat type that holds the majority of `probabilities`, or "unknown" where none does.

        It is also "unknown" whenever the threat head was not trained: its probabilities mean nothing then.
        """
        if not self.info.threat_head_trained:
            return "unknown"
        best = int(probabilities.argmax())
        return self.info.threat_types[best] if probabilities[best] >= THREAT_MAJORITY else "unknown"

    def predict(self, text: str, l1: Any = None) -> dict[str, Any]:
        """Judge one prompt.

        Args:
            text: the prompt; past `info.max_chars` characters it is cut and a note says so.
            l1: results of an earlier layer, passed through unchanged under "l1_results".

        Returns:
            A JSON-ready dictionary: predictions (one entry with threat_type, confidence and explanation when flagged,
            else empty), is_threat, score, threshold, processing_time_ms, model_version, truncated, notes, l1_results.

        Raises:
            BadInput: `text` is not a string or holds nothing but white space.
        """
        if not isinstance(text, str) or not text.strip():
            raise BadInput("prompt: expected a text with at least one visible character")
        start = time.perf_counter()
        notes = []
        truncated = len(text) > self.info.max_chars
        if truncated:
            notes.append(f"prompt of {len(text):,} characters cut to the first {self.info.max_chars:,}")
        score, threat = self._run(text)
        flagged = score >= self.threshold
        return {
            "predictions": [self._prediction(score, threat)] if flagged else [],
            "is_threat": bool(flagged),
            "score": round(float(score), 6),
            "threshold": self.threshold,
            "processing_time_ms": round((time.perf_counter() - start) * 1000, 3),
            "model_version": self.version,
            "truncated": truncated,
            "notes": notes,
            "l1_results": l1,
        }

    def encode(self, text: str) -> Any:
        """Return the tokenizer's encoding of a text, cut to `max_chars` characters and `max_length` tokens."""
        return self.tokenizer.encode(_encodable(text[: self.info.max_chars]))

    def _prediction(self, score: float, threat: NDArray[np.float64]) -> dict[str, Any]:
        return {
            "threat_type": self.name_threat(threat),
            "confidence": round(float(score), 6),
            "explanation": (
                f"score {score:.3f} is at or above the threshold {self.threshold:.3f}; {self._likeliest(threat)}"
            ),
        }

    def _likeliest(self, threat: NDArray[np.float64]) -> str:
        if not self.info.threat_head_trained:
            return "this model was not trained to tell threat types"
        best = int(threat.argmax())
        return f"likeliest threat type: {self.info.threat_types[best]} ({threat[best]:.0%} among types)"

    def _run(self, text: str) -> tuple[float, NDArray[np.float64]]:
        """Return the calibrated score and the probabilities over threat types, shape (t,)."""
        encoding = self.encode(text)
        feed = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
        }
        logits, threat_logits = self.session.run(["logits", "threat_logits"], feed)
        margin = float(logits[0, 1]) - float(logits[0, 0])
        return platt(margin, self.info.scale, self.info.bias), softmax(threat_logits[0])


def platt(margin: float, scale: float, bias: float) -> float:
    """Return the calibrated probability of a logit margin (Platt 1999), safe for any finite margin."""
    return float(0.5 * (1.0 + np.tanh(0.5 * (scale * margin + bias))))


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the softmax of a vector in double precision."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum(), dtype=np.float64)


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and the tokenizer's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
