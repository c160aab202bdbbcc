"""The data engine at the handoff's full size: every stage as a user runs it, with its wall time and peak memory.

The handoff's false positives are grown; what lacks to the wanted number of rows beside the pools is grown once more
with another seed, kept clear of the first. Then all rows are deduplicated, mined and audited. Each stage is one command
in a process of its own; one that was run with the same options is not run again, --fresh forgets them all (do that when
the code has changed). `make bench-full` writes docs/bench/full.json and full.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.data import read_corpus, write_corpus


def main() -> None:
    """Run all stages and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with benign_pool, malicious_pool, ood_dev")
    parser.add_argument("--handoff", type=Path, required=True, help="folder with benign_test_results, benign_prompts")
    parser.add_argument("--out", type=Path, default=Path("work/bench-full"), help="where everything is kept")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="where the table goes")
    parser.add_argument("--rows", type=int, default=236_000, help="rows in all")
    parser.add_argument("--per-fp", type=int, default=15)
    parser.add_argument("--fresh", action="store_true", help="forget the stages done before, and the embeddings")
    arguments = parser.parse_args()
    if arguments.fresh and arguments.out.is_dir():
        shutil.rmtree(arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stages = run(arguments)
    result = {
        "rows": rows_of(arguments.out / "all.parquet"),
        "per_fp": arguments.per_fp,
        "cores": os.cpu_count(),
        "stages": stages,
    }
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "full.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (arguments.docs / "full.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the stages in order."""
    out, pool = arguments.out, arguments.corpus
    benign, malicious, ood = pool / "benign_pool.jsonl.gz", pool / "malicious_pool.jsonl.gz", pool / "ood_dev.jsonl.gz"
    fps = ("--from-fps", arguments.handoff / "benign_test_results.json")
    given = (*fps, "--prompts", arguments.handoff / "benign_prompts.jsonl.gz", "--malicious", malicious)
    grow = ("augment", *given, "--against", benign, "--holdout", ood, "--cache", out / "cache")
    stages = [stage("grow", out / "grown.parquet", (*grow, "--per-fp", arguments.per_fp, "-o", out / "grown.parquet"))]
    lacking = arguments.rows - sum(rows_of(path) for path in (benign, malicious, out / "grown.parquet"))
    if lacking > 0:
        more = (*grow, "--against", out / "grown.parquet", "--seed", 1, "--no-twins", "-o", out / "more.parquet")
        per_fp = max(lacking // rows_of(fps[1], fps=True) + 2, 1)
        stages.append(stage("grow more", out / "more.parquet", (*more, "--per-fp", per_fp)))
    join(arguments, benign, malicious, stages)
    stages.append(
        stage("deduplicate", out / "clean.parquet", ("dedup", out / "all.parquet", "-o", out / "clean.parquet"))
    )
    part(out, stages)
    mined = ("--benign", out / "clean_benign.parquet", "--malicious", out / "clean_malicious.parquet")
    stages.append(
        stage(
            "mine",
            out / "hard.parquet",
            ("mine-hard-negatives", *mined, "--cache", out / "cache", "-o", out / "hard.parquet"),
        )
    )
    audited = ("audit", out / "clean.parquet", "--holdout", ood, "--sample", 8000, "--cache", out / "cache")
    stages.append(stage("audit", out / "audit", (*audited, "-o", out / "audit")))
    return stages


def stage(name: str, output: Path, command: Sequence[object]) -> dict[str, Any]:
    """Run one command, or read what it took when it was run on the same inputs."""
    note = output.with_name(output.name + ".stage.json")
    words = [str(part) for part in (Path(sys.executable).with_name("crywolf"), *command, "--force")]
    read = [Path(word) for word in words[2:] if Path(word).is_file() and Path(word) != output]
    key = [*words[1:], *(f"{path}: {path.stat().st_size} {path.stat().st_mtime_ns}" for path in read)]
    if output.exists() and note.is_file():
        found = dict(json.loads(note.read_text(encoding="utf-8")))
        if found.get("key") == key:
            return found
    print("$ crywolf " + " ".join(words[1:]), flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{name}: ended with {os.waitstatus_to_exitcode(status)}")
    found = {
        "stage": name,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss / 2**20, 2),
        "rows": rows_of(output) if output.is_file() else None,
        "load": round(os.getloadavg()[1], 1),
        "key": key,
    }
    note.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def rows_of(path: Path, *, fps: bool = False) -> int:
    """Rows of a corpus, or of a harness's false positives."""
    if fps:
        return len(json.loads(path.read_text(encoding="utf-8"))["fp_details"])
    return read_corpus(path, label="BENIGN").frame.height


def join(arguments: argparse.Namespace, benign: Path, malicious: Path, stages: Sequence[dict[str, Any]]) -> None:
    """Put the pools and what was grown into one file of exactly the wanted number of rows."""
    target = arguments.out / "all.parquet"
    if made_of(target, [arguments.rows, *(found["key"] for found in stages)]):
        return
    frames = [read_corpus(benign, label="BENIGN").frame, read_corpus(malicious, label="MALICIOUS").frame]
    grown = [arguments.out / name for name in ("grown.parquet", "more.parquet")]
    frames += [read_corpus(path).frame for path in grown if path.exists()]
    joined = pl.concat(frames)
    if joined.height < arguments.rows:
        sys.exit(f"{joined.height:,} rows in all, {arguments.rows:,} wanted: raise --per-fp")
    write_corpus(joined.head(arguments.rows), target, force=True)


def made_of(target: Path, origin: list[Any]) -> bool:
    """Whether a file is there and was made of this; notes what it is made of."""
    note = target.with_name(target.name + ".made.json")
    told = json.dumps(origin)
    if target.exists() and note.is_file() and note.read_text(encoding="utf-8") == told:
        return True
    note.write_text(told, encoding="utf-8")
    return False


def part(out: Path, stages: Sequence[dict[str, Any]]) -> None:
    """Part the clean rows by label, as mining takes them."""
    frame = read_corpus(out / "clean.parquet").frame
    for label in ("BENIGN", "MALICIOUS"):
        target = out / f"clean_{label.lower()}.parquet"
        if not made_of(target, [found["key"] for found in stages]):
            write_corpus(frame.filter(pl.col("label").cast(pl.String) == label), target, force=True)


def markdown(result: dict[str, Any]) -> str:
    """The stages as a table."""
    lines = [
        f"# Full size: {result['rows']:,} rows, {result['per_fp']} samples a false positive, {result['cores']} cores",
        "",
        "| stage | wall | CPU | peak memory | rows out | load |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for found in result["stages"]:
        rows = "" if found["rows"] is None else f"{found['rows']:,}"
        lines.append(
            f"| {found['stage']} | {found['seconds'] / 60:.1f} min | {found['cpu_seconds'] / 60:.1f} min | "
            f"{found['peak_gb']:.2f} GB | {rows} | {found['load']} |"
        )
    total = sum(found["seconds"] for found in result["stages"])
    lines += [
        "",
        f"{total / 60:.1f} minutes in all. Load is the machine's, 5 minutes' mean: over 2, others worked too.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
