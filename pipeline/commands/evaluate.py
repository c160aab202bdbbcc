"""`crywolf evaluate`: the harness for any detector, before/after tables, gates, robustness and error analysis."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, common, decode, encoder, max_rejected

POINTS = click.Choice(["strict", "balanced", "lenient"])


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
    "--at",
    type=POINTS,
    default=None,
    help="Operating point of a package, in the place of --threshold: strict catches most, lenient alarms least.",
)
@click.option("--baseline-at", type=POINTS, default=None, help="The same for --baseline.")
@decode()
@decode("baseline-decode", of="The same for --baseline.")
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
@click.option(
    "--robustness",
    "disturb",
    is_flag=True,
    help="Score up to 1,000 attacks and 1,000 benign rows again with typos, odd case, look-alike and invisible "
    "letters, odd spacing, Base64 and benign padding: recall and FP rate under each.",
)
@click.option(
    "--errors",
    "analyse",
    is_flag=True,
    help="Group the false positives that remain, name what each group shares, and list the words, openings, lengths "
    "and languages that go with false alarms.",
)
@click.option("--prompts", is_flag=True, help="With --errors: show example prompts rather than their ids.")
@encoder
@cache
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
    at: str | None,
    baseline_at: str | None,
    decode: bool | None,
    baseline_decode: bool | None,
    trained_on: tuple[Path, ...],
    l1_stopped: Path | None,
    fps_out: Path | None,
    save: Path | None,
    gates: str,
    disturb: bool,
    analyse: bool,
    prompts: bool,
    encoder: str | None,
    cache: Path | None,
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

    With --baseline both score the same rows: each change stands with its paired interval and McNemar's exact test, and
    every attack that the old one caught and the new one misses is listed. --robustness asks what is still caught when
    texts look otherwise, and what is flagged then that is harmless: flagging all Base64 is no robustness. --errors says
    what to augment next. Both read held-out rows only.

    \b
    Examples:
      crywolf evaluate detector --suite benign_test=benign.jsonl.gz --suite malicious_held_out=attacks.jsonl
      crywolf evaluate new --baseline old --suite benign_test=benign.jsonl.gz --fps-out benign_test_results.json
      crywolf evaluate new --at strict --baseline new --suite benign_test=benign.jsonl.gz
      crywolf evaluate mypackage.guard:score --suite benign_test=benign.jsonl.gz --threshold 0.52
      crywolf evaluate detector --suite benign.jsonl --suite attacks.jsonl --robustness --errors --prompts --gates none
    """
    from crywolf.data import BadInput, GateFailed
    from crywolf.export import load_detector, model_hashes
    from crywolf.reading import Reader
    from crywolf.train import BENIGN_TEST, check_gates, compare, write_harness

    console = Console(as_json=as_json)
    _check_choices(baseline, (at, threshold), (baseline_at, baseline_threshold), baseline_decode)
    if prompts and not analyse:
        raise BadInput("--prompts shows the examples of --errors: add --errors")
    _check_outputs(fps_out, save, force)
    reader = Reader(console, max_rejected)
    named = _named(suites)
    if fps_out is not None:
        _check_fps_out(named)
    loaded = load_detector(detector, threshold=threshold, timeout=timeout, at=at, decode=decode)
    before = (
        load_detector(baseline, threshold=baseline_threshold, timeout=timeout, at=baseline_at, decode=baseline_decode)
        if baseline
        else None
    )
    named_specs = {"models": detector, "models_before": baseline}
    models = {key: model_hashes(spec) for key, spec in named_specs.items() if spec}
    references = reader.references(trained_on)
    stopped = None if l1_stopped is None else _ids(l1_stopped)
    built = _suites(reader, named, references, standard, stopped)
    if stopped is not None:
        _check_stopped(stopped, built)
    if disturb:
        _check_both_labels(built)
    detectors = {key: one for key, one in (("after", loaded), ("before", before)) if one is not None}
    measured = {key: _measured(console, one, built) for key, one in detectors.items()}
    after = measured["after"]
    comparison = compare(measured["before"], after) if before else None
    report = check_gates(after, comparison, missing="inconclusive" if gates == "all" else "leave_out")
    show_evaluation(console, after, comparison, by_all=tuple(_TITLES))
    found = _robustness(console, detectors, measured, seed) if disturb else {}
    if analyse:
        errors = _errors(console, after, encoder, cache, seed)
        show_errors(console, errors, prompts=prompts)
        found["errors"] = errors.to_dict()
    show_gates(console, report)
    if fps_out is not None:
        write_harness(after, fps_out, force=force)
        count = after.fp_rate(BENIGN_TEST).k
        console.result("fps_out", str(fps_out), f"{fps_out}: {count:,} false positives, prompts whole")
        _account(fps_out, named, after, models)
    if save is not None:
        _save(save, {**after.to_dict(), **models, **found}, force)
        _account(save, named, after, models)
    console.finish()
    if gates != "none" and not report.passed:
        raise GateFailed(report.summary)


