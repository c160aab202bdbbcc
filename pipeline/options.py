"""Options that several commands share, with one wording each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
SEED = click.IntRange(0, 2**32 - 1)
"""What numpy and torch both take as a seed."""
FILE = click.Path(path_type=Path)


def common(function: F) -> F:
    """Add --json, --seed and --force."""
    function = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")(function)
    function = click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")(
        function
    )
    return click.option("--force", is_flag=True, help="Replace outputs that are already there.")(function)


def max_rejected(function: F) -> F:
    """Add --max-rejected."""
    return click.option(
        "--max-rejected",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Share of bad rows a file may have; past it nothing is written (exit 2).",
    )(function)


def decode(name: str = "decode", of: str = "") -> Callable[[F], F]:
    """Add --decode and --no-decode, or the pair of another name; the value is None where neither is given."""
    return click.option(
        f"--{name}/--no-{name}",
        name.replace("-", "_"),
        default=None,
        help=of
        or "Judge text that stands in a prompt in code (Base64 and its like) too.  [default: the package's own]",
    )


def encoder(function: F) -> F:
    """Add --encoder."""
    return click.option(
        "--encoder",
        default=None,
        help="Sentence encoder: a folder or a Hugging Face name.  [default: all-MiniLM-L6-v2]",
    )(function)


def cache(function: F) -> F:
    """Add --cache."""
    return click.option(
        "--cache",
        type=FILE,
        default=None,
        envvar="CRYWOLF_CACHE",
        help="Folder where embeddings are kept between runs.  [default: ~/.cache/crywolf]",
    )(function)


def llm(function: F) -> F:
    """Add --llm and what goes with it, --dry-run included; the values are keywords that begin with llm_."""
    options = (
        click.option("--llm", "llm_url", help="Also paraphrase FPs at this OpenAI-compatible endpoint (base URL)."),
        click.option("--llm-model", help="The model's name at that endpoint."),
        click.option(
            "--llm-n",
            "llm_per_prompt",
            type=click.IntRange(1, 50),
            default=5,
            show_default=True,
            help="Paraphrases asked for an FP; each must pass the same guards.",
        ),
        click.option(
            "--llm-concurrency",
            type=click.IntRange(1, 64),
            default=4,
            show_default=True,
            help="Requests under way at once.",
        ),
        click.option(
            "--llm-timeout",
            type=click.FloatRange(0, min_open=True),
            default=60.0,
            show_default=True,
            help="Seconds to wait for one answer.",
        ),
        click.option(
            "--llm-key", default="OPENAI_API_KEY", show_default=True, help="The environment variable with the key."
        ),
        click.option(
            "--llm-price",
            type=(float, float),
            default=None,
            metavar="IN OUT",
            help="Prices of a million tokens, to say the cost before asking.",
        ),
        click.option("--dry-run", is_flag=True, help="With --llm: say what would be asked and stop."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def review_path(out: Path, chosen: Path | None) -> Path:
    """Return where the review queue of an output goes: the chosen file, or beside it OUT with .review.jsonl.

    Raises:
        BadInput: that is the output itself.
    """
    from crywolf.data import BadInput

    suffixes = (".gz", ".zst", ".jsonl", ".ndjson", ".csv", ".parquet", ".json")
    stem = out.name
    for suffix in suffixes:
        stem = stem.removesuffix(suffix) or stem
    review = chosen or out.with_name(f"{stem}.review.jsonl")
    if review.resolve() == out.resolve():
        raise BadInput(f"{review}: would be both the output and its review queue; name another with --review")
    return review


def cache_dir(chosen: Path | None) -> Path:
    """Return the embeddings' folder: the chosen one or ~/.cache/crywolf."""
    return chosen or Path.home() / ".cache" / "crywolf"
