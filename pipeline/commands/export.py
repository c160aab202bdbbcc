"""`crywolf export`: a trained model folder becomes a package."""

from pathlib import Path

import click

from crywolf.console import Console
from crywolf.options import FILE


@click.command()
@click.argument("model", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="Folder of the package.")
@click.option("--parity", type=FILE, help="Labelled corpus (best: the test split) to compare INT8 with torch on.")
@click.option("--version", "version", default=None, help="Name of the model in answers.  [default: from its hash]")
@click.option(
    "--rules", default=None, help="Rule file that the package carries and applies, or `embedded` for crywolf's own."
)
@click.option(
    "--decode/--no-decode",
    default=True,
    show_default=True,
    help="What the package does with text in code (Base64 and its like) unless it is told otherwise: judge it too.",
)
@click.option("--force", is_flag=True, help="Replace a package that is already there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")
def export(
    model: Path,
    out: Path,
    parity: Path | None,
    version: str | None,
    rules: str | None,
    decode: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export the trained MODEL folder to ONNX INT8, with tokenizer, thresholds, hashes and a model card.

    With --rules the package carries the rules, hashed as everything else in it: whoever loads it has them, and
    `predict`, `serve` and `evaluate` apply them. Parity is the model's own, before any rule.

    Exit code 1 when quantizing lost 1% of accuracy or more on the --parity rows.

    \b
    Examples:
      crywolf export runs/q4/retrained/model/model --parity runs/q4/splits/test.parquet -o detector
      crywolf export runs/q4/retrained/model/model --rules rules.yaml -o detector
    """
    from crywolf.data import GateFailed, check_target
    from crywolf.export import check_place, export_package
    from crywolf.reading import Reader

    console = Console(as_json=as_json)
    # As for any file of the package: nothing on the way to it may be a file.
    check_target(out / "manifest.json", force=True)
    check_place(out, force=force)
    rows = Reader(console).corpus(parity) if parity else None
    with console.progress("parity") as progress:
        result = export_package(
            model, out, parity=rows, version=version, rules=rules, decode=decode, force=force, progress=progress
        )
    show_export(console, result.to_dict())
    console.finish()
    if result.parity and not result.parity.passed:
        raise GateFailed(f"{out}: INT8 lost {result.parity.accuracy_lost:.2%} of accuracy on {result.parity.n} rows")


def show_export(console: Console, figures: dict[str, object]) -> None:
    """Show the sizes and parity of an export."""
    parity = figures.pop("parity") or {}
    assert isinstance(parity, dict)  # noqa: S101  (to_dict's own shape)
    rows = [[key, value] for key, value in {**figures, **parity}.items()]
    console.table("export", "Export", ["figure", "value"], rows)