def _measured(console: Console, detector: Any, built: list[Any]) -> Any:
    """Score all suites with a detector."""
    from crywolf.train import evaluate as score_suites

    with console.progress(f"measuring {detector.name}") as progress:
        return score_suites(
            detector.score,
            threshold=detector.threshold,
            suites=built,
            threats=detector.threats,
            progress=progress,
            name=detector.name,
        )


_Choice: TypeAlias = "tuple[str | None, float | None]"


def _check_choices(baseline: str | None, own: _Choice, before: _Choice, baseline_decode: bool | None) -> None:
    """Refuse before anything is read options that stand for nothing, or for one thing twice."""
    from crywolf.data import BadInput

    if baseline is None and (*before, baseline_decode) != (None, None, None):
        raise BadInput(
            "--baseline-at and --baseline-threshold are for --baseline, as is --baseline-decode: name a DETECTOR before"
        )
    for prefix, pair in (("--", own), ("--baseline-", before)):
        if None not in pair:
            raise click.UsageError(f"{prefix}at and {prefix}threshold both choose the threshold: give one of them")


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


def _check_outputs(fps_out: Path | None, save: Path | None, force: bool) -> None:
    """Refuse before anything is read to write over what is there."""
    from crywolf.data import check_output, check_target

    if fps_out is not None:
        check_output(fps_out, format="harness", force=force)
    if save is not None:
        check_target(save, force=force)


def _check_fps_out(named: list[tuple[str, Path]]) -> None:
    """Refuse before anything is scored what would have nothing to write after it."""
    from crywolf.data import BadInput

    if "benign_test" not in dict(named):
        raise BadInput("--fps-out needs the suite whose false positives it writes: --suite benign_test=FILE")


def _check_both_labels(built: list[Any]) -> None:
    """Refuse before anything is scored to measure robustness without attacks or without benign rows."""
    from crywolf.data import BadInput

    labels = {label for suite in built if suite.held_out for label in suite.frame["label"].unique()}
    for label, example in (("MALICIOUS", "malicious_held_out=attacks.jsonl"), ("BENIGN", "benign_test=benign.jsonl")):
        if label not in labels:
            raise BadInput(f"--robustness: no held-out suite has a {label} row; add one, such as --suite {example}")


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


def _account(out: Path, named: list[tuple[str, Path]], measured: Any, models: dict[str, dict[str, str]]) -> None:
    """Write the manifest of an output: the suites' files, the detector, the threshold, hashes of the models."""
    from crywolf.data import RunManifest

    manifest = RunManifest("evaluate", {"detector": measured.name, "threshold": measured.threshold, **models})
    for _, path in named:
        manifest.add_input(path)
    manifest.add_output(out)
    manifest.write(out)


_TITLES = {
    "suite": "By suite",
    "category": "By category",
    "threat_type": "By threat type",
    "source": "By source",
    "language": "By language",
    "length": "By length in characters",
}
_COMMON = ("suite", "category", "threat_type")
_FEW = 10
"""Languages of fewer rows are not shown: a guess from a text or two; the JSON has all."""
_SHOWN = 15


