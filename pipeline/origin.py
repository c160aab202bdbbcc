"""Where a run's configuration came from, for a report that says how to make the run again and nothing of whose it was.

Takes the configuration's file and the words of the command line; gives the command, quoted for a shell, and places as
seen from the file, both without what opens an address.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .cli import GIVEN
from .config import Config


@dataclass(frozen=True)
class Origin:
    """Where a configuration came from.

    Attributes:
        file: it was read from, as it was named.
        config: what stands in the file, before options changed it.
        words: of the command line, `crywolf` itself left out; empty where there was none.
    """

    file: Path
    config: Config
    words: tuple[str, ...] = ()

    def command(self, name: str) -> str:
        """Return the command as it was given, or the plain one of that name where none was."""
        words = self.words or (name, "--config", str(self.file))
        return shlex.join(["crywolf", *map(_public, words)])

    def shown(self, value: Any) -> Any:
        """Return a value, or one of lists and mappings, with paths as seen from the file's folder.

        A path elsewhere stays as it was given, an address loses what opens it.
        """
        if isinstance(value, dict):
            return {key: self.shown(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.shown(one) for one in value]
        if not isinstance(value, str):
            return value
        folder = str(self.file.resolve().parent)
        return "." if value == folder else without_secrets(value.removeprefix(folder.rstrip(os.sep) + os.sep))

    def changed(self, now: Config) -> list[str]:
        """Return the keys in which a configuration is not the file's, each with what the file says."""
        then, other = (dict(_flat(one.model_dump(mode="json", exclude={"tracking"}))) for one in (self.config, now))
        return [
            f"{key} (there: {'not set' if value is None else self.shown(value)})"
            for key, value in then.items()
            if other[key] != value
        ]


def given_words() -> tuple[str, ...]:
    """Return the words of the command line that runs, none where a command is called in another way."""
    context = click.get_current_context(silent=True)
    return () if context is None else tuple(context.meta.get(GIVEN, ()))


def without_secrets(place: str) -> str:
    """A detector's or a store's address without user, password, query and fragment; other names as they are."""
    found = re.match(r"([a-z][a-z0-9+.-]*://)([^/?#]*)([^?#]*)", place, re.IGNORECASE)
    return place if found is None else found[1].lower() + found[2].rpartition("@")[2] + found[3]


def _public(word: str) -> str:
    """A word of a command line without secrets; it may be `--option=address`."""
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + sign + without_secrets(value)


def _flat(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
