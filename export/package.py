"""The package: one folder that holds a detector whole, and the check that it is what was written.

Holds the file names, the settings beside the model (`PackageInfo`) and the manifest of hashes. Takes and gives plain
dataclasses; knows nothing of torch, ONNX or tokenizers, so that the runtime can read a package with little installed.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from crywolf.data import BadInput, CorruptPackage

MODEL = "model.int8.onnx"
TOKENIZER = "tokenizer.json"
SETTINGS = "package.json"
CARD = "MODEL_CARD.md"
RULES = "rules.yaml"
MANIFEST = "manifest.json"
FORMAT = 1
MAX_CHARS = 4096
POINTS: Final = ("strict", "balanced", "lenient")
"""The operating points by rising threshold."""


@dataclass(frozen=True)
class PackageInfo:
    """What a detector needs beside its weights.

    Attributes:
        version: name of this model in answers and logs.
        labels: class names in the order of the binary head's outputs; BENIGN first.
        threat_types: names in the order of the threat head's outputs.
        scale: factor on the logit margin MALICIOUS - BENIGN (Platt); the temperature is its inverse.
        bias: offset added after scaling (Platt).
        thresholds: decision thresholds on the calibrated score by name; "default" decides. Others are the operating
            points "strict", "balanced" (the default by another name) and "lenient"; older packages have none.
        max_length: tokens that the model reads, special tokens included; the rest is cut.
        max_chars: characters that the detector accepts; longer prompts are cut with a note.
        threat_head_trained: whether the threat head has learned anything; where not, every threat type is "unknown".
        decode: whether what stands in a prompt in code is judged too, unless who loads the package says otherwise;
            packages of before this setting decode.
        metadata: what else is worth keeping (recipe, encoder, sizes, parity, what the operating points did to the rows
            that they were chosen on); nothing is decided by it.
    """

    version: str
    labels: tuple[str, ...]
    threat_types: tuple[str, ...]
    scale: float
    bias: float
    thresholds: dict[str, float]
    max_length: int
    max_chars: int = MAX_CHARS
    threat_head_trained: bool = True
    decode: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """The temperature that `scale` stands for (1 / scale)."""
        return 1.0 / self.scale

    def check(self, where: Path) -> None:
        """Check that a detector can decide by these settings.

        Raises:
            CorruptPackage: the labels, the scale, the bias, a threshold or an operating point are not a detector's; it
                names `where`.
        """
        if self.labels != ("BENIGN", "MALICIOUS"):
            raise CorruptPackage(f"{where}: labels {', '.join(map(str, self.labels))}; expected BENIGN, MALICIOUS")
        # A scale so small that its inverse overflows would make every score the same.
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.temperature)):
            raise CorruptPackage(f"{where}: scale {self.scale}; expected a finite number above 0")
        if not math.isfinite(self.bias):
            raise CorruptPackage(f"{where}: bias {self.bias}; expected a finite number")
        if "default" not in self.thresholds:
            raise CorruptPackage(f"{where}: no default threshold")
        for name, value in self.thresholds.items():
            # Calibration caps "flag nothing" at 1, so that nothing beyond is ever written; NaN compares as false.
            if not 0.0 <= value <= 1.0:
                raise CorruptPackage(f"{where}: threshold {name} {value}; expected a number from 0 to 1")
        self._check_points(where)

    def _check_points(self, where: Path) -> None:
        """Check that the points stand in their order, and where the metadata says they do."""
        if self.thresholds.get("balanced", self.thresholds["default"]) != self.thresholds["default"]:
            raise CorruptPackage(f"{where}: thresholds balanced and default differ; they are one")
        placed = [name for name in POINTS if name in self.thresholds or name == "balanced"]
        for low, high in pairwise(placed):
            if self.threshold(low) > self.threshold(high):
                raise CorruptPackage(f"{where}: threshold {low} {self.threshold(low)} is above that of {high}")
        for name, point in check_points(self.metadata.get("operating_points"), where).items():
            if self.thresholds.get(name) != point["threshold"]:
                raise CorruptPackage(
                    f"{where}: operating_points.{name}.threshold {point['threshold']} is not the threshold that decides"
                )

    def threshold(self, at: str | None = None) -> float:
        """Return the threshold of an operating point, or the default one.

        Raises:
            BadInput: the package has no such point; the message names those that it has.
        """
        name = "default" if at is None or (at == "balanced" and at not in self.thresholds) else at
        if name not in self.thresholds:
            raise BadInput(
                f"package {self.version} has no operating point {at!r}; it has {', '.join(self.thresholds)} "
                "(train or calibrate anew, and export, to give it others)"
            )
        return self.thresholds[name]

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they stand in package.json."""
        return {"format": FORMAT, **asdict(self), "temperature": self.temperature}