def show_evaluation(console: Console, after: Any, comparison: Any | None, *, by_all: tuple[str, ...] = _COMMON) -> None:
    """Show rates by suite and slice, with before/after, tests and losses where there is a detector before."""
    import polars as pl

    for by in by_all:
        title = _TITLES[by]
        table = (after if comparison is None else comparison).table(by)
        suffixes = [""] if comparison is None else ["_before", "_after"]
        columns = [by.replace("_", " "), "measure", "n", *(suffix[1:] or "rate" for suffix in suffixes)]
        shown = table.filter(pl.col("n") >= _FEW) if by == "language" else table
        console.table(f"by_{by}", f"{title}: rates with 95% intervals", columns, _rate_rows(shown, by, suffixes))
        console.document[f"by_{by}"] = table.to_dicts()
    if comparison is not None:
        _show_changes(console, comparison)
        equal = comparison.at_equal_recall()
        rows = [[name, f"{100 * recall:g}%", old.n, *map(_short, (old, new))] for name, recall, old, new in equal]
        title = "FP rate where both catch the same share of the attacks"
        console.table("equal_recall", title, ["suite", "recall", "n", "before", "after"], rows)
    if after.has_l1:
        table = after.table(where="l2")
        columns = ["suite", "measure", "n", "rate"]
        console.table("l2_only", "Over the rows that L2 saw", columns, _rate_rows(table, "suite", [""]))
        console.document["l2_only"] = table.to_dicts()


def _show_changes(console: Console, comparison: Any) -> None:
    """Show each suite's change with its test, and the attacks that only the old detector caught."""
    from crywolf.train.measure.mcnemar import p_text

    rows = [
        [
            row["suite"],
            _MEASURES[row["measure"]],
            row["n"],
            comparison.change(row["measure"], row["suite"]).points,
            row["dropped"],
            row["added"],
            p_text(row["p_value"]),
        ]
        for row in comparison.table().to_dicts()
    ]
    title = "What changed on the same rows, and whether it is chance (McNemar, exact)"
    console.table("changes", title, ["suite", "measure", "n", "change", "flagged no more", "newly flagged", "p"], rows)
    document = comparison.to_dict()
    console.document["changes"] = {"changes": document["changes"], "mcnemar": document["mcnemar"]}
    lost = document["lost"]
    cells = [
        [row["suite"], row["id"], row["threat_type"], row["score_before"], row["score_after"]] for row in lost[:_SHOWN]
    ]
    title = f"True positives lost: {len(lost):,} attacks that {comparison.before} caught and {comparison.after} misses"
    more = f", {_SHOWN} shown, all with --json" if len(lost) > _SHOWN else ""
    console.table("lost", title + more, ["suite", "id", "threat type", "score before", "after"], cells)
    console.document["lost"] = lost


def _robustness(console: Console, detectors: dict[str, Any], measured: dict[str, Any], seed: int) -> dict[str, Any]:
    """Measure and show robustness; give what is saved of it."""
    # The old detector is given the same rows and changes, as its generator starts from the same seed; benign padding
    # alone may differ, as it is drawn from what each of them does not flag.
    tested = {key: _disturbed(console, one, measured[key], seed) for key, one in detectors.items()}
    show_robustness(console, tested["after"], tested.get("before"))
    return {"robustness": tested["after"].to_dict()}


def _disturbed(console: Console, detector: Any, measured: Any, seed: int) -> Any:
    """Measure a detector's robustness on the held-out rows that it was measured on."""
    import numpy as np
    import polars as pl

    from crywolf.train.measure.robustness import robustness

    rows = measured.select()
    benign = pl.col("label").cast(pl.String) == "BENIGN"
    with console.progress(f"disturbing {detector.name}") as progress:
        return robustness(
            detector.score,
            detector.threshold,
            rows.filter(~benign),
            rows.filter(benign),
            np.random.default_rng([seed, *b"robustness"]),
            name=detector.name,
            progress=progress,
        )


