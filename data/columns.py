"""Column names: those of a file brought to the contract's, before anything asks what a column means.

Takes a mapping (the file's column -> ours) and rows or frames as they were parsed; gives them under our names. What the
file itself keeps under a name that a mapped column takes is set aside, so that it neither mixes with it nor is lost.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from .errors import BadInput
from .schema import KNOWN


@dataclass(frozen=True)
class Columns:
    """Which of a file's columns is which of ours; a target may also be a name that the contract does not have.

    `ignored` are set aside wherever they stand, unless they are mapped.
    """

    ours: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Mapping[str, str] | None, ignored: Collection[str] = ()) -> "Columns":
        """The file's column -> ours and the columns to ignore, as a caller says it.

        Raises:
            BadInput: two columns are mapped to one.
        """
        ours = {theirs: _plain_name(name) for theirs, name in (given or {}).items()}
        first: dict[str, str] = {}
        for theirs, name in ours.items():
            if name in first:
                raise BadInput(f"columns {first[name]} and {theirs} are both mapped to {name}; map only one of them")
            first[name] = theirs
        return cls(ours, frozenset(ignored))

    def names(self, names: list[str]) -> list[str]:
        """The names of a file's columns once they are mapped.

        Raises:
            BadInput: a mapped column is not among them.
        """
        missing = [theirs for theirs in self.ours if theirs not in names]
        if names and missing:
            raise BadInput(f"no column {missing[0]}; its columns are: {', '.join(name[:40] for name in names[:12])}")
        return [self.ours.get(name, name) for name in names if not self._gives_way(name)]

    def frame(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A frame under our names, and the columns set aside, under their own."""
        away = [name for name in frame.columns if self._gives_way(name)]
        mapped = frame.drop(away).rename(dict(self.ours), strict=False)
        return mapped, frame.select(name for name in away if self._is_kept(name))

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row under our names, without what is set aside."""
        return {self.ours.get(name, name): value for name, value in row.items() if not self._gives_way(name)}

    def aside(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What of a row is set aside, under its own names."""
        return {name: value for name, value in row.items() if self._gives_way(name) and self._is_kept(name)}

    def _gives_way(self, name: str) -> bool:
        return name not in self.ours and (name in self.ignored or _plain_name(name) in self.ours.values())

    def _is_kept(self, name: str) -> bool:
        # A target beyond the contract lives in extra.other itself, where one name has one place.
        return name in self.ignored or _plain_name(name) in KNOWN


def _plain_name(name: str) -> str:
    return "text" if name == "prompt" else name
