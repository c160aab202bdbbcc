"""A trained detector on disk and in memory: the model folder, its hash check, and scoring with torch.

`TrainedModel.load` takes a folder that `fit` wrote and gives logits, calibrated scores and threat types of texts. A
folder whose files are not the ones that its crywolf.json lists is refused; nothing in it is ever unpickled.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crywolf.data import THREAT_TYPES, BadInput, CorruptPackage
from crywolf.data.types import Progress

from .batches import pad

if TYPE_CHECKING:
    from .network import ThreatClassifier

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
META = "crywolf.json"
HASHED = (WEIGHTS, CONFIG, TOKENIZER)
FORMAT = 1

KNOWN_THREATS: tuple[str, ...] = tuple(name for name in THREAT_TYPES if name != "unknown")
"""What the threat-type head tells apart; `unknown` is the answer when none of them has the majority."""

THREAT_MAJORITY = 0.5


@dataclass(frozen=True)
class Calibration:
    """score = sigmoid(scale * margin + bias), where margin = logit(MALICIOUS) - logit(BENIGN)."""

    scale: float = 1.0
    bias: float = 0.0

    def __call__(self, margins: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Calibrated P(malicious) of each margin."""
        return sigmoid(self.scale * margins.astype(np.float64) + self.bias)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow at either end."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.float64)


@dataclass(frozen=True)
class TrainedModel:
    """A detector of this project, ready to score with torch.

    Attributes:
        path: The folder that it came from.
        network: The torch module, in eval mode.
        tokenizer: A `tokenizers.Tokenizer` that truncates to `max_length` and does not pad.
        meta: crywolf.json as it stands on disk.
    """

    path: Path
    network: "ThreatClassifier"
    tokenizer: Any
    meta: Mapping[str, Any]

    @classmethod
    def load(cls, model_dir: str | os.PathLike[str], *, device: str | None = None) -> "TrainedModel":
        """Load a model folder, offline.

        Args:
            model_dir: A folder that `fit` wrote.
            device: A torch device; by default a GPU if there is one.

        Raises:
            BadInput: If there is no model folder at this path.
            CorruptPackage: If a file is missing, unreadable, or not the one that was saved.
        """
        import torch

        path = Path(model_dir)
        meta = read_meta(path)
        verify(path, meta)
        network = load_network(path, meta)
        network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        return cls(path=path, network=network, tokenizer=load_tokenizer(path, int(meta["max_length"])), meta=meta)

    @property
    def threshold(self) -> float:
        """A prompt is a threat if its score is at least this."""
        return float(self.meta["threshold"])

    @property
    def calibration(self) -> Calibration:
        """What turns a margin into a score."""
        return Calibration(**self.meta["calibration"])

    @property
    def threat_types(self) -> tuple[str, ...]:
        """Names of the threat head's outputs, in order."""
        return tuple(self.meta["threat_types"])

    @property
    def max_length(self) -> int:
        """Tokens a prompt is cut to."""
        return int(self.meta["max_length"])

    def logits(
        self, texts: Sequence[str], *, batch_tokens: int = 4096, progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Raw outputs of both heads: (n, 2) in the order of LABELS, and (n, number of threat types).

        Args:
            texts: Prompts; those over `max_length` tokens are cut.
            batch_tokens: Prompts of like length are batched up to so many tokens, padding included.
            progress: Called with (done, total) after each batch.
        """
        import torch

        ids = [item.ids for item in self.tokenizer.encode_batch(list(texts))]
        binary = np.zeros((len(ids), 2), dtype=np.float32)
        threat = np.zeros((len(ids), len(self.threat_types)), dtype=np.float32)
        device = next(self.network.parameters()).device
        done = 0
        for rows in _length_batches([len(row) for row in ids], batch_tokens):
            padded, mask = pad([ids[row] for row in rows], int(self.meta["pad_id"]))
            with torch.inference_mode():
                outputs = self.network(torch.from_numpy(padded).to(device), torch.from_numpy(mask).to(device))
            binary[rows], threat[rows] = (output.float().cpu().numpy() for output in outputs)
            done += len(rows)
            if progress:
                progress(done, len(ids))
        return binary, threat

    def margins(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float64]:
        """logit(MALICIOUS) - logit(BENIGN) of each text: what calibration works on."""
        binary, _ = self.logits(texts, progress=progress)
        return margins_of(binary)

    def score(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float64]:
        """Calibrated P(malicious) of each text."""
        return self.calibration(self.margins(texts, progress=progress))

    def threats(self, texts: Sequence[str]) -> list[str]:
        """The threat type of each text, as if it were an attack; `unknown` where no type has the majority."""
        _, threat = self.logits(texts)
        return self.name_threats(threat)

    def name_threats(self, threat_logits: NDArray[np.float32]) -> list[str]:
        """Threat types of rows of threat logits."""
        if not self.meta.get("threat_head_trained", True) or not len(threat_logits):
            return ["unknown"] * len(threat_logits)
        shifted = np.exp(threat_logits - threat_logits.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        sure = probabilities.max(axis=1) >= THREAT_MAJORITY
        names = self.threat_types
        return [names[index] if certain else "unknown" for index, certain in zip(best, sure, strict=True)]


def margins_of(binary_logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """logit(MALICIOUS) - logit(BENIGN) of each row."""
    wide = binary_logits.astype(np.float64)
    return np.asarray(wide[:, 1] - wide[:, 0], dtype=np.float64)


def read_meta(model_dir: Path) -> dict[str, Any]:
    """crywolf.json of a model folder, checked for the fields that scoring needs."""
    path = model_dir / META
    if not path.is_file():
        raise BadInput(f"{model_dir}: no model folder ({META} is missing); give the folder that training wrote")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _NEEDED if key not in meta]
    except (ValueError, TypeError) as error:
        raise CorruptPackage(f"{path}: not readable ({error}); train or copy the model again") from error
    if missing:
        raise CorruptPackage(f"{path}: lacks {', '.join(missing)}; train or copy the model again")
    if meta["format"] != FORMAT:
        raise CorruptPackage(f"{path}: format {meta['format']!r}, this version reads {FORMAT}; update crywolf")
    return dict(meta)


_NEEDED = ("format", "labels", "threat_types", "max_length", "pad_id", "calibration", "threshold", "sha256")


def verify(model_dir: Path, meta: Mapping[str, Any]) -> None:
    """Check every hashed file of a model folder against crywolf.json; CorruptPackage if one differs."""
    recorded = meta["sha256"]
    for name in HASHED:
        path = model_dir / name
        if not path.is_file():
            raise CorruptPackage(f"{path}: missing; train or copy the model again")
        if recorded.get(name) != sha256(path):
            raise CorruptPackage(f"{path}: not the file that was saved (its SHA-256 differs); train or copy it again")


def load_network(model_dir: Path, meta: Mapping[str, Any]) -> "ThreatClassifier":
    """The torch module of a model folder with its weights, in eval mode on the CPU. It does not check hashes."""
    from .network import empty_classifier

    try:
        network = empty_classifier(model_dir, n_threats=len(meta["threat_types"]), dropout=0.0)
        load_weights(network, model_dir / WEIGHTS)
    except CorruptPackage:
        raise
    except Exception as error:  # a torn file fails in as many ways as there are layers below
        raise CorruptPackage(f"{model_dir}: cannot be loaded ({error}); train or copy the model again") from error
    return network.eval()


def load_tokenizer(model_dir: Path, max_length: int) -> Any:
    """The fast tokenizer of a folder, truncating to `max_length` and not padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_length)
    return tokenizer