def show_robustness(console: Console, after: Any, before: Any | None = None) -> None:
    """Show recall and FP rate under each perturbation beside the plain ones on the same rows."""
    from crywolf.train.measure.robustness import CRIES

    for key, one in (("robustness_before", before), ("robustness", after)):
        if one is None:
            continue
        rows: list[list[Any]] = []
        for change in one.perturbations:
            name, said = change.name, one.verdict(change.name)
            caught, alarms = one.recall(name), one.fp_rate(name)
            before_it = [_brief(one.plain_recall(name)), _brief(one.plain_fp_rate(name))]
            verdicts = [said.partition(", ")[0], said.partition(", ")[2]]
            verdicts = verdicts[::-1] if said == CRIES else verdicts
            rows.append([name.replace("_", " "), "recall", caught.n, before_it[0], _brief(caught), verdicts[0]])
            rows.append([None, "FP", alarms.n, before_it[1], _brief(alarms), verdicts[1]])
        columns = ["texts", "measure", "n", "plain", "changed", "verdict"]
        title = f"Robustness of {one.name}: the same rows as they came and changed"
        console.table(key, title, columns, rows)
        console.document[key] = one.to_dict()


def _errors(console: Console, after: Any, encoder: str | None, cache: Path | None, seed: int) -> Any:
    """Cluster the held-out false positives of an evaluation."""
    import numpy as np

    from crywolf.mining import Embedder
    from crywolf.train.measure.errors import analyse_errors

    embedder = Embedder(encoder, cache_dir=cache_dir(cache))

    def encode(texts: Any) -> Any:
        with console.progress(f"embedding {len(texts):,} texts") as progress:
            return embedder(texts, progress=progress)

    return analyse_errors(after, encode, np.random.default_rng([seed, *b"errors"]))


def show_errors(console: Console, errors: Any, *, prompts: bool = False) -> None:
    """Show the groups of the remaining false positives and the patterns that go with them; prompts only if asked."""
    console.say(f"errors: {errors.clustered.text} of the false positives are in {len(errors.clusters):,} groups")
    shown = errors.clusters[:_SHOWN]
    rows = [
        [
            one.number,
            one.n,
            _brief(one.of),
            one.name,
            next(iter(one.categories)),
            _nearest(one.nearest),
        ]
        for one in shown
    ]
    columns = ["group", "FPs", "of all", "what it shares", "category", "nearest attack"]
    console.table("error_groups", f"False positives that remain: {errors.fp_rate.text}", columns, rows)
    if prompts:
        examples = [[one.number, _line(text)] for one in shown for text in one.texts[:2]]
        console.table("error_examples", "Typical prompts of each group", ["group", "prompt"], examples)
    cells = [
        [one.name, round(one.excess), _brief(one.inside), _brief(one.outside), one.inside.n]
        for one in errors.patterns[:_SHOWN]
    ]
    title = "What goes with a false alarm: FP rate of benign rows that have it, and of the others"
    console.table("error_patterns", title, ["pattern", "FPs too many", "has it", "has it not", "rows"], cells)
    # In the document they stand whole, under one key.
    for key in ("error_groups", "error_examples", "error_patterns"):
        console.document.pop(key, None)
    console.document["errors"] = errors.to_dict(prompts=prompts)


def _nearest(attack: Any | None) -> str | None:
    return None if attack is None else f"{(attack.threat_type or 'attack').replace('_', ' ')} {attack.cosine:.2f}"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


_WIDTH = 90


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
    if not rate.n:
        return "no rows"
    return f"{100 * rate.value:.2f}% ({100 * rate.low:.2f}-{100 * rate.high:.2f})"


def _brief(rate: Any) -> str:
    """One decimal, where a table is wide."""
    return f"{100 * rate.value:.1f}% ({100 * rate.low:.1f}-{100 * rate.high:.1f})" if rate.n else "no rows"


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
