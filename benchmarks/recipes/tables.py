"""The tables of the recipes: from margins on held-out rows to rates with intervals, as JSON and Markdown.

Takes the folder with one JSON file a training (and the guard's); writes recipes.json and recipes.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crywolf.train import Rate

Scores = Mapping[str, NDArray[np.float64]]
SUITES = ("over-defense suite", "programming suite", "edge-case suite")
APART = "bipia"  # attacks by their place alone
EARLIER = " (earlier data)"
FP_AIM = 0.02


def write(folder: Path, docs: Path) -> None:
    """Write what there is."""
    runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    content: dict[str, Any] = {}
    if screened := {name: run for name, run in runs.items() if name.startswith("screen-")}:
        content["screen"] = screening(screened)
    if left := {name.removeprefix("loso-"): run for name, run in runs.items() if name.startswith("loso-")}:
        content["loso"] = loso(left, runs.get("guard"))
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "recipes.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(content)
    (docs / "recipes.md").write_text(text, encoding="utf-8")
    print(text)


def scores_of(run: Mapping[str, Any]) -> Scores:
    """Margins by name of the set."""
    return {name: np.asarray(values, dtype=np.float64) for name, values in run["scores"].items()}


def parts(scores: Scores, prefix: str) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Benign sets and attack sets whose names begin so; attacks by place alone are left out."""
    chosen = {name: values for name, values in scores.items() if name.startswith(prefix) and len(values)}
    attacks = {name: v for name, v in chosen.items() if name.endswith("(attacks)") and APART not in name}
    return {name: v for name, v in chosen.items() if not name.endswith("(attacks)")}, attacks


def share(values: NDArray[np.float64], threshold: float) -> float:
    """Share at or above a threshold."""
    return float((values >= threshold).mean())


def mean_share(sets: Mapping[str, NDArray[np.float64]], threshold: float) -> float:
    """Mean over sets of the share at or above a threshold: every source counts alike."""
    return float(np.mean([share(values, threshold) for values in sets.values()])) if sets else float("nan")


def at_recall(attacks: Mapping[str, NDArray[np.float64]], recall: float) -> float:
    """The highest threshold whose mean recall over sources is at least this."""
    candidates = np.unique(np.concatenate(list(attacks.values())))
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if mean_share(attacks, float(candidates[middle])) >= recall else (low, middle - 1)
    return float(candidates[low])


def at_fp(benign: Mapping[str, NDArray[np.float64]], rate: float) -> float:
    """The lowest threshold whose mean FP rate over sources is at most this."""
    candidates = np.unique(np.concatenate(list(benign.values())))
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if mean_share(benign, float(candidates[middle])) <= rate else (middle + 1, high)
    return float(np.nextafter(candidates[low], np.inf)) if low == len(candidates) - 1 else float(candidates[low])


