"""A command's inputs: read through one place that remembers the rows which could not be used.

Takes paths, gives frames; what was left out is said on stderr, stands in the JSON document, and can be written beside
an output.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from crywolf.data import FalsePositives, read_corpus, read_fps, write_rejected

from .console import Console

_SHOWN = 5


@dataclass
class Reader:
    """Reads the inputs of one command.

    Attributes:
        console: is told what was left out.
        max_rejected: share of unusable rows that a file may have.
        rejected: the rows left out so far, a frame for each file that had any.
    """

    console: Console
    max_rejected: float = 0.01
    rejected: list[pl.DataFrame] = field(default_factory=list)

    def corpus(self, path: Path, *, label: str | None = None) -> pl.DataFrame:
        """Read a corpus; `label` is for rows that have none."""
        found = read_corpus(path, label=label, max_rejected=self.max_rejected)
        self.left_out(path, found.rejected, len(found.frame))
        return found.frame

    def fps(self, path: Path, *, prompts: Path | None = None) -> FalsePositives:
        """Read false positives, cut ones made whole from `prompts`."""
        found = read_fps(path, prompts=prompts, max_rejected=self.max_rejected)
        own = pl.col("file") == str(path)
        self.left_out(path, found.rejected.filter(own), len(found.frame) + found.cut_left_out)
        if prompts is not None:
            self.left_out(prompts, found.rejected.filter(~own))
        return found

    def references(self, paths: Sequence[Path]) -> list[tuple[str, pl.DataFrame]]:
        """Read corpora that something is compared with, each under a name of its own: the file's, or its whole path."""
        names = [path.name for path in paths]
        return [
            (str(path) if names.count(path.name) > 1 else path.name, self.corpus(path, label="BENIGN"))
            for path in dict.fromkeys(paths)
        ]

    def left_out(self, path: Path, bad: pl.DataFrame, usable: int | None = None) -> None:
        """Keep and say which rows of a file were left out, beside the `usable` ones where their number is known."""
        if bad.is_empty():
            return
        self.rejected.append(bad)
        share = f"{len(bad):,}" if usable is None else f"{len(bad):,} of {len(bad) + usable:,}"
        self.console.warn(f"{path}: {share} rows left out: {_reasons(bad)}")
        listed = self.console.document.setdefault("rejected", [])
        listed += bad.select("file", "line", "column", "reason").to_dicts()

    def write_beside(self, out: Path, *, force: bool) -> None:
        """Write the rows that were left out beside `out`; without any, an older output's file goes."""
        write_rejected(pl.concat(self.rejected) if self.rejected else pl.DataFrame(), out, force=force)


def _reasons(bad: pl.DataFrame) -> str:
    said = []
    for row in bad.head(_SHOWN).iter_rows(named=True):
        place = [f"line {row['line']:,}"] if row["line"] is not None else []
        place += [f"column {row['column']}"] if row["column"] else []
        said.append(f"{', '.join(place)}: {row['reason']}" if place else row["reason"])
    return "; ".join(said) + (f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else "")
