"""How long 236,000 rows take to read: a corpus is written in each format, a third of it with threat type and extra.

Run it with `python benchmarks/reading.py`; it prints sizes and the median of three readings, and ends with an error
where what is read differs from what was written.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crywolf.data import make_corpus, read_corpus, write_corpus


def main() -> None:
    """Write, read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=236_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    frame = corpus(arguments.rows, np.random.default_rng(arguments.seed))
    print("| file | MB | s |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("corpus.jsonl", "corpus.csv", "corpus.parquet"):
            path = write_corpus(frame, Path(folder) / name)
            print(f"| {name} | {path.stat().st_size / 1e6:.0f} | {median_seconds(path, frame):.2f} |", flush=True)


def corpus(rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """Rows of 8 to 40 words, every third an attack with what a master file says of it."""
    lengths = rng.integers(8, 40, rows)
    words = np.array([f"w{i}" for i in range(5000)])[rng.integers(0, 5000, int(lengths.sum()))]
    texts = [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]
    return make_corpus([row(i, text) for i, text in enumerate(texts)])


def row(place: int, text: str) -> dict[str, Any]:
    """One row of the contract."""
    shared = {"text": f"{text} {place}", "source": "bench", "external_id": f"e{place}"}
    if place % 3:
        return shared | {"label": "BENIGN", "category": "programming"}
    extra = {"confidence": 0.5, "notes": "seen twice", "family": "persona"}
    return shared | {"label": "MALICIOUS", "threat_type": "semantic_jailbreak", "extra": extra}


def median_seconds(path: Path, expected: pl.DataFrame) -> float:
    """Median of three readings."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        found = read_corpus(path).frame
        taken.append(time.perf_counter() - start)
        if not found.equals(expected):
            raise SystemExit(f"{path}: read back differently")
    return statistics.median(taken)


if __name__ == "__main__":
    main()
