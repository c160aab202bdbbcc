"""Near-duplicates: seconds, peak memory, recall and precision of crywolf and of its rivals, on the same prompts.

`make bench-dedup` runs it. Each engine runs in a process of its own, so that its peak memory is its own; engines take
turns, so that a busy moment of the machine does not hit one alone. Every run is kept in `--work` at once, and a run
that was cut off goes on where it stopped. It writes docs/bench/dedup.json and docs/bench/dedup.md.

The prompts are those of the pools in `--corpus` (the embedded seeds without one), topped up to each size with variants
of them that this script makes: words swapped, left out or taken from another prompt, typing errors, another case, an
ending, a polite opening. A tenth of the variants are edited so much that they fall under the threshold.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from document import machine, write

THRESHOLD = 0.8
NUM_PERM = 128
SAMPLE = 10_000
SIZES = (90_000, 236_000)
ROOT = Path(__file__).resolve().parent.parent
POLITE = ("please ", "hi, ", "quick question: ", "can you help? ", "hello! ")
ENDINGS = ("!", "?", ".", " thanks", " please", " asap")
VERSIONS = ("crywolf", "datasketch", "rensa", "semhash", "numpy", "polars", "scipy")

Seconds = dict[str, float]


# ------------------------------------------------------------------------------------------------------------- prompts


def read_prompts(corpus: Path | None) -> list[str]:
    """Return the prompts of the pools, or the embedded ones."""
    if corpus is None:
        from crywolf.data.embedded import benign_seeds, malicious_seeds

        return [*benign_seeds()["text"], *malicious_seeds()["text"]]
    texts = []
    for name in ("benign_pool.jsonl.gz", "malicious_pool.jsonl.gz"):
        with gzip.open(corpus / name, "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    return texts


def top_up(texts: list[str], size: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return `size` prompts with the number of the prompt that each varies (its own for an original)."""
    base = list(range(min(size, len(texts))))
    out = texts[:size]
    words = [word for text in texts[:2000] for word in text.split()]
    for origin in rng.integers(0, len(texts), size - len(out)).tolist():
        base.append(origin)
        out.append(vary(texts[origin], words, rng))
    return pl.DataFrame({"id": [f"{i:08d}" for i in range(len(out))], "text": out, "base": base})


