"""Files that are there whole or not at all.

Takes the path of an output, gives a temporary one in the same folder to write to, and renames it when all went well.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BadInput

_TAIL_BYTES = 200


def check_target(path: str | Path, *, force: bool = False) -> Path:
    """Say before any work starts whether an output may be written to a path.

    Raises:
        BadInput: the path is a folder, exists and `force` is not set, or lies below a file.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise BadInput(f"{target}: is a folder, a file is to be written; name a file in it")
        if target.exists() and not force:
            raise BadInput(f"{target}: exists already; choose another name or use --force")
        blocked = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    except (OSError, ValueError) as error:
        raise BadInput(f"{target}: cannot be written: {_why(error)}") from error
    if blocked is not None:
        raise BadInput(f"{target}: cannot be written, {blocked} is a file and not a folder")
    return target


@contextmanager
def atomic_path(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Write to the yielded path; it takes the place of `path` at the end, or vanishes if anything goes wrong.

    The temporary file keeps all suffixes of the target, for writers that look at them. Missing folders are made.
    Without `force` a file that appeared in the meantime is not replaced either.

    Raises:
        BadInput: as `check_target`, or the file cannot be written.
    """
    target = check_target(path, force=force)
    temporary = target.with_name(_temporary_name(target.name))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        _put(temporary, target, force=force)
        _sync(target.parent)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {_why(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """A random name that ends as `name` does and, unlike it, is never too long for a file system."""
    # The limit counts bytes (255 mostly); a character that the cut splits is dropped.
    end = os.fsencode(name)[-_TAIL_BYTES:].decode("utf-8", "ignore")
    return f".tmp-{secrets.token_hex(6)}-{end}"


def _put(temporary: Path, target: Path, *, force: bool) -> None:
    if force:
        temporary.replace(target)
        return
    try:
        # A hard link refuses to replace, which a rename does not; some file systems have no links.
        os.link(temporary, target)
    except FileExistsError as error:
        raise BadInput(f"{target}: appeared while it was being written; choose another name or use --force") from error
    except OSError:
        temporary.replace(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
