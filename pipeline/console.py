"""What people see: rich tables and progress bars on a terminal, one JSON document with --json.

Takes plain rows and numbers; gives output on stdout (results) and stderr (progress), so that pipes stay clean.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crywolf.data import Progress

LINE_SECONDS = 30.0
"""Where there is no terminal, long work says this often how far it is."""


class Console:
    """One command's output: tables for people, or everything collected into one JSON document.

    Args:
        as_json: print nothing but one JSON document at the end (`finish`).
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.document: dict[str, Any] = {}
        self._bars: Any = None

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
        """Give a callback (done, total): a bar on a terminal, elsewhere a line twice a minute, with --json nothing.

        Inside another progress the bar stands under the outer one.
        """
        if self.as_json:
            yield lambda done, total: None
        elif not sys.stderr.isatty():
            yield self._lines(label)
        elif self._bars is None:
            with self._new_bars() as self._bars:
                try:
                    yield self._bar(label)
                finally:
                    self._bars = None
        else:
            bars, before = self._bars, set(self._bars.task_ids)
            try:
                yield self._bar(label)
            finally:
                for task in set(bars.task_ids) - before:
                    bars.remove_task(task)

    def _bar(self, label: str) -> Progress:
        bars = self._bars
        task = bars.add_task(label, total=None)
        return lambda done, total: bars.update(task, completed=done, total=total)

    def _new_bars(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self._rich(stderr=True), transient=True)

    def _lines(self, label: str) -> Progress:
        last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                self.say(f"{label}: {done:,} of {total:,}")

        return tell

    def finish(self) -> None:
        """Print the JSON document, if that was asked for."""
        if self.as_json:
            json.dump(self.document, sys.stdout, indent=2, ensure_ascii=False, default=str)
            sys.stdout.write("\n")

    def _rich(self, *, stderr: bool = False) -> Any:
        from rich.console import Console as RichConsole

        # Beside a bar everything for stderr goes through the bar, or it would be drawn over.
        return self._bars.console if stderr and self._bars is not None else RichConsole(stderr=stderr)


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
