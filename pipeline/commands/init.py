"""`crywolf init`: a commented configuration to start from."""

from importlib.resources import files
from pathlib import Path

import click

from crywolf.options import FILE


@click.command()
@click.argument("path", type=FILE, default=Path("crywolf.yaml"))
@click.option("--force", is_flag=True, help="Replace a file that is already there.")
def init(path: Path, force: bool) -> None:
    """Write a commented crywolf.yaml for `train`, `retrain` and `feedback round` to PATH."""
    from crywolf.data import atomic_path

    with atomic_path(path, force=force) as target:
        target.write_text((files("crywolf") / "crywolf.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    click.echo(f"{path}: written; set data.benign and data.malicious, then run `crywolf train --config {path}`")
