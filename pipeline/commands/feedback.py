"""`crywolf feedback`: production false positives in, a round of growing and retraining out."""

from pathlib import Path
from typing import Any

import click

from crywolf.console import Console
from crywolf.options import FILE, cache, cache_dir, max_rejected

_STORE = click.option(
    "--store", type=FILE, default=Path("feedback.sqlite"), show_default=True, help="The feedback database."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")


@click.group()
def feedback() -> None:
    """Take in production false positives and run rounds on them."""


@feedback.command(short_help="Take new false positives from a production log.")
@click.argument("log", type=FILE)
@_STORE
@click.option("--since", default=None, help="Only rows from this moment on: 2026-10-01 or 2026-10-01T08:00:00Z.")
@click.option("--map", "mapping", multiple=True, help="FIELD=COLUMN where the log has other names, e.g. text=message.")
@click.option(
    "--any-report/--both",
    default=False,
    help="--both: flagged as a threat and reported (default); --any-report: reported is enough.",
)
@max_rejected
@_JSON
def ingest(
    log: Path,
    store: Path,
    since: str | None,
    mapping: tuple[str, ...],
    any_report: bool,
    max_rejected: float,
    as_json: bool,
) -> None:
    """Take new false positives from a production LOG (JSONL, CSV, Parquet; .gz, .zst) into the store, once each.

    A row counts when flagged_as_threat and user_reported_fp are true. Fields: text, flagged_as_threat,
    user_reported_fp, timestamp, id, category, threat_type, confidence; --map names the log's own columns.

    \b
    Example:
      crywolf feedback ingest prod.jsonl.gz --since 2026-10-01 --map text=message --map timestamp=ts
    """
    from crywolf.data import BadInput, CrywolfError
    from crywolf.feedback import Store
    from crywolf.feedback import ingest as take_in
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    pairs = [entry.partition("=") for entry in mapping]
    bad = [f"{field}{sign}{column}" for field, sign, column in pairs if not (field and sign and column)]
    if bad:
        raise BadInput(f"--map {bad[0]!r}: expected FIELD=COLUMN, e.g. text=message")
    names = {field: column for field, _, column in pairs}
    was_there = store.exists()
    opened = Store.open(store)
    try:
        result = take_in(log, opened, since=since, mapping=names, need_both=not any_report, max_rejected=max_rejected)
    except CrywolfError:
        if not was_there:
            # A log that cannot be read leaves nothing behind, an empty store neither.
            opened.engine.dispose()
            store.unlink(missing_ok=True)
        raise
    Reader(console).left_out(log, result.rejected, result.counts["read"])
    console.table("ingest", f"{log}", ["what", "rows"], [[k.replace("_", " "), v] for k, v in result.counts.items()])
    console.finish()


@feedback.command(short_help="List the reports that wait; accept or reject them.")
@_STORE
@click.option("--accept", multiple=True, help="Id of a quarantined report that is benign after all. Repeatable.")
@click.option("--reject", multiple=True, help="Id of a report that is an attack, new or quarantined. Repeatable.")
@click.option("--show-prompts", is_flag=True, help="Show the texts; they are hostile until proven otherwise.")
@_JSON
def review(store: Path, accept: tuple[str, ...], reject: tuple[str, ...], show_prompts: bool, as_json: bool) -> None:
    """List the reports that wait, quarantined ones and new ones; accept or reject them by id.

    The next round grows what is new or accepted; what is quarantined waits until it is accepted.

    \b
    Example:
      crywolf feedback review --show-prompts
      crywolf feedback review --reject 0123456789abcdef
    """
    console = Console(as_json=as_json)
    opened = _existing(store)
    _check_ids(opened, accept, reject)
    opened.set_status(accept, "accepted")
    opened.set_status(reject, "rejected")
    console.table("counts", "Reports", ["status", "reports"], [[k, v] for k, v in opened.counts().items()])
    columns = ["id", "status", "why", *(["text"] if show_prompts else [])]
    held = _waiting(opened, "quarantined")
    rows = [[row[column] for column in columns] for row in (*held, *_waiting(opened, "new"))]
    console.table("waiting", "Waiting", columns, rows)
    # For programs that look at what was held back alone.
    console.document["quarantined"] = [{column: row[column] for column in columns} for row in held]
    console.finish()


def _waiting(store: Any, status: str) -> list[dict[str, Any]]:
    """The reports of one status, with the note that says why they have it, if there is one."""
    found = store.frame((status,))
    notes = found["extra"].struct.field("notes").to_list()
    rows = zip(found["id"].to_list(), found["text"].to_list(), notes, strict=True)
    return [{"id": id_, "text": text, "status": status, "why": note} for id_, text, note in rows]


@feedback.command("round", short_help="Grow the new reports, retrain, and judge the result.")
@click.option("--config", "config", type=FILE, required=True, help="The crywolf.yaml of `train` and `retrain`.")
@click.option("--store", type=FILE, default=None, help="Overrides feedback.store.")
@click.option("--force", is_flag=True, help="Make steps again whose settings changed.")
@_JSON
@cache
def round_(config: Path, store: Path | None, force: bool, as_json: bool, cache: Path | None) -> None:
    """Grow the new reports (10 each), append them to everything before, retrain, and judge against the package before.

    The new package lies beside the old one, in rounds/N of the run's folder, with both verdicts in verdict.json.
    Exit code 1 when a must gate of the new package fails or is inconclusive.
    """
    from crywolf.config import load_config
    from crywolf.data import GateFailed
    from crywolf.loop import next_round
    from crywolf.session import Session

    console = Console(as_json=as_json)
    chosen = load_config(config)
    session = Session(chosen, console, cache_dir(cache), force)
    result = next_round(session, _existing(store or chosen.feedback.store))
    show_round(console, result)
    console.finish()
    if not result.verdict["gates_after"]["passed"]:
        raise GateFailed(f"round {result.number}: {result.verdict['gates_after']['summary']}")


def _existing(path: Path) -> Any:
    """Open a store that is there: a mistyped name must not make an empty one."""
    from crywolf.data import BadInput
    from crywolf.feedback import Store

    if not path.exists():
        raise BadInput(f"{path}: there is no feedback store; `crywolf feedback ingest LOG --store {path}` makes one")
    return Store.open(path)


def _check_ids(store: Any, accept: tuple[str, ...], reject: tuple[str, ...]) -> None:
    """Refuse the ids of a review before any of them is changed."""
    from crywolf.data import BadInput

    both = sorted({*accept} & {*reject})
    if both:
        raise BadInput(f"{both[0]}: cannot be both accepted and rejected")
    known, grown = set(store.frame()["id"]), set(store.frame(("grown",))["id"])
    for id_ in (*accept, *reject):
        if id_ not in known:
            raise BadInput(f"{store.path}: no report has the id {id_!r}; nothing was changed")
        if id_ in grown:
            raise BadInput(f"{store.path}: {id_} was grown in a round already; nothing was changed")


def show_round(console: Console, result: Any) -> None:
    """Show what a round took, grew and made, and both verdicts."""
    rows = [[name, n] for name, n in result.counts.items()]
    console.table("round", f"Feedback round {result.number}", ["what", "rows"], rows)
    for key, label in (("gates_before", "before"), ("gates_after", "after")):
        summary = result.verdict[key]["summary"]
        console.result(key, summary, f"{label}: {summary}")
    console.result("package", str(result.package), f"{result.package}: the new detector, beside the one before")
