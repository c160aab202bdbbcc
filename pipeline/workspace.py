"""A run's folder: steps that are done once, remembered by what they were made from, and not made again.

Takes a step's name and the values that its result depends on; gives its folder. A run that was cut off goes on where it
stopped; a run with other settings is refused rather than mixed with the old one.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.data import BadInput, CorruptPackage, RunManifest, atomic_path, check_corpus, file_hash, write_corpus
from crywolf.data.manifest import manifest_path

MARK = "step.json"
_STEPS = ("split", "grow", "mine", "train")
"""First words of the manifests that steps write."""


@dataclass(frozen=True)
class Workspace:
    """The folder of a run.

    Attributes:
        root: where the steps' folders are.
        force: make a step again whose settings changed, or that an earlier version made, instead of refusing.
    """

    root: Path
    force: bool = False

    def step(
        self,
        name: str,
        key: Mapping[str, Any],
        make: Callable[[Path], RunManifest],
        *,
        resumable: bool = False,
        renewed_by: Collection[str] = (),
    ) -> tuple[Path, bool]:
        """Make a step unless it is there already.

        Args:
            name: of the step's folder, may hold "/".
            key: what the result depends on: parameters, hashes of inputs, keys of steps before. JSON-ready.
            make: fills the folder and gives its manifest, which is written beside the results.
            resumable: leave an unfinished folder as it is for `make` to go on from; else it starts empty.
            renewed_by: parts of the key; where nothing but these changed, the step is made again without `force`.

        Returns:
            The folder, and whether it was there already.

        Raises:
            BadInput: the step is there, made with another key or by an earlier version, and `force` is not set; names
                what changed. Or what is there was not made by a run, or the folder cannot be made.
        """
        folder = self.root / name
        print_ = fingerprint(key)
        found = self._mark(folder)
        if found is not None and found.get("fingerprint") == print_ and found.get("done"):
            return folder, True
        if found is not None and found.get("fingerprint") != print_:
            self._refuse_unless_forced(folder, found, key, renewed_by)
        if found is None:
            _refuse_foreign(folder, force=self.force)
        try:
            if folder.exists() and not (resumable and found is not None and found.get("fingerprint") == print_):
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: cannot be made: {error.strerror or error}; choose another `out`") from error
        self._write(folder, {"fingerprint": print_, "key": dict(key), "done": False})
        manifest = make(folder)
        manifest.write(folder)
        self._write(folder, {"fingerprint": print_, "key": dict(key), "done": True})
        return folder, False

    def _refuse_unless_forced(
        self, folder: Path, found: Mapping[str, Any], key: Mapping[str, Any], renewed_by: Collection[str]
    ) -> None:
        if self.force:
            return
        old, new = found.get("key", {}), json.loads(json.dumps(dict(key), default=str))
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if changed and set(changed) <= set(renewed_by):
            return
        raise BadInput(
            f"{folder}: made with another {', '.join(changed) or 'version'}; "
            "choose another `out`, or give --force to make it again"
        )

    @staticmethod
    def _mark(folder: Path) -> dict[str, Any] | None:
        try:
            raw = json.loads((folder / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return raw if isinstance(raw, dict) else None

    @staticmethod
    def _write(folder: Path, content: Mapping[str, Any]) -> None:
        with atomic_path(folder / MARK, force=True) as target:
            target.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def _refuse_foreign(folder: Path, *, force: bool) -> None:
    """Refuse to empty a folder that no step has made: it may be somebody's data.

    What runs made before growing and mining were steps has a manifest but no mark; it is emptied with `force`.
    """
    if not folder.exists() or (folder.is_dir() and all(path.name.startswith(".tmp-") for path in folder.iterdir())):
        return
    if not _of_a_run(folder):
        raise BadInput(f"{folder}: is there and was not made by a run; move it away, or choose another `out`")
    if not force:
        raise BadInput(
            f"{folder}: made by an earlier version of crywolf, which kept no account of what it depends on; "
            "choose another `out`, or give --force to make it again"
        )


def _of_a_run(folder: Path) -> bool:
    """Whether a folder without a mark holds a run's manifest, with the name of the step that wrote it."""
    if not folder.is_dir():
        return False
    try:
        raw = json.loads(manifest_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    command = raw.get("command") if isinstance(raw, dict) else None
    return isinstance(command, str) and command.split(" ")[0] in _STEPS and "parameters" in raw


def fingerprint(key: Mapping[str, Any]) -> str:
    """Return 16 hex digits that stand for `key`; equal keys, in whatever order, give equal digits."""
    text = json.dumps(dict(key), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def save_rows(folder: Path, name: str, frame: pl.DataFrame, account: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the contract rows that a step made, and the account of them, for `load_rows`.

    Args:
        folder: of the step.
        name: of the files: `<name>.parquet`, and `<name>.json` with the account and the rows' hash.
        frame: the rows.
        account: JSON-ready.

    Returns:
        Both files.
    """
    rows, told = write_corpus(frame, folder / f"{name}.parquet", force=True), folder / f"{name}.json"
    content = {"sha256": file_hash(rows), "account": dict(account)}
    with atomic_path(told, force=True) as target:
        target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return rows, told


def load_rows(folder: Path, name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read back what `save_rows` wrote: the same rows in the same order, and the account.

    Raises:
        CorruptPackage: a file is missing or unreadable, or the rows are not those that were saved.
    """
    rows, account = folder / f"{name}.parquet", folder / f"{name}.json"
    try:
        content = json.loads(account.read_text(encoding="utf-8"))
        expected, told = content["sha256"], dict(content["account"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptPackage(f"{account}: not readable ({error!r}); delete {folder} to have it made again") from error
    if not rows.is_file() or file_hash(rows) != expected:
        raise CorruptPackage(f"{rows}: missing or not the rows that were saved; delete {folder} to have it made again")
    return check_corpus(pl.read_parquet(rows)), told
