"""The benchmark's result as a page of tables: held-out rates, recall, and the quality of the samples."""

from typing import Any

import numpy as np

from crywolf.train import Rate

OWN = ("held-out FPs", "their sources, not flagged before")


def markdown(result: dict[str, Any]) -> str:
    """The result as a page of tables."""
    arms: dict[str, list[dict[str, Any]]] = result["arms"]
    settings, counts = result["settings"], result["counts"]
    attacks = [name for name in result["rows"] if name == "test split" or "attacks" in name or name == "tensortrust"]
    outside = [name for name in result["rows"] if name not in (*OWN, *attacks)]
    lines = [
        "# Generators compared",
        "",
        f"{result['kind'].capitalize()}; {result['seeds']} seed(s), means over them. The base flags "
        f"{counts['false positives']:,} of {counts['harvested from']:,} rows of {' and '.join(result['fp_sources'])}; "
        f"{counts['given']} of these FPs go to each generator, and each adds {settings['samples']:,} samples. "
        f"{result['minutes']} minutes for this run; steps done before are reused.",
    ]
    lines += [f"{name} was left out: {why}." for name, why in result["missing"].items()]
    head = "| generator | held-out FPs flagged | their sources | held-out sources, mean | " + " | ".join(
        f"recall {name}" for name in attacks
    )
    for key, title, note in (
        ("flagged", "At the base's recall on validation", ""),
        (
            "flagged_equal",
            "At the base's recall on held-out attacks",
            "Each arm's threshold is set so that the mean recall over held-out attack sources is the base's: what is "
            "left to compare is false positives.",
        ),
    ):
        lines += ["", f"## {title}", "", *([note, ""] if note else []), head + " |", "|---" * (4 + len(attacks)) + "|"]
        for name, runs in arms.items():
            cells = [rate(runs, key, slice_, result) for slice_ in OWN]
            cells.append(f"{mean_of(runs, key, outside, result):.1%}")
            cells += [rate(runs, key, slice_, result) for slice_ in attacks]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Held-out sources, one by one (at the base's recall on held-out attacks)", ""]
    lines += ["| generator | " + " | ".join(f"{name} ({result['rows'][name]:,})" for name in outside) + " |"]
    lines += ["|---" * (1 + len(outside)) + "|"]
    for name, runs in arms.items():
        lines.append(
            f"| {name} | " + " | ".join(rate(runs, "flagged_equal", slice_, result) for slice_ in outside) + " |"
        )
    return "\n".join([*lines, "", *quality_table(arms)]) + "\n"


def rate(runs: list[dict[str, Any]], key: str, slice_: str, result: dict[str, Any]) -> str:
    """Mean share over seeds, the 95% interval of such a count, and the spread over seeds."""
    n = result["rows"][slice_]
    values = [run[key][slice_] / n for run in runs]
    mean = Rate(round(float(np.mean(values)) * n), n)
    spread = f"; seeds {min(values):.1%}-{max(values):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):.1%} (95% {mean.low:.1%}-{mean.high:.1%}{spread})"


def mean_of(runs: list[dict[str, Any]], key: str, slices: list[str], result: dict[str, Any]) -> float:
    """Mean over slices and seeds of the share flagged."""
    return float(np.mean([run[key][name] / result["rows"][name] for run in runs for name in slices]))


def quality_table(arms: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The samples' quality, means over seeds; a dash where it could not be measured."""
    measured = {name: [run["quality"] for run in runs if "quality" in run] for name, runs in arms.items()}
    measured = {name: found for name, found in measured.items() if found}
    if not measured:
        return []
    numbers = [key for key, value in next(iter(measured.values()))[0].items() if isinstance(value, int | float | None)]
    lines = [
        "## The samples",
        "",
        "| generator | seconds | " + " | ".join(key.replace("_", " ") for key in numbers) + " |",
    ]
    lines.append("|---" * (2 + len(numbers)) + "|")
    for name, found in measured.items():
        seconds = np.mean([run["seconds_to_grow"] for run in arms[name]])
        lines.append(
            f"| {name} | {seconds:.0f} | " + " | ".join(cell([f[key] for f in found]) for key in numbers) + " |"
        )
    return lines


def cell(values: list[Any]) -> str:
    """The mean of measured values."""
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3g}" if known else "-"
