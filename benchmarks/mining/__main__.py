"""Mining against its alternatives: rows embedded a second, the whole job, index search, what mined rows are worth.

Run it with `make bench-mining`; it keeps what is done in --out, takes up where it stopped, and writes
docs/bench/mining.json and mining.md after every part. Each measurement has a process of its own, so that its peak
memory is its own; what is compared runs in turn, again and again, and medians are told. Needs
benchmarks/requirements.txt (datasets, for the miner of sentence-transformers).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from backends import BACKENDS, encoder_of
from page import markdown
from value import LABEL, draw, theirs, value

from crywolf.mining import MineConfig

K = 10
FULL = 236_000
MEGABYTE = 1 << 20
SIZES = {
    # rows embedded, rows and attacks of the job, repeats, real vectors and rows of the search, value: rows, seeds
    "full": {"embed": 3000, "job": 8000, "attacks": 1500, "repeats": 3, "real": 20_000, "search": 236_000}
    | {
        "queries": 1000,
        "base": 3000,
        "pool": 16_000,
        "added": 1000,
        "seeds": 5,
        "tuned_seeds": 2,
        "value_attacks": 3887,
    },
    "quick": {"embed": 300, "job": 600, "attacks": 150, "repeats": 1, "real": 2500, "search": 100_000}
    | {"queries": 200, "base": 1000, "pool": 3000, "added": 300, "seeds": 3, "tuned_seeds": 1, "value_attacks": 700},
}
PARTS = ("embed", "job", "search", "value")
SLOW = ("tuned", "full")  # what mined rows are worth to a fine-tuned encoder; the command on 236,000 rows


def main() -> None:
    """Run the parts that are not done, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"), help="the pools and ood_dev")
    parser.add_argument("--out", type=Path, default=Path("work/mining"), help="where what is done is kept")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="where the tables go")
    parser.add_argument("--part", choices=[*PARTS, *SLOW], action="append", help="only this")
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")), help="under 3 minutes")
    parser.add_argument("--again", action="store_true", help="measure anew what is done already")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(json.loads(arguments.child))
        return
    arguments.size = SIZES["quick" if arguments.quick else "full"]
    tuned = partial(value, detector="finetune")
    run = {"embed": embedding, "job": job, "search": searching, "value": value, "tuned": tuned, "full": full_size}
    state = State(arguments)
    for part in arguments.part or PARTS:
        state.add(part, run[part])
    print((arguments.docs / "mining.md").read_text("utf-8"))


class State:
    """The parts that are done, on disk; a part measured under other settings is measured anew."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._file = arguments.out / ("quick.json" if arguments.quick else "full.json")
        self._parts: dict[str, Any] = json.loads(self._file.read_text("utf-8")) if self._file.is_file() else {}

    def add(self, part: str, run: Callable[[argparse.Namespace], dict[str, Any]]) -> None:
        """Run a part if need be, and write everything."""
        asked = self._arguments
        settings = {"size": asked.size, "seed": asked.seed}
        if part in {"value", "tuned"}:
            settings |= {"mining": asdict(MineConfig())}
        done = self._parts.get(part)
        if asked.again or done is None or done["settings"] != settings:
            start = time.perf_counter()
            result = run(asked)
            self._parts[part] = {"settings": settings, "minutes": round((time.perf_counter() - start) / 60, 1)} | result
            write(self._file, json.dumps(self._parts, indent=1) + "\n")
        page = markdown(self._parts, quick=asked.quick)
        write(asked.docs / "mining.json", json.dumps({"quick": asked.quick} | self._parts, indent=1) + "\n")
        write(asked.docs / "mining.md", page)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ own processes


def measured(task: dict[str, Any], repeats: int = 1) -> dict[str, Any]:
    """Run a task in a process of its own, `repeats` times; medians of what it tells, and of its wall time."""
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    told = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{task['do']} failed:\n{done.stderr[-2000:]}")
        told.append(json.loads(done.stdout.splitlines()[-1]) | {"wall_s": time.perf_counter() - start})
    return {
        key: round(statistics.median(one[key] for one in told), 4) if isinstance(first, int | float) else first
        for key, first in told[0].items()
    }


def child(task: dict[str, Any]) -> None:
    """Do one measurement and print it; memory is in MB, `base_mb` that of a process that has imported torch."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    base = memory("VmRSS")
    does = {"embed": child_embed, "ours": child_ours, "theirs": child_theirs, "search": child_search}
    told = does[task["do"]](task)
    print(json.dumps({"base_mb": base, "peak_mb": memory("VmHWM")} | told))


def memory(name: str) -> int:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


# ---------------------------------------------------------------------------------------------------------- embedding


