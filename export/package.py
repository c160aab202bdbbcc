"""The package: one folder that holds a detector whole, and the check that it is what was written.

Holds the file names, the settings beside the model (`PackageInfo`) and the manifest of hashes. Takes and gives plain
dataclasses; knows nothing of torch, ONNX or tokenizers, so that the runtime can read a package with little installed.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crywolf.data import CorruptPackage

MODEL = "model.int8.onnx"
TOKENIZER = "tokenizer.json"
SETTINGS = "package.json"
CARD = "MODEL_CARD.md"
MANIFEST = "manifest.json"
FORMAT = 1
MAX_CHARS = 4096


@dataclass(frozen=True)
class PackageInfo:
    """What a detector needs beside its weights.

    Attributes:
        version: name of this model in answers and logs.
        labels: class names in the order of the binary head's outputs; BENIGN first.
        threat_types: names in the order of the threat head's outputs.
        scale: factor on the logit margin MALICIOUS - BENIGN (Platt); the temperature is its inverse.
        bias: offset added after scaling (Platt).
        thresholds: decision thresholds on the calibrated score by name; "default" decides.
        max_length: tokens that the model reads, special tokens included; the rest is cut.
        max_chars: characters that the detector accepts; longer prompts are cut with a note.
        metadata: what else is worth keeping (recipe, encoder, sizes, parity); never read by the runtime.
    """

    version: str
    labels: tuple[str, ...]
    threat_types: tuple[str, ...]
    scale: float
    bias: float
    thresholds: dict[str, float]
    max_length: int
    max_chars: int = MAX_CHARS
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """The temperature that `scale` stands for (1 / scale)."""
        return 1.0 / self.scale

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they stand in package.json."""
        return {"format": FORMAT, **asdict(self), "temperature": self.temperature}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_settings(folder: Path, info: PackageInfo) -> None:
    """Write package.json into `folder`."""
    text = json.dumps(info.to_json(), indent=2, ensure_ascii=False)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")


def write_manifest(folder: Path) -> None:
    """Write manifest.json: size and SHA-256 of every other file of the package."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    text = json.dumps({"format": FORMAT, "files": files}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def verify(folder: Path) -> None:
    """Check every file of the package against its manifest.

    Raises:
        CorruptPackage: no manifest, a file missing or altered, or a needed file that the manifest does not name.
    """
    files = _read_json(folder / MANIFEST).get("files")
    if not isinstance(files, dict):
        raise CorruptPackage(f"{folder / MANIFEST}: no list of files in it; export the model again")
    missing = [name for name in (MODEL, TOKENIZER, SETTINGS) if name not in files]
    if missing:
        raise CorruptPackage(f"{folder / MANIFEST}: does not name {missing[0]}; export the model again")
    for name, entry in files.items():
        path = folder / name
        if Path(name).name != name or not isinstance(entry, dict):
            raise CorruptPackage(f"{folder / MANIFEST}: {name!r} is not an entry for a file of the package")
        if not path.is_file():
            raise CorruptPackage(f"{path}: named in the manifest but not there; export the model again")
        if sha256(path) != entry.get("sha256"):
            raise CorruptPackage(f"{path}: its SHA-256 is not the manifest's; the file was altered or cut off")


def read_settings(folder: Path) -> PackageInfo:
    """Read package.json.

    Raises:
        CorruptPackage: it is missing, not JSON, of another format, or lacks a field.
    """
    raw = _read_json(folder / SETTINGS)
    if raw.get("format") != FORMAT:
        raise CorruptPackage(f"{folder / SETTINGS}: format {raw.get('format')!r}, this version reads format {FORMAT}")
    try:
        info = PackageInfo(
            version=str(raw["version"]),
            labels=tuple(raw["labels"]),
            threat_types=tuple(raw["threat_types"]),
            scale=float(raw["scale"]),
            bias=float(raw["bias"]),
            thresholds={str(name): float(value) for name, value in raw["thresholds"].items()},
            max_length=int(raw["max_length"]),
            max_chars=int(raw["max_chars"]),
            metadata=dict(raw.get("metadata") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptPackage(f"{folder / SETTINGS}: {error!r}") from error
    if info.labels != ("BENIGN", "MALICIOUS") or "default" not in info.thresholds or info.scale <= 0:
        raise CorruptPackage(f"{folder / SETTINGS}: labels, default threshold or scale are not a detector's")
    return info


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorruptPackage(f"{path}: not there; is {path.parent} a package made by `crywolf export`?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptPackage(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(raw, dict):
        raise CorruptPackage(f"{path}: expected a JSON object")
    return raw
