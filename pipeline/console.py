"""What people see: rich tables and progress bars on a terminal, one JSON document with --json.

Takes plain rows and numbers; gives output on stdout (results) and stderr (progress), so that pipes stay clean.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crywolf.data import Progress


class Console:
    """One command's output: tables for people, or everything collected into one JSON document.

    Args:
        as_json: print nothing but one JSON document at the end (`finish`).
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.document: dict[str, Any] = {}

    def say(self, line: str) -> None:
        """Print a line for people on stderr: what is being done."""
        if not self.as_json:
            self._rich(stderr=True).print(line, highlight=False, markup=False)

    def warn(self, line: str) -> None:
        """Print a line on stderr, with --json too: what went differently from what was asked for."""
        sys.stderr.write(f"crywolf: {line}\n")

    def table(self, key: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show rows as a table; in JSON they stand under `key` as a list of objects."""
        rows = [list(row) for row in rows]
        self.document[key] = [dict(zip(columns, row, strict=True)) for row in rows]
        if self.as_json or not rows:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
        for i, column in enumerate(columns):
            numeric = all(isinstance(row[i], int | float) or row[i] is None for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*[Text(cell(value)) for value in row])
        self._rich().print(table)

    def result(self, key: str, value: Any, line: str | None = None) -> None:
        """Keep a value for JSON and print its line for people."""
        self.document[key] = value
        if line is not None and not self.as_json:
            self._rich().print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Give a callback (done, total) that draws a bar on a terminal and stays silent elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._rich(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def finish(self) -> None:
        """Print the JSON document, if that was asked for."""
        if self.as_json:
            json.dump(self.document, sys.stdout, indent=2, ensure_ascii=False, default=str)
            sys.stdout.write("\n")

    @staticmethod
    def _rich(*, stderr: bool = False) -> Any:
        from rich.console import Console as RichConsole

        return RichConsole(stderr=stderr)


def cell(value: Any) -> str:
    """Return a table cell's text: thousands separated, three significant decimals, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return str(value)