def screening(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by recipe and fold: {recipe: {fold: row}}.

    A file without a fold in its name is of an earlier form of the data: it stands apart, in no mean.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        rest, fold = name.removeprefix("screen-"), run["fold"]
        recipe = rest.removeprefix(f"{fold}-")
        found.setdefault(recipe, {})[fold if recipe != rest else f"{fold}{EARLIER}"] = screen_row(run)
    return found


def screen_row(run: Mapping[str, Any]) -> dict[str, Any]:
    """What one recipe does on the fold that it was screened on, at fixed recalls."""
    scores = scores_of(run)
    held, held_attacks = parts(scores, "held: ")
    ood, ood_attacks = parts(scores, "ood_dev: ")
    pooled = {"ood_dev": np.concatenate(list(ood.values()))}
    pooled_attacks = {"ood_dev": np.concatenate(list(ood_attacks.values()))}
    row: dict[str, Any] = {"seconds": run["seconds"], "recipe": run["recipe"], "rows": run["rows"]}
    for recall in (0.85, 0.9):
        there = at_recall(pooled_attacks, recall)
        row[f"at {recall:.0%}"] = {
            # A fold may have no attacks but those by place.
            "held-out sources": mean_share(held, at_recall(held_attacks, recall)) if held_attacks else None,
            "ood_dev": mean_share(pooled, there),
            **{name: share(scores[name], there) for name in SUITES},
        }
    return row


def loso(runs: Mapping[str, Mapping[str, Any]], guard: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every source as the model that was trained without it sees it, at a threshold that the other folds give."""
    folds = {name: scores_of(run) for name, run in runs.items()}
    benign = {name: parts(scores, "held: ")[0] for name, scores in folds.items()}
    attacks = {name: parts(scores, "held: ")[1] for name, scores in folds.items()}
    table: list[dict[str, Any]] = []
    for name, scores in folds.items():
        others = {f"{fold} {key}": v for fold, sets in benign.items() if fold != name for key, v in sets.items()}
        if not others:
            raise SystemExit("leave-one-source-out: a fold takes its threshold from the others, and only one is done")
        threshold = at_fp(others, FP_AIM)
        for key, values in scores.items():
            if key.startswith("held: "):
                flagged = Rate(int((values >= threshold).sum()), len(values))
                table.append(entry(key.removeprefix("held: "), name, flagged, guard, key))
    result: dict[str, Any] = {"sources": table, "mean": means(table)}
    every = {f"{fold} {key}": v for fold, sets in benign.items() for key, v in sets.items()}
    every_attack = {f"{fold} {key}": v for fold, sets in attacks.items() for key, v in sets.items()}
    result["curve"] = {
        f"{rate:.0%}": mean_share(every_attack, at_fp(every, rate)) for rate in (0.01, 0.02, 0.05, 0.1, 0.2)
    }
    return result


def entry(source: str, fold: str, flagged: Rate, guard: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """One line of the table: rows flagged, and what the guard flags of the same rows."""
    line: dict[str, Any] = {"source": source, "fold": fold, **rate_of(flagged)}
    if guard and key in guard["scores"]:
        values = np.asarray(guard["scores"][key], dtype=np.float64)
        line["guard"] = rate_of(Rate(int((values >= guard["threshold"]).sum()), len(values)))
    return line


def rate_of(rate: Rate) -> dict[str, Any]:
    """A rate as plain numbers."""
    return {"k": rate.k, "n": rate.n, "value": rate.value, "low": rate.low, "high": rate.high}


def means(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over sources, each counting alike; attacks by place alone apart."""
    found: dict[str, Any] = {}
    for side, wanted in (("benign", False), ("attacks", True)):
        rows = [
            row
            for row in table
            if row["source"].endswith("(attacks)") is wanted and APART not in row["source"] and row["n"]
        ]
        found[side] = float(np.mean([row["value"] for row in rows])) if rows else None
        theirs = [row["guard"]["value"] for row in rows if "guard" in row]
        found[f"{side}, guard"] = float(np.mean(theirs)) if theirs else None
    return found


def markdown(content: Mapping[str, Any]) -> str:
    """The page."""
    lines = ["# Recipes compared", ""]
    if "screen" in content:
        lines += screen_lines(content["screen"])
    if "loso" in content:
        lines += loso_lines(content["loso"])
    return "\n".join(lines) + "\n"


def screen_lines(screened: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The screening as Markdown: two columns a fold, then the means over the folds, best mean on ood_dev first."""
    folds = sorted({fold for rows in screened.values() for fold in rows})
    counted = [fold for fold in folds if not fold.endswith(EARLIER)] or folds
    names = ("held-out sources", "ood_dev", *SUITES)
    table = {name: (fold_means(rows, counted, names), rows) for name, rows in screened.items()}
    heads = [f"{head}, fold {fold}" for fold in folds for head in ("held-out sources", "ood_dev")]
    heads += [f"mean: {name}" for name in names]
    lines = ["## Screened on folds of sources", ""]
    lines += ["FP rates where the mean recall over the fold's attack sources, or of ood_dev, is 85%."]
    lines += [f"Means are of recipes that were screened on all of these folds: {', '.join(counted)}.", ""]
    lines += ["| recipe | seconds | " + " | ".join(heads) + " |", "|---|---:|" + "---:|" * len(heads)]
    for name, (mean, rows) in sorted(table.items(), key=lambda item: order_of(item[1][0]["ood_dev"], item[1][1])):
        cells = [at_85(rows, fold, head) for fold in folds for head in ("held-out sources", "ood_dev")]
        cells += [mean[head] for head in names]
        seconds = sum(row["seconds"] for row in rows.values()) / len(rows)
        lines.append(f"| {name} | {seconds:.0f} | " + " | ".join(percent(cell) for cell in cells) + " |")
    return [*lines, ""]


def at_85(rows: Mapping[str, Any], fold: str, name: str) -> float | None:
    """An FP rate at 85% recall on one fold, None where the recipe was not screened on it or it has no attacks."""
    return rows[fold]["at 85%"][name] if fold in rows else None


def fold_means(rows: Mapping[str, Any], folds: Sequence[str], names: Sequence[str]) -> dict[str, float | None]:
    """Means over the folds of the FP rates at 85% recall; None unless the recipe was screened on all of them."""
    whole = all(fold in rows for fold in folds)
    found = {name: [rate for fold in folds if (rate := at_85(rows, fold, name)) is not None] for name in names}
    return {name: float(np.mean(rates)) if whole and rates else None for name, rates in found.items()}


def order_of(mean: float | None, rows: Mapping[str, Any]) -> tuple[bool, float]:
    """By the mean on ood_dev; those without one after the others, by the folds that they have."""
    if mean is not None:
        return False, mean
    return True, float(np.mean([row["at 85%"]["ood_dev"] for row in rows.values()]))


def loso_lines(content: Mapping[str, Any]) -> list[str]:
    """The leave-one-source-out table as Markdown."""
    lines = ["## Every source left out once", ""]
    lines += ["Threshold of each fold: where the mean FP rate of the *other* folds' held-out sources is 2%.", ""]
    lines += ["| source | fold | n | flagged (95%) | the published guard |", "|---|---|---:|---|---|"]
    for row in content["sources"]:
        theirs = interval(row["guard"]) if "guard" in row else "-"
        lines.append(f"| {row['source']} | {row['fold']} | {row['n']} | {interval(row)} | {theirs} |")
    mean = content["mean"]
    lines += [f"| **benign sources, mean** | | | **{percent(mean['benign'])}** | {percent(mean['benign, guard'])} |"]
    lines += [f"| **attack sources, mean** | | | **{percent(mean['attacks'])}** | {percent(mean['attacks, guard'])} |"]
    curve = ", ".join(f"{recall:.1%} at {rate}" for rate, recall in content["curve"].items())
    return [*lines, "", f"Mean recall of attack sources at one threshold for a mean FP rate: {curve}.", ""]


def interval(row: Mapping[str, Any]) -> str:
    """A rate and its interval."""
    return f"{row['value']:.1%} ({row['low']:.1%}-{row['high']:.1%})" if row["n"] else "-"


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None else f"{value:.1%}"