def embedding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rows a second of each backend, in turn, and how far its vectors agree."""
    folder = arguments.out / "embed"
    texts = draw(arguments, "benign_pool", arguments.size["embed"])["text"].to_list()
    write(folder / "texts.json", json.dumps(texts))
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in BACKENDS}
    for _ in range(arguments.size["repeats"]):
        for number, (name, backend) in enumerate(BACKENDS.items()):
            print("embedding:", name, file=sys.stderr)
            told[name].append(measured({"do": "embed", "folder": str(folder), "save": f"{number}.npy"} | backend))
    reference = np.load(folder / "0.npy")
    table = {}
    for number, (name, runs) in enumerate(told.items()):
        vectors = np.load(folder / f"{number}.npy")
        table[name] = {
            "rows_per_s": round(len(texts) / statistics.median(run["seconds"] for run in runs), 1),
            "recall_at_10": round(agreement(reference, vectors), 4),
            "least_cosine": round(float((reference * vectors).sum(axis=1).min()), 5),
            "moved_by_batch": runs[0]["moved_by_batch"],
            "load_s": round(statistics.median(run["load_s"] for run in runs), 1),
            "peak_mb": max(run["peak_mb"] for run in runs),
            "base_mb": runs[0]["base_mb"],
        }
    return {"rows": len(texts), "table": table}


def agreement(reference: np.ndarray, vectors: np.ndarray) -> float:
    """Share of each row's ten nearest others in the reference that are among its ten nearest in the other vectors."""
    from crywolf.mining import build_index
    from crywolf.mining.index import recall_at

    def others(rows: np.ndarray) -> np.ndarray:
        ids = build_index(rows).search(rows, K + 1)[1]
        is_self = ids == np.arange(len(rows))[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        return ids[~is_self].reshape(len(rows), K)

    return recall_at(others(reference), others(vectors))


def child_embed(task: dict[str, Any]) -> dict[str, Any]:
    folder = Path(task["folder"])
    texts = json.loads((folder / "texts.json").read_text("utf-8"))
    start = time.perf_counter()
    encode = encoder_of(task, folder)
    encode(texts[:8])
    loaded = time.perf_counter()
    vectors = encode(texts)
    seconds = time.perf_counter() - loaded
    np.save(folder / task["save"], vectors)
    alone = np.concatenate([encode([text]) for text in texts[:50]])
    cosine = (alone * vectors[:50]).sum(axis=1).min()
    return {"seconds": seconds, "load_s": loaded - start, "moved_by_batch": round(max(1.0 - float(cosine), 0.0), 6)}


# --------------------------------------------------------------------------------------------------------- whole job


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our miner and that of sentence-transformers on the same rows, embeddings included, in turn."""
    size, folder = arguments.size, arguments.out / "job"
    folder.mkdir(parents=True, exist_ok=True)
    benign, attacks = draw(arguments, "benign_pool", size["job"]), draw(arguments, "malicious_pool", size["attacks"])
    benign.write_parquet(folder / "benign.parquet")
    attacks.write_parquet(folder / "attacks.parquet")
    does = {
        "sentence_transformers.util.mine_hard_negatives": {"do": "theirs", "faiss": False},
        "the same, use_faiss=True": {"do": "theirs", "faiss": True},
        "crywolf, no cache": {"do": "ours"},
    }
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in does}
    for _ in range(size["repeats"]):
        for name, task in does.items():
            print("job:", name, file=sys.stderr)
            told[name].append(measured({"folder": str(folder)} | task))
    vectors = (len(benign) + len(attacks)) * 384 * 4 / MEGABYTE
    table = {
        name: {
            "wall_s": round(statistics.median(run["wall_s"] for run in runs), 1),
            "mined": runs[0]["mined"],
            "peak_mb": max(run["peak_mb"] for run in runs),
            "base_mb": runs[0]["base_mb"],
            "over_vectors_mb": round(max(run["peak_mb"] for run in runs) - vectors),
        }
        for name, runs in told.items()
    }
    return {"benign": len(benign), "attacks": len(attacks), "vectors_mb": round(vectors), "table": table}


def child_ours(task: dict[str, Any]) -> dict[str, Any]:
    from crywolf.mining import Embedder, mine_hard_negatives

    frames = [pl.read_parquet(Path(task["folder"]) / f"{name}.parquet") for name in ("benign", "attacks")]
    return {"mined": mine_hard_negatives(*frames, encode=Embedder()).frame.height}


def child_theirs(task: dict[str, Any]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    from crywolf.mining import default_encoder

    benign, attacks = (pl.read_parquet(Path(task["folder"]) / f"{name}.parquet") for name in ("benign", "attacks"))
    model: Any = SentenceTransformer(str(default_encoder()), device="cpu")
    model.max_seq_length = 128
    return {"mined": len(theirs(model, benign, attacks, faiss=task["faiss"]))}


def full_rows(arguments: argparse.Namespace, folder: Path) -> None:
    """Write 236,000 benign rows, the pool and again the pool with each row's words shuffled, and all attacks."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = draw(arguments, "benign_pool", None)
    words = pl.col("text").str.split(" ")
    copies = range(1, FULL // len(pool) + 1)
    shuffled = [pool.with_columns(words.list.sample(fraction=1.0, shuffle=True, seed=n).list.join(" ")) for n in copies]
    benign = pl.concat([pool, *shuffled])[:FULL]
    for name, frame in (("benign", benign), ("attacks", draw(arguments, "malicious_pool", None))):
        frame.select("text", "category", "source", LABEL).write_parquet(folder / f"{name}.parquet")


def full_size(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the command itself on 236,000 rows; its peak memory is its own."""
    folder = arguments.out / "full"
    full_rows(arguments, folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)  # embedding is part of what is timed
    script = (
        "import json, time, sys; from crywolf.cli import main; sys.argv = ['crywolf', *json.loads(sys.argv[1])]\n"
        "try: main()\n"
        "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    options = ["mine-hard-negatives", "--benign", str(folder / "benign.parquet")]
    options += ["--malicious", str(folder / "attacks.parquet"), "-o", str(folder / "hard.jsonl")]
    options += ["--cache", str(folder / "cache"), "--force", "--json"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(options)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found = json.loads(done.stdout)
    peak = int(done.stderr.split()[-1]) // 1024
    rows = FULL + len(pl.read_parquet(folder / "attacks.parquet", columns=["label"]))
    vectors = rows * 384 * 4 / MEGABYTE
    return {
        "rows": FULL,
        "wall_s": round(time.perf_counter() - start),
        "peak_mb": peak,
        "vectors_mb": round(vectors),
        "over_vectors_mb": round(peak - vectors),
        "index": found["index"],
    }


# ------------------------------------------------------------------------------------------------------------ search


def searching(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build, search and size of each index over real vectors and jittered copies of them, in turn."""
    size, folder = arguments.size, arguments.out / "search"
    folder.mkdir(parents=True, exist_ok=True)
    from crywolf.mining import Embedder

    texts = draw(arguments, "benign_pool", size["real"])["text"].to_list()
    np.save(folder / "real.npy", Embedder(cache_dir=arguments.out / "cache")(texts))
    kinds = {f"{kind}{', float16' * half}": (kind, half) for kind in ("exact", "ivf", "hnsw") for half in (False, True)}
    table = {}
    for name, (kind, half) in kinds.items():
        print("search:", name, file=sys.stderr)
        task = {"do": "search", "folder": str(folder), "kind": kind, "half": half, "rows": size["search"]}
        table[name] = measured(task | {"queries": size["queries"], "seed": arguments.seed})
    return {"rows": size["search"], "real": len(texts), "queries": size["queries"], "table": table}


def child_search(task: dict[str, Any]) -> dict[str, Any]:
    from crywolf.mining import build_index, load_index
    from crywolf.mining.index import recall_at

    folder, rng = Path(task["folder"]), np.random.default_rng(task["seed"])
    vectors = jittered(np.load(folder / "real.npy"), task["rows"], rng)
    queries = vectors[rng.choice(len(vectors), task["queries"], replace=False)]
    start = time.perf_counter()
    index = build_index(vectors, kind=task["kind"], float16=task["half"])
    built = time.perf_counter()
    index.tune(vectors, K, rng)
    path = folder / f"{task['kind']}{task['half']}.index"
    index.save(path, encoder="bench", ids=np.arange(len(vectors), dtype=np.uint64), force=True)
    index, _ = load_index(path, encoder="bench") if task["kind"] != "exact" or task["half"] else (index, None)
    index.search(queries[:2], K)
    seconds = []
    for _ in range(3):
        before = time.perf_counter()
        ids = index.search(queries, K)[1]
        seconds.append(time.perf_counter() - before)
    found = recall_at(build_index(vectors).search(queries, K)[1], ids)
    file_mb = round(path.stat().st_size / MEGABYTE)
    path.unlink()
    told = {"build_s": built - start, "ms_per_query": 1000 * statistics.median(seconds) / len(queries)}
    return told | {"recall_at_10": found, "file_mb": file_mb, "effort": index.effort}


def jittered(real: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """The vectors, then copies of them moved to a cosine of 0.5 to 0.95, up to so many rows."""
    out = np.empty((rows, real.shape[1]), dtype=np.float32)
    out[: len(real)] = real[:rows]
    for start in range(len(real), rows, len(real)):
        part = real[: min(len(real), rows - start)]
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        cosine = rng.uniform(0.5, 0.95, (len(part), 1)).astype(np.float32)
        moved = cosine * part + np.sqrt(1 - cosine**2) * noise
        out[start : start + len(part)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return out


if __name__ == "__main__":
    main()
