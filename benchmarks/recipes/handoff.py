"""The package that the handoff's command made, beside the published guard on the same prompts.

Takes the run's folder (`crywolf retrain --config benchmarks/recipes/handoff.yaml`) and the corpora; measures the test
fold, the sources that were held out, ood_dev and the embedded suites at every operating point, and writes
docs/bench/handoff.json and .md:

    python benchmarks/recipes/handoff.py --run runs/handoff --corpus ../shared/corpus
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import guard
import numpy as np
import polars as pl
import tables
import world
from numpy.typing import NDArray

from crywolf.data import file_hash
from crywolf.export import Detector
from crywolf.train import Rate, Split
from crywolf.train.measure.intervals import paired_difference
from crywolf.train.measure.mcnemar import McNemar

ALL_OOD = ("ood_dev, benign", "ood_dev, attacks without bipia_code")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/handoff"))
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"))
    arguments = parser.parse_args()
    folder = arguments.run / "retrained" / "package"
    sets = measured(Split.load(arguments.run / "splits"), arguments.corpus)
    detector = Detector.load(folder)
    ours = {name: detector.score(rows["text"].to_list()) for name, rows in sets.items()}
    theirs = {name: guard.score(rows["text"].to_list()) for name, rows in sets.items()}
    points = {name: value for name, value in detector.info.thresholds.items() if name != "default"}
    content = {
        "thresholds": points,
        "guard_threshold": guard.THRESHOLD,
        "package": {
            "bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "model_sha256": file_hash(folder / "model.int8.onnx"),
            "metadata": {key: detector.info.metadata.get(key) for key in ("recipe", "seed", "sizes", "parity")},
        },
        "sets": [line(name, ours[name], theirs[name], points) for name in sets],
        "curve": curve(ours[ALL_OOD[0]], ours[ALL_OOD[1]], theirs[ALL_OOD[0]], theirs[ALL_OOD[1]]),
    }
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "handoff.json").write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    text = markdown(content)
    (arguments.docs / "handoff.md").write_text(text, encoding="utf-8")
    print(text)


def measured(split: Split, corpus: Path) -> dict[str, pl.DataFrame]:
    """What is measured on, by name."""
    corpora = world.load(corpus, None)
    benign, attacks = (split.test.filter(label == world.LABEL) for label in ("BENIGN", "MALICIOUS"))
    sets = {"test fold, benign": benign, "test fold, attacks": attacks}
    sets |= {
        f"held out: {name}": split.held_out.filter(pl.col("source") == name)
        for name in split.held_out["source"].unique().sort().to_list()
    }
    ood, is_attack = corpora.ood, world.LABEL == "MALICIOUS"
    sets |= {ALL_OOD[0]: ood.filter(~is_attack)}
    sets |= {ALL_OOD[1]: ood.filter(is_attack & ~pl.col("source").str.contains(tables.APART))}
    return {name: rows for name, rows in {**sets, **corpora.suites}.items() if rows.height}


def line(
    name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], points: Mapping[str, float]
) -> dict[str, Any]:
    """Rates of one set, and the paired test of the balanced point against the guard."""
    found = {point: flagged(ours, value) for point, value in points.items()}
    new, old = ours >= points["balanced"], theirs >= guard.THRESHOLD
    cells = [int((a & b).sum()) for a, b in ((old, new), (old, ~new), (~old, new), (~old, ~new))]
    change = paired_difference(*cells)
    return {
        "set": name,
        "n": len(ours),
        **found,
        "guard": flagged(theirs, guard.THRESHOLD),
        "p_value": McNemar(cells[1], cells[2]).p_value,
        "change": change.to_dict(),
    }


def flagged(scores: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """Rows at or above a threshold."""
    return tables.rate_of(Rate(int((scores >= threshold).sum()), len(scores)))


def curve(*scores: NDArray[np.float64]) -> list[dict[str, float]]:
    """FP rate of both on ood_dev at the same recall of its attacks; thresholds set on these very rows: it compares."""
    ours, our_attacks, theirs, their_attacks = scores
    rows = []
    for recall in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95):
        at = [float(np.quantile(attacks, 1 - recall, method="lower")) for attacks in (our_attacks, their_attacks)]
        rows.append({"recall": recall, "ours": tables.share(ours, at[0]), "guard": tables.share(theirs, at[1])})
    return rows


def markdown(content: Mapping[str, Any]) -> str:
    """The page."""
    points = list(content["thresholds"])
    lines = ["# The handoff, to a package", ""]
    said = ", ".join(f"{name} {value:.4f}" for name, value in content["thresholds"].items())
    lines += [f"Share flagged with 95% intervals. Thresholds: {said}; the guard at its own {guard.THRESHOLD}.", ""]
    lines += ["| set | n | " + " | ".join(points) + " | the published guard | balanced against the guard |"]
    lines += ["|---|---:|" + "---|" * (len(points) + 2)]
    for row in content["sets"]:
        cells = [tables.interval(row[point]) for point in points]
        test = "p < 0.0001" if row["p_value"] < 1e-4 else f"p = {row['p_value']:.3g}"
        lines.append(f"| {row['set']} | {row['n']} | {' | '.join(cells)} | {tables.interval(row['guard'])} | {test} |")
    lines += ["", "FP rate on ood_dev's benign rows where both catch the same share of its attacks:", ""]
    lines += ["| recall | crywolf | the published guard |", "|---:|---:|---:|"]
    lines += [f"| {row['recall']:.0%} | {row['ours']:.1%} | {row['guard']:.1%} |" for row in content["curve"]]
    size = content["package"]["bytes"] / 1e6
    return "\n".join([*lines, "", f"Package: {size:.1f} MB, model SHA-256 {content['package']['model_sha256']}.", ""])


if __name__ == "__main__":
    main()
