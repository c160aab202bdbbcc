"""What people and machines see of long work."""

import io
import sys

import pytest

from crywolf import console as module
from crywolf.console import Console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_long_work_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    with Console().progress("growing") as progress:
        for done in range(12):
            progress(done, 2_000)
    told = capsys.readouterr()
    assert told.out == ""
    assert 2 <= len(told.err.splitlines()) <= 4
    assert all(line.startswith("growing: ") and line.endswith("of 2,000") for line in told.err.splitlines())


def test_short_work_and_json_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (Console(), Console(as_json=True)):
        with console.progress("growing") as progress:
            progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_one_progress_inside_another_draws_both_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    with console.progress("growing") as outer:
        outer(1, 4)
        for turn in range(2):
            with console.progress(f"embedding {turn}") as inner:
                inner(3, 3)
                console._bars.refresh()
        assert [task.description for task in console._bars.tasks] == ["growing"]
        outer(4, 4)
    assert console._bars is None
    assert "growing" in screen.getvalue()
    assert "embedding 1" in screen.getvalue()