def vary(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """Return a prompt edited one to three times, every tenth one about ten times."""
    edits = int(rng.integers(8, 13)) if rng.random() < 0.1 else int(rng.integers(1, 4))
    for _ in range(edits):
        text = EDITS[int(rng.integers(len(EDITS)))](text, words, rng)
    return text


def _swap(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    parts = text.split(" ")
    if len(parts) > 1:
        i = int(rng.integers(len(parts) - 1))
        parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return " ".join(parts)


def _replace(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    parts = text.split(" ")
    parts[int(rng.integers(len(parts)))] = words[int(rng.integers(len(words)))]
    return " ".join(parts)


def _leave_out(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    parts = text.split(" ")
    if len(parts) > 3:
        del parts[int(rng.integers(len(parts)))]
    return " ".join(parts)


def _typo(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    if len(text) < 3:
        return text
    i = int(rng.integers(len(text) - 1))
    wrong = (text[i + 1] + text[i], text[i] + text[i] + text[i + 1], text[i + 1])
    return text[:i] + wrong[int(rng.integers(3))] + text[i + 2 :]


def _case(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    return (text.lower(), text.upper(), text.capitalize())[int(rng.integers(3))]


def _ending(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    return text + ENDINGS[int(rng.integers(len(ENDINGS)))]


def _opening(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    return POLITE[int(rng.integers(len(POLITE)))] + text


EDITS: tuple[Callable[[str, Sequence[str], np.random.Generator], str], ...] = (
    _swap,
    _replace,
    _leave_out,
    _typo,
    _case,
    _ending,
    _opening,
)


def families(frame: pl.DataFrame, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return a sample that has pairs in it: whole families (a prompt and its variants), varied ones first."""
    sizes = frame.group_by("base", maintain_order=True).len()
    order = sizes.with_columns(_at=pl.Series(rng.random(len(sizes)) - (sizes["len"] > 1).to_numpy()))
    order = order.sort("_at").with_columns(_upto=pl.col("len").cum_sum())
    wanted = order.filter(pl.col("_upto") <= rows)["base"]
    return frame.filter(pl.col("base").is_in(wanted.to_list()))


# ------------------------------------------------------------------------------------------------------------- engines


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    @contextmanager
    def stage(self, name: str) -> Any:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def shingle_sets(texts: Sequence[str]) -> list[set[bytes]]:
    """Return the distinct lower-cased 5-grams of each text as bytes: what the rivals are fed."""
    out = []
    for text in texts:
        folded = " ".join(text.lower().split())
        out.append({folded[i : i + 5].encode("utf-8", "surrogatepass") for i in range(max(len(folded) - 4, 1))})
    return out


def nothing(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """The texts alone: what every process holds before it begins."""
    with clock.stage("whole"):
        texts = frame["text"].to_list()
    return {"kept": len(texts)}


def ours(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """crywolf: signatures apart (with their shingling), then the whole job from texts to kept rows, verified."""
    from crywolf.augment.dedup import deduplicate, fold, sign

    texts = frame["text"].to_list()
    with clock.stage("signatures"):
        sign([fold(text) for text in texts])
    with clock.stage("whole"):
        result = deduplicate(frame)
    return {"kept": result.kept.height}


def ours_clusters(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """crywolf: connected components of near-duplicates."""
    from crywolf.augment.dedup import near_duplicate_clusters

    texts = frame["text"].to_list()
    with clock.stage("whole"):
        labels = near_duplicate_clusters(texts)
    return {"kept": int(labels.max()) + 1}


def ours_index(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """Crywolf's persisted index over datasketch's MinHashLSH: built, saved, loaded, asked 1,000 times."""
    from crywolf.augment.dedup import NearIndex

    path = Path(os.environ["BENCH_WORK"]) / "index.npz"
    index = NearIndex()
    with clock.stage("build"):
        index.add(frame)
    with clock.stage("save"):
        index.save(path)
    del index
    with clock.stage("load"):
        index = NearIndex.load(path)
    asked = [f"{text}!" for text in frame["text"].head(1000)]
    with clock.stage("query_1000"):
        found = index.query(asked)
    size = path.stat().st_size
    path.unlink()
    clock.seconds["whole"] = clock.seconds["load"] + clock.seconds["query_1000"]
    return {"found": found["position"].n_unique(), "file_mb": round(size / 1e6, 1)}


def datasketch_with(params: tuple[int, int] | None) -> Callable[[pl.DataFrame, Clock], dict[str, Any]]:
    """Datasketch 2: bulk signatures, then each text asked for and inserted if nothing was found."""

    def run(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
        from datasketch import MinHash, MinHashLSH

        texts = frame["text"].to_list()
        with clock.stage("shingles"):
            sets = shingle_sets(texts)
        with clock.stage("signatures"):
            sketches = MinHash.bulk(sets, num_perm=NUM_PERM)
        kept = 0
        with clock.stage("lsh"):
            index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, params=params)
            for number, sketch in enumerate(sketches):
                if not index.query(sketch):
                    index.insert(number, sketch)
                    kept += 1
        clock.seconds["whole"] = sum(clock.seconds.values())
        return {"kept": kept}

    return run


def rensa(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """rensa: a digest matrix and one pass for duplicate flags; a flagged row shares a band with another."""
    from rensa import RMinHash, RMinHashLSH

    texts = frame["text"].to_list()
    with clock.stage("shingles"):
        sets = shingle_sets(texts)
    with clock.stage("signatures"):
        matrix = RMinHash.digest_matrix_from_token_byte_sets(sets, NUM_PERM, 42)
    with clock.stage("lsh"):
        flags = RMinHashLSH(THRESHOLD, NUM_PERM, 32).query_duplicate_flags_matrix_one_shot(matrix)
    clock.seconds["whole"] = sum(clock.seconds.values())
    return {"flagged": int(sum(flags))}


def semhash(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """Semhash from our mining embeddings (its own model comes from a hub); embedding is timed apart and kept."""
    from semhash import SemHash

    from crywolf.mining import Embedder

    texts = frame["text"].to_list()
    embedder = Embedder(None, cache_dir=Path(os.environ["BENCH_WORK"]) / "embeddings")
    start = time.perf_counter()
    vectors = embedder(texts)
    embedding = time.perf_counter() - start
    with clock.stage("whole"):
        index = SemHash.from_embeddings(embeddings=vectors, records=texts, model=embedder)
        result = index.self_deduplicate(threshold=0.95)
    return {"kept": len(result.selected), "embedding_seconds": round(embedding, 1)}


def ours_semantic(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """Crywolf's semantic duplicates from the same embeddings, exact."""
    from crywolf.augment.dedup import semantic_duplicates
    from crywolf.mining import Embedder

    embedder = Embedder(None, cache_dir=Path(os.environ["BENCH_WORK"]) / "embeddings")
    start = time.perf_counter()
    vectors = embedder(frame["text"].to_list())
    embedding = time.perf_counter() - start
    with clock.stage("whole"):
        result = semantic_duplicates(vectors, threshold=0.95)
    return {"kept": len(result.kept), "embedding_seconds": round(embedding, 1)}


def text_dedup(frame: pl.DataFrame, clock: Clock) -> dict[str, Any]:
    """text-dedup's minhash module on a file, in its own environment, with its own word 5-grams and all cores."""
    work = Path(os.environ["BENCH_WORK"]) / "text-dedup-run"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    frame.select("text").write_ndjson(work / "texts.jsonl")
    options = {
        "path": "json",
        "data_files": work / "texts.jsonl",
        "split": "train",
        "column": "text",
        "ngram": 5,
        "min_length": 0,
        "num_perm": NUM_PERM,
        "threshold": THRESHOLD,
        "output": work / "out",
        "cache_dir": work / "cache",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "home")}
    command = [os.environ["BENCH_TEXT_DEDUP"], "-m", "text_dedup.minhash", *words]
    with clock.stage("whole"):
        ran = subprocess.run(command, env=offline, cwd=work, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-500:])
    said = " ".join((ran.stdout + ran.stderr).split())
    for stage in ("MinHashing", "Clustering"):
        found = re.search(rf"{stage} : (?:timer\.py:\d+ )?([\d.]+)s", said)
        if found:
            clock.seconds[stage.lower()] = float(found[1])
    kept = pl.concat([pl.read_ipc_stream(part) for part in sorted((work / "out").glob("*.arrow"))]).height
    shutil.rmtree(work)
    return {"kept": kept}


ENGINES: dict[str, Callable[[pl.DataFrame, Clock], dict[str, Any]]] = {
    "texts alone": nothing,
    "crywolf": ours,
    "crywolf clusters": ours_clusters,
    "crywolf index": ours_index,
    "datasketch": datasketch_with(None),
    "datasketch 32x4": datasketch_with((32, 4)),
    "rensa": rensa,
    "text-dedup": text_dedup,
    "semhash": semhash,
    "crywolf semantic": ours_semantic,
}
EMBEDDED = ("semhash", "crywolf semantic")
"""Engines that need embeddings, minutes of them: run at the first size only unless told otherwise."""


# --------------------------------------------------------------------------------------------------------------- pairs


def true_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Return all near-duplicate pairs by brute force: every text's shingles against every other's, counted."""
    from scipy.sparse import csr_array

    sets = shingle_sets(texts)
    columns: dict[bytes, int] = {}
    indices = [columns.setdefault(shingle, len(columns)) for found in sets for shingle in found]
    sizes = np.array([len(found) for found in sets])
    data = np.ones(len(indices), dtype=np.int32)
    matrix = csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(len(sets), len(columns)))
    turned = matrix.T.tocsr()
    found = set()
    for start in range(0, len(sets), 500):
        shared = (matrix[start : start + 500] @ turned).tocoo()
        a, b, n = shared.row + start, shared.col, shared.data
        near = n / (sizes[a] + sizes[b] - n) >= THRESHOLD
        found |= {(int(x), int(y)) for x, y in zip(a[near], b[near], strict=True) if x < y}
    return found


def our_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Return crywolf's pairs."""
    from crywolf.augment.dedup import near_duplicate_pairs

    return {(a, b) for a, b in near_duplicate_pairs(texts, threshold=THRESHOLD)[0].tolist()}


def datasketch_pairs(texts: Sequence[str], params: tuple[int, int] | None, estimate: bool) -> set[tuple[int, int]]:
    """Return datasketch's candidate pairs; with `estimate` those whose estimated similarity reaches the threshold."""
    from datasketch import MinHash, MinHashLSH

    sketches = MinHash.bulk(shingle_sets(texts), num_perm=NUM_PERM)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, params=params)
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    pairs = {(a, b) for a, sketch in enumerate(sketches) for b in index.query(sketch) if a < b}
    return {pair for pair in pairs if not estimate or sketches[pair[0]].jaccard(sketches[pair[1]]) >= THRESHOLD}


def rensa_pairs(texts: Sequence[str], estimate: bool) -> set[tuple[int, int]]:
    """Return rensa's candidate pairs; with `estimate` those whose estimated similarity reaches the threshold."""
    from rensa import RMinHash, RMinHashLSH

    sketches = RMinHash.from_token_sets(shingle_sets(texts), NUM_PERM, 42)
    index = RMinHashLSH(THRESHOLD, NUM_PERM, 32)
    index.insert_many(sketches)
    pairs = {(a, b) for a, found in enumerate(index.query_all(sketches)) for b in found if a < b}
    return {pair for pair in pairs if not estimate or sketches[pair[0]].jaccard(sketches[pair[1]]) >= THRESHOLD}


def agreement(texts: list[str]) -> list[dict[str, Any]]:
    """Return each engine's recall and precision against brute force."""
    truth = true_pairs(texts)
    given: dict[str, Callable[[], set[tuple[int, int]]]] = {
        "crywolf": lambda: our_pairs(texts),
        "datasketch, candidates": lambda: datasketch_pairs(texts, None, estimate=False),
        "datasketch, estimate >= 0.8": lambda: datasketch_pairs(texts, None, estimate=True),
        "datasketch 32x4, candidates": lambda: datasketch_pairs(texts, (32, 4), estimate=False),
        "datasketch 32x4, estimate >= 0.8": lambda: datasketch_pairs(texts, (32, 4), estimate=True),
        "rensa, candidates": lambda: rensa_pairs(texts, estimate=False),
        "rensa, estimate >= 0.8": lambda: rensa_pairs(texts, estimate=True),
    }
    rows = []
    for name, pairs in given.items():
        try:
            found = pairs()
        except ImportError as error:
            print(f"{name}: {error}", flush=True)
            continue
        right = len(found & truth)
        rows.append(
            {
                "engine": name,
                "pairs": len(truth),
                "given": len(found),
                "found": right,
                "recall": right / len(truth) if truth else 1.0,
                "precision": right / len(found) if found else 1.0,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def banding_times(frame: pl.DataFrame, repeats: int) -> Seconds:
    """Return the seconds of bucketing the same band keys by our table and sort, and by a polars group-by."""
    from crywolf.augment.dedup import fold
    from crywolf.augment.dedup.pairs import Buckets
    from crywolf.augment.dedup.sketch import sketch, unique

    keys = sketch(unique([fold(text) for text in frame["text"].to_list()])[0], THRESHOLD).bands

    def grouped() -> int:
        buckets = 0
        for band in keys:
            rows = pl.DataFrame({"key": band}).with_row_index()
            buckets += rows.group_by("key").agg("index").filter(pl.col("index").list.len() > 1).height
        return buckets

    def sorted_() -> int:
        return int((Buckets(keys).count == 1).sum())

    if grouped() != sorted_():
        raise SystemExit("banding: the two ways give different buckets")
    return {"crywolf": median_of(sorted_, repeats), "polars group-by": median_of(grouped, repeats)}


def median_of(work: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of some runs."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


# ---------------------------------------------------------------------------------------------------------------- runs


def one_run(engine: str, texts: Path) -> None:
    """Run one engine in this process and print what it took."""
    frame = pl.read_parquet(texts)
    clock = Clock()
    try:
        if engine != "text-dedup":
            ENGINES[engine](frame.head(64), Clock())  # imports and first uses are nobody's speed
        result: dict[str, Any] = ENGINES[engine](frame, clock)
    except ImportError as error:
        result = {"error": f"not installed: {error}"}
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    seconds = {stage: round(value, 4) for stage, value in clock.seconds.items()}
    print(json.dumps({**result, "seconds": seconds, "peak_mb": round(peak_mb(), 1)}))


def peak_mb() -> float:
    """Return the most memory that this process, or the largest of its children, has held."""
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with what the parent held
        lines = status.read_text(encoding="utf-8").splitlines()
        own = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return max(own, children)


def run_engine(engine: str, texts: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run one engine in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--engine", engine, "--texts", str(texts)]
    ran = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if ran.returncode:
        return {"error": f"exit code {ran.returncode}: {ran.stderr[-300:]}"}
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def text_dedup_python(work: Path) -> str | None:
    """Return the interpreter of text-dedup's own environment, made if it is missing; None if it does not install."""
    folder = work / "text-dedup"
    python = folder / "bin" / "python"
    if not python.exists():
        requirements = ROOT / "benchmarks" / "requirements-text-dedup.txt"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(requirements)]
        if subprocess.run(install, check=False).returncode:
            shutil.rmtree(folder)
            return None
    return str(python)


class Runs:
    """The runs done so far, a line each in a file; a run that is there is not made again."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.done: dict[str, dict[str, Any]] = {row["key"]: row for row in map(json.loads, lines)}

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a run, made and kept if it is new; one that failed is tried again."""
        if key not in self.done or "error" in self.done[key]:
            self.done[key] = {"key": key, **make()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.done[key]) + "\n")
        return self.done[key]


def summary(engine: str, size: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of an engine's runs."""
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"engine": engine, "rows": size, "error": failed[0]}
    stages = runs[0]["seconds"]
    seconds = {stage: round(statistics.median(run["seconds"][stage] for run in runs), 3) for stage in stages}
    rest = {name: value for name, value in runs[0].items() if name not in ("key", "seconds", "peak_mb")}
    if "embedding_seconds" in rest:
        rest["embedding_seconds"] = max(run["embedding_seconds"] for run in runs)  # later runs read them from disk
    peak = round(max(run["peak_mb"] for run in runs), 1)
    return {"engine": engine, "rows": size, "repeats": len(runs), "seconds": seconds, "peak_mb": peak, **rest}


def ratios(results: list[dict[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return how many times faster crywolf is than datasketch, in signatures (with shingling) and in the whole job."""
    rows = []
    by_name = {(row["engine"], row["rows"]): row["seconds"] for row in results if "seconds" in row}
    for size in sizes:
        own = by_name.get(("crywolf", size))
        for rival in ("datasketch", "datasketch 32x4", "rensa"):
            other = by_name.get((rival, size))
            if own is None or other is None:
                continue
            signed = (other["shingles"] + other["signatures"]) / own["signatures"]
            alone = other["signatures"] / own["signatures"]
            whole = other["whole"] / own["whole"]
            rows.append(
                {
                    "rows": size,
                    "against": rival,
                    "signatures_with_shingling": round(signed, 2),
                    "their_signatures_alone": round(alone, 2),
                    "whole": round(whole, 2),
                }
            )
    return rows


# --------------------------------------------------------------------------------------------------------------- pages


def cell(value: Any) -> str:
    """Return a table cell."""
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)


def page(document: dict[str, Any]) -> str:
    """Return docs/bench/dedup.md."""
    about = document["about"]
    lines = [
        "# Deduplication",
        "",
        f"`make bench-dedup` ({about['command']}). {about['prompts']} Medians of {about['repeats']}; peak memory "
        f"is the largest of a process that does nothing else, Python and the texts included. {about['cpus']} cores, "
        f"{about['machine']}.",
        "",
        "| rows | engine | shingles, s | signatures, s | matching, s | whole job, s | peak, MB | result |",
        "|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in document["engines"]:
        if "error" in row:
            lines.append(f"| {row['rows']:,} | {row['engine']} | | | | | | {row['error'][:160].replace('|', '/')} |")
            continue
        own = row["seconds"]
        stages = [
            own.get("shingles"),
            own.get("signatures", own.get("minhashing")),
            own.get("lsh", own.get("clustering")),
        ]
        cells = " | ".join(cell(value) for value in (*stages, own["whole"], round(row["peak_mb"])))
        lines.append(f"| {row['rows']:,} | {row['engine']} | {cells} | {says(row)} |")
    lines += ["", *NOTES, "", "## Speed against the rivals", ""]
    lines += [
        "| rows | against | signatures, both with shingling | their signatures alone | whole job |",
        "|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['rows']:,} | {row['against']} | {row['signatures_with_shingling']:.1f}x | "
        f"{row['their_signatures_alone']:.1f}x | {row['whole']:.1f}x |"
        for row in document["times_faster"]
    ]
    lines += ["", f"## Pairs against brute force, on {about['sample']:,} prompts", ""]
    lines += ["| engine | true pairs | given | found | recall | precision |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {row['engine']} | {row['pairs']:,} | {row['given']:,} | {row['found']:,} | {row['recall']:.4f} | "
        f"{row['precision']:.4f} |"
        for row in document["pairs"]
    ]
    lines += ["", "## Banding", "", banding_line(document["banding"]), ""]
    return "\n".join(lines)


NOTES = (
    "Whole job: texts in, kept rows out. crywolf's `signatures` include shingling; its whole job is run apart, signs "
    "again, and checks every pair by exact Jaccard. `datasketch` is `MinHash.bulk` and `MinHashLSH(threshold=0.8)`, "
    "a text inserted if the index knows nothing like it; `32x4` is the same with crywolf's bands, which it needs for "
    "crywolf's recall. rensa only flags rows that share a band. text-dedup shingles words, reads and writes files, and "
    "uses all cores; its peak is that of its largest process. `crywolf index` is the persisted index: whole is loading "
    "it and asking 1,000 texts.",
)


def says(row: dict[str, Any]) -> str:
    """Return what an engine gave besides its times."""
    names = ("kept", "flagged", "found", "file_mb", "embedding_seconds")
    more = {f"{name.replace('_', ' ')} {row[name]:,}" for name in names if name in row}
    steps = {
        stage: row["seconds"][stage] for stage in ("build", "save", "load", "query_1000") if stage in row["seconds"]
    }
    return ", ".join([*sorted(more), *(f"{stage.replace('_', ' ')} {value:.2f} s" for stage, value in steps.items())])


def banding_line(times: list[dict[str, Any]]) -> str:
    """Return the sentence on banding."""
    each = [f"{row['rows']:,} rows: {row['crywolf']:.2f} s and {row['polars group-by']:.2f} s" for row in times]
    return (
        "The same 32 bands into buckets by crywolf's table and sort, and by a polars group-by: " + "; ".join(each) + "."
    )


def versions() -> dict[str, str]:
    """Return the versions of everything that is measured."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder with benign_pool.jsonl.gz and malicious_pool.jsonl.gz")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="prompts compared with brute force")
    parser.add_argument("--only", nargs="+", choices=sorted(ENGINES), help="these engines alone")
    parser.add_argument("--embed-all", action="store_true", help="semantic engines at every size, not the first alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget the runs done before")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench" / "dedup")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench" / "dedup.json")
    parser.add_argument("--engine", choices=sorted(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Make the prompts, run the engines in turns, compare pairs, write."""
    chosen = arguments()
    if chosen.engine:
        one_run(chosen.engine, chosen.texts)
        return
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prompts = read_prompts(chosen.corpus)
    frames = {size: top_up(prompts, size, np.random.default_rng(chosen.seed)) for size in chosen.sizes}
    runs = Runs(work / "runs.jsonl", fresh=chosen.fresh)
    document = begin(chosen, prompts, frames)
    environment = {"BENCH_WORK": str(work), "TOKENIZERS_PARALLELISM": "false"}
    engines = [name for name in ENGINES if not chosen.only or name in chosen.only]
    if "text-dedup" in engines:
        python = text_dedup_python(work)
        environment["BENCH_TEXT_DEDUP"] = python or "text-dedup-does-not-install"
    for number, (size, frame) in enumerate(frames.items()):
        texts = work / f"texts-{size}.parquet"
        frame.write_parquet(texts)
        mark = f"{fingerprint(frame)} {json.dumps(versions(), sort_keys=True)} {size}"
        able = [name for name in engines if not number or chosen.embed_all or name not in EMBEDDED]
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in able}
        for repeat in range(chosen.repeats):
            for name in able:
                code = own_code() if name.startswith("crywolf") else ""
                run = runs.get(f"{mark} {name}{code} {repeat}", partial(run_engine, name, texts, environment))
                measured[name].append(run)
                print(size, name, repeat, {key: value for key, value in run.items() if key != "key"}, flush=True)
        document["engines"] += [summary(name, size, found) for name, found in measured.items()]
        document["times_faster"] = ratios(document["engines"], chosen.sizes)
        document["banding"].append({"rows": size, **banding_times(frame, chosen.repeats)})
        write(document, page(document), chosen.out)
    largest = frames[max(frames)]
    sample = families(largest, chosen.sample, np.random.default_rng(chosen.seed))
    document["about"]["sample"] = sample.height
    document["pairs"] = agreement(sample["text"].to_list())
    write(document, page(document), chosen.out)
    print(page(document))


def begin(chosen: argparse.Namespace, prompts: list[str], frames: dict[int, pl.DataFrame]) -> dict[str, Any]:
    """Return the document before anything is measured."""
    kind = "of the pools in the corpus" if chosen.corpus else "embedded ones"
    lengths = {size: round(float(frame["text"].str.len_chars().mean() or 0.0), 1) for size, frame in frames.items()}  # type: ignore[arg-type]
    said = ", ".join(f"{size:,} of {length} characters on average" for size, length in lengths.items())
    about = {
        "command": "python benchmarks/dedup.py" + (" --corpus CORPUS" if chosen.corpus else ""),
        "prompts": f"{said}: {len(prompts):,} prompts {kind}, the rest variants of them that the script makes.",
        "repeats": chosen.repeats,
        "seed": chosen.seed,
        "threshold": THRESHOLD,
        "cpus": os.cpu_count(),
        "machine": machine(),
        "versions": versions(),
        "sample": 0,
    }
    return {"about": about, "engines": [], "times_faster": [], "pairs": [], "banding": []}


def own_code() -> str:
    """Return a hash of what is measured of crywolf: a changed module is another run."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted((ROOT / "augment" / "dedup").glob("*.py")):
        digest.update(path.read_bytes())
    return f" {digest.hexdigest()}"


def fingerprint(frame: pl.DataFrame) -> str:
    """Return a hash of the texts: another corpus, seed or size is another run."""
    digest = hashlib.blake2b(digest_size=8)
    for text in frame["text"]:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    main()