def save_weights(network: "ThreatClassifier", path: Path) -> None:
    """All weights of the module as one safetensors file."""
    from safetensors.torch import save_model

    save_model(network, str(path))


def load_weights(network: "ThreatClassifier", path: Path) -> None:
    """Put the weights of a safetensors file into the module; CorruptPackage unless they are exactly its own."""
    from safetensors.torch import load_model

    try:
        load_model(network, str(path), strict=True)
    except Exception as error:  # safetensors and torch each raise their own kinds
        raise CorruptPackage(f"{path}: not the weights of this model ({str(error).splitlines()[0]})") from error


def write_model(
    model_dir: Path, *, meta: Mapping[str, Any], write_files: Callable[[Path], None], force: bool = False
) -> Path:
    """Write a model folder in one step: into a temporary neighbour, hashed, then renamed.

    Args:
        model_dir: Where the folder shall be.
        meta: crywolf.json without `sha256`.
        write_files: Called with the temporary folder; writes weights, config and tokenizer into it.
        force: Replace a folder that is there.
    """
    import shutil

    if model_dir.exists() and not force:
        raise BadInput(f"{model_dir}: exists; choose another folder or use force")
    temporary = model_dir.with_name(f".{model_dir.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_files(temporary)
        hashes = {name: sha256(temporary / name) for name in HASHED}
        _write_json(temporary / META, {"format": FORMAT, **meta, "sha256": hashes})
        if model_dir.exists():
            shutil.rmtree(model_dir)
        temporary.rename(model_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model_dir


def update_meta(model_dir: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change fields of a model folder's crywolf.json (calibration, threshold), atomically; gives the new content."""
    meta = read_meta(model_dir) | dict(changes)
    temporary = model_dir / f".{META}.{os.getpid()}.tmp"
    _write_json(temporary, meta)
    temporary.replace(model_dir / META)
    return meta


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of what the numbers of a training depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("crywolf", "torch", "transformers", "tokenizers", "accelerate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, default=_plain)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices in batches of like length, each at most `batch_tokens` wide (and at least one row)."""
    batches: list[list[int]] = []
    current: list[int] = []
    for row in np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        # Sorted upwards: the row to come is the widest of its batch.
        if current and max(lengths[row], 1) * (len(current) + 1) > batch_tokens:
            batches.append(current)
            current = []
        current.append(row)
    if current:
        batches.append(current)
    return batches
