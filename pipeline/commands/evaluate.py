"""`crywolf evaluate`: the harness for any detector, before/after tables and gates."""

import json
from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.options import FILE, common, max_rejected


@click.command()
@click.argument("detector")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    help="NAME=FILE or FILE, labelled. The names benign_test and malicious_held_out have gates. Repeatable.",
)
@click.option(
    "--standard/--no-standard",
    default=True,
    show_default=True,
    help="Add the embedded programming and edge-case suites.",
)
@click.option("--baseline", default=None, help="The DETECTOR before: adds before/after and the regression gate.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=None,
    help="Flag at or above.  [default: the package's own, 0.5 for others]",
)
@click.option("--baseline-threshold", type=click.FloatRange(0, 1), default=None, help="The same for --baseline.")
@click.option(
    "--trained-on",
    type=FILE,
    multiple=True,
    help="What DETECTOR was trained on: rows in or near it are not held out. Repeatable.",
)
@click.option(
    "--l1-stopped",
    type=FILE,
    help="Text file of ids (ours or the file's own) that layer 1 stopped: rates are given for the rest too.",
)
@click.option(
    "--fps-out", type=FILE, help="Write the false positives of benign_test as benign_test_results.json, prompts whole."
)
@click.option("--save", type=FILE, help="Write the whole evaluation as JSON, without prompts.")
@click.option(
    "--gates",
    type=click.Choice(["all", "asked", "none"]),
    default="asked",
    show_default=True,
    help="all: a missing suite leaves its gates inconclusive; asked: gates of the given suites; none: exit 0.",
)
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds for one answer of a URL.")
@max_rejected
@common
def evaluate(
    detector: str,
    suites: tuple[str, ...],
    standard: bool,
    baseline: str | None,
    threshold: float | None,
    baseline_threshold: float | None,
    trained_on: tuple[Path, ...],
    l1_stopped: Path | None,
    fps_out: Path | None,
    save: Path | None,
    gates: str,
    timeout: float,
    max_rejected: float,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure DETECTOR on suites.

    DETECTOR is a package folder, an http(s) URL that takes {"prompt": text} and answers as `crywolf predict` does, or
    module:function (list of str -> scores from 0 to 1).

    Every rate stands with its counts and 95% interval. A gate passes when the whole interval is on the good side of
    the bound, fails when it is on the other, and is inconclusive in between; then it says how many rows would do.
    Exit code 1 when a must gate fails or is inconclusive, or a red flag is up.

    \b
    Examples:
      crywolf evaluate detector --suite benign_test=benign.jsonl.gz --suite malicious_held_out=attacks.jsonl
      crywolf evaluate new --baseline old --suite benign_test=benign.jsonl.gz --fps-out benign_test_results.json
      crywolf evaluate mypackage.guard:score --suite benign_test=benign.jsonl.gz --threshold 0.52
    """
    from crywolf.data import GateFailed, check_output, check_target
    from crywolf.export import load_detector
    from crywolf.reading import Reader
    from crywolf.train import BENIGN_TEST, check_gates, compare, write_harness
    from crywolf.train import evaluate as score_suites

    console = Console(as_json=as_json)
    if fps_out is not None:
        check_output(fps_out, format="harness", force=force)
    if save is not None:
        check_target(save, force=force)
    reader = Reader(console, max_rejected)
    named = _named(suites)
    if fps_out is not None:
        _check_fps_out(named)
    loaded = load_detector(detector, threshold=threshold, timeout=timeout)
    before = load_detector(baseline, threshold=baseline_threshold, timeout=timeout) if baseline else None
    references = reader.references(trained_on)
    stopped = None if l1_stopped is None else _ids(l1_stopped)
    built = _suites(reader, named, references, standard, stopped)
    if stopped is not None:
        _check_stopped(stopped, built)
    measured = {}
    for key, one in (("after", loaded), ("before", before)):
        if one is None:
            continue
        with console.progress(f"measuring {one.name}") as progress:
            measured[key] = score_suites(
                one.score,
                threshold=one.threshold,
                suites=built,
                threats=one.threats,
                progress=progress,
                name=one.name,
            )
    after = measured["after"]
    comparison = compare(measured["before"], after) if before else None
    report = check_gates(after, comparison, missing="inconclusive" if gates == "all" else "leave_out")
    show_evaluation(console, after, comparison)
    show_gates(console, report)
    if fps_out is not None:
        write_harness(after, fps_out, force=force)
        count = after.fp_rate(BENIGN_TEST).k
        console.result("fps_out", str(fps_out), f"{fps_out}: {count:,} false positives, prompts whole")
        _account(fps_out, named, after)
    if save is not None:
        _save(save, after.to_dict(), force)
        _account(save, named, after)
    console.finish()
    if gates != "none" and not report.passed:
        raise GateFailed(report.summary)


def _named(specs: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Return name and file of each --suite; a FILE alone is named by itself."""
    from crywolf.data import BadInput

    found: list[tuple[str, Path]] = []
    for spec in specs:
        name, sign, file = spec.partition("=")
        # A file whose own name holds a "=" is no NAME=FILE.
        path = Path(file) if sign and not Path(spec).exists() else Path(spec)
        name = name if path != Path(spec) else path.name.split(".")[0]
        if not name or not path.name:
            raise BadInput(f"--suite {spec!r}: expected NAME=FILE or FILE")
        if name in dict(found):
            raise BadInput(f"--suite {spec!r}: there is a suite {name!r} already; name it with --suite NAME={path}")
        found.append((name, path))
    return found


def _check_fps_out(named: list[tuple[str, Path]]) -> None:
    """Refuse before anything is scored what would have nothing to write after it."""
    from crywolf.data import BadInput

    if "benign_test" not in dict(named):
        raise BadInput("--fps-out needs the suite whose false positives it writes: --suite benign_test=FILE")


def _ids(path: Path) -> frozenset[str]:
    """Return the words of a text file."""
    from crywolf.data import BadInput

    try:
        return frozenset(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _check_stopped(stopped: frozenset[str], built: list[Any]) -> None:
    """Refuse ids of which no suite has a row: the rates over what L2 saw would be those over everything."""
    from crywolf.data import BadInput

    known = {id_ for suite in built for name in ("id", "external_id") for id_ in suite.frame[name].drop_nulls()}
    if not stopped & known:
        raise BadInput("--l1-stopped: no suite has a row of these ids; give our ids or the files' own")


def _suites(
    reader: Any, named: list[tuple[str, Path]], references: list[Any], standard: bool, stopped: frozenset[str] | None
) -> list[Any]:
    from crywolf.data import BadInput
    from crywolf.train import held_out_suites, standard_suites

    embedded = standard_suites(trained_on=references, l1_stopped=stopped) if standard else ()
    taken = {suite.name for suite in embedded}
    built: list[Any] = []
    for name, path in named:
        if name in taken:
            raise BadInput(f"--suite {name}={path}: an embedded suite has that name; rename it or give --no-standard")
        label = {"benign_test": "BENIGN", "malicious_held_out": "MALICIOUS"}.get(name)
        built += held_out_suites(name, reader.corpus(path, label=label), references, l1_stopped=stopped)
    built += embedded
    if not built:
        raise BadInput("nothing to measure on: give --suite, or leave --standard on")
    return built


def _save(path: Path, content: dict[str, Any], force: bool) -> None:
    from crywolf.data import atomic_path

    with atomic_path(path, force=force) as target:
        target.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _account(out: Path, named: list[tuple[str, Path]], measured: Any) -> None:
    """Write the manifest of an output: the suites' files, the detector, the threshold."""
    from crywolf.data import RunManifest

    manifest = RunManifest("evaluate", {"detector": measured.name, "threshold": measured.threshold})
    for _, path in named:
        manifest.add_input(path)
    manifest.add_output(out)
    manifest.write(out)


_TITLES = {"suite": "By suite", "category": "By category", "threat_type": "By threat type"}


def show_evaluation(
    console: Console, after: Any, comparison: Any | None, *, by_all: tuple[str, ...] = tuple(_TITLES)
) -> None:
    """Show rates by suite, category and threat type, with before/after where there is a detector before."""
    for by in by_all:
        title = _TITLES[by]
        table = (after if comparison is None else comparison).table(by)
        suffixes = [""] if comparison is None else ["_before", "_after"]
        columns = [by.replace("_", " "), "measure", "n", *(suffix[1:] or "rate" for suffix in suffixes)]
        console.table(f"by_{by}", f"{title}: rates with 95% intervals", columns, _rate_rows(table, by, suffixes))
        console.document[f"by_{by}"] = table.to_dicts()
    if comparison is not None:
        equal = comparison.at_equal_recall()
        rows = [[name, f"{100 * recall:g}%", old.n, *map(_short, (old, new))] for name, recall, old, new in equal]
        title = "FP rate where both catch the same share of the attacks"
        console.table("equal_recall", title, ["suite", "recall", "n", "before", "after"], rows)
    if after.has_l1:
        table = after.table(where="l2")
        columns = ["suite", "measure", "n", "rate"]
        console.table("l2_only", "Over the rows that L2 saw", columns, _rate_rows(table, "suite", [""]))
        console.document["l2_only"] = table.to_dicts()


def _rate_rows(table: Any, by: str, suffixes: list[str]) -> list[list[Any]]:
    """Return the rows of a table of rates; groups stand under their suite, a suite's only one is left out."""
    rows: list[list[Any]] = []
    for key, part in table.group_by("suite", maintain_order=True):
        cells = [
            [row[by], _MEASURES[row["measure"]], row["n"], *(_rate(row, suffix) for suffix in suffixes)]
            for row in part.to_dicts()
        ]
        if by == "suite":
            rows += cells
        elif len(cells) > 1:
            rows.append([key[0], *[None] * (2 + len(suffixes))])
            rows += [[f"  {name}", *rest] for name, *rest in cells]
    return rows


_MEASURES = {"fp_rate": "FP", "recall": "recall"}


def _short(rate: Any) -> str:
    return f"{100 * rate.value:.2f}% ({100 * rate.low:.2f}-{100 * rate.high:.2f})"


def _rate(row: dict[str, Any], suffix: str) -> str:
    value, low, high = (100 * row[f"{name}{suffix}"] for name in ("value", "low", "high"))
    return f"{value:.2f}% ({low:.2f}-{high:.2f})"


def show_gates(console: Console, report: Any) -> None:
    """Show the gates' answers, the remedies of red flags that are up, and the verdict in one line."""
    columns, rows = report.table()
    console.table("gates", "Gates", columns, rows[: len(report.rows)])
    if report.not_asked:
        console.say("not asked: " + "; ".join(f"{gate.claim} ({reason})" for gate, reason in report.not_asked))
    for flag in report.red_flags:
        console.say(f"red flag up: {flag.gate.name}, {flag.observed}. Remedies:")
        for remedy in flag.remedies:
            console.say(f"  - {remedy.text}")
    console.document["gates"] = report.to_dict()["gates"]
    console.result("verdict", {"passed": report.passed, "summary": report.summary}, f"Verdict: {report.summary}")