def check_points(raw: Any, where: Path) -> dict[str, dict[str, Any]]:
    """Return operating points as they stand in a JSON file, once they are whole.

    Args:
        raw: name -> threshold, target, fp, recall (each with k and n) and notes; None stands for no points.
        where: the file, for the message.

    Raises:
        CorruptPackage: they are not such a mapping, a name is no point's, or a field is missing or of another kind; it
            names `where` and the field.
    """
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise CorruptPackage(f"{where}: operating_points: expected a mapping of {', '.join(POINTS)}")
    for name, point in raw.items():
        if name not in POINTS:
            raise CorruptPackage(f"{where}: operating_points: no point {name!r}; there are {', '.join(POINTS)}")
        if not isinstance(point, dict):
            raise CorruptPackage(f"{where}: operating_points.{name}: expected a mapping, not {type(point).__name__}")
        for field_, (is_good, expected) in _POINT_FIELDS.items():
            if not is_good(point.get(field_)):
                said = f"is {point[field_]!r}" if field_ in point else "is missing"
                raise CorruptPackage(f"{where}: operating_points.{name}.{field_} {said}; expected {expected}")
    return raw


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_rate(value: Any) -> bool:
    k, n = (value.get("k"), value.get("n")) if isinstance(value, dict) else (None, None)
    # bool is an int to isinstance.
    return type(k) is int and type(n) is int and 0 <= k <= n


def _is_notes(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(note, str) for note in value)


_RATE = "counts k and n, k from 0 to n"
_POINT_FIELDS: Final = {
    "threshold": (_is_share, "a number from 0 to 1"),
    "target": (lambda value: isinstance(value, str), "a text"),
    "fp": (_is_rate, _RATE),
    "recall": (_is_rate, _RATE),
    "notes": (_is_notes, "a list of texts"),
}


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


def is_package(folder: Path) -> bool:
    """Tell by its settings and its manifest, which must name them, whether a folder is a package, damaged or not."""
    # package.json and manifest.json alone also lie in folders of quite other programs.
    try:
        files = _read_json(folder / MANIFEST).get("files")
    except CorruptPackage:
        return False
    return isinstance(files, dict) and SETTINGS in files and (folder / SETTINGS).is_file()


def verify(folder: Path) -> None:
    """Check every file of the package against its manifest.

    Raises:
        CorruptPackage: no manifest, a file missing or altered, or a needed file that the manifest does not name; rules
            that it does not name, since they would decide.
    """
    files = _read_json(folder / MANIFEST).get("files")
    if not isinstance(files, dict):
        raise CorruptPackage(f"{folder / MANIFEST}: no list of files in it; export the model again")
    missing = [name for name in (MODEL, TOKENIZER, SETTINGS) if name not in files]
    if missing:
        raise CorruptPackage(f"{folder / MANIFEST}: does not name {missing[0]}; export the model again")
    if RULES not in files and (folder / RULES).exists():
        raise CorruptPackage(f"{folder / RULES}: not named in the manifest; export with these rules, or remove them")
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
        CorruptPackage: it is missing, not JSON, of another format, lacks a field, or holds a number or an operating
            point that a detector cannot decide by.
    """
    raw = _read_json(folder / SETTINGS)
    if raw.get("format") != FORMAT:
        raise CorruptPackage(f"{folder / SETTINGS}: format {raw.get('format')!r}, this version reads format {FORMAT}")
    try:
        info = PackageInfo(
            version=str(raw["version"]),
            labels=tuple(raw["labels"]),
            threat_types=tuple(raw["threat_types"]),
            scale=_number(raw["scale"]),
            bias=_number(raw["bias"]),
            thresholds={str(name): _number(value) for name, value in raw["thresholds"].items()},
            max_length=int(raw["max_length"]),
            max_chars=int(raw["max_chars"]),
            threat_head_trained=_flag(raw.get("threat_head_trained", True)),
            decode=_flag(raw.get("decode", True)),
            metadata=dict(raw.get("metadata") or {}),
        )
        _number(raw.get("temperature", 1.0))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise CorruptPackage(f"{folder / SETTINGS}: {error!r}") from error
    info.check(folder / SETTINGS)
    return info


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


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
