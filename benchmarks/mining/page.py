"""The parts of benchmarks/mining as a page of tables."""

from __future__ import annotations

import os
from typing import Any

from value import RECALL


def markdown(parts: dict[str, Any], *, quick: bool) -> str:
    """The parts as a page of tables."""
    pages = {"embed": page_embed, "job": page_job, "full": page_full, "search": page_search}
    pages |= {"value": page_value, "tuned": page_value}
    size = "the quick sizes: a smoke test, not a result" if quick else "the default sizes"
    lines = ["# Mining, measured", "", f"`make bench-mining`, {size}; {os.cpu_count()} cores."]
    for part, page in pages.items():
        lines += page(parts[part]) if part in parts else []
    return "\n".join(lines) + "\n"


def rows_of(header: str, rows: list[list[Any]]) -> list[str]:
    columns = header.split("|")
    lines = ["", "| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def page_embed(part: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            f"{one['rows_per_s']:.0f}",
            f"{one['recall_at_10']:.4f}",
            one["least_cosine"],
            one["moved_by_batch"],
            one["load_s"],
            one["peak_mb"],
        ]
        for name, one in part["table"].items()
    ]
    return [
        "",
        "## Embedding",
        "",
        f"{part['rows']:,} rows of the benign pool, {part['minutes']} minutes. Recall and cosine are against the first "
        "line; moved by batch is 1 - cosine between a text's vector alone and among all, at worst. Loading in ONNX "
        "Runtime is with the export, once; peak is of the first process.",
        *rows_of("backend|rows/s|recall@10|least cosine|moved by batch|load, s|peak MB", rows),
    ]


def page_job(part: dict[str, Any]) -> list[str]:
    rows = [
        [name, one["wall_s"], one["mined"], one["peak_mb"], one["base_mb"], one["over_vectors_mb"]]
        for name, one in part["table"].items()
    ]
    return [
        "",
        "## The whole job",
        "",
        f"{part['benign']:,} benign rows, {part['attacks']:,} attacks, from a fresh process to the mined rows, models "
        f"loaded and everything embedded; the vectors take {part['vectors_mb']} MB. {part['minutes']} minutes.",
        *rows_of("miner|wall, s|mined|peak MB|of it torch|peak less vectors", rows),
    ]


def page_full(part: dict[str, Any]) -> list[str]:
    found = part["index"]
    return [
        "",
        "## 236,000 rows",
        "",
        f"`crywolf mine-hard-negatives` on {part['rows']:,} rows: {part['wall_s'] / 60:.1f} minutes, peak "
        f"{part['peak_mb']:,} MB, vectors {part['vectors_mb']} MB, so {part['over_vectors_mb']} MB besides; index "
        f"{found['kind']}, recall@{found['k']} {found['recall']:.3f}.",
    ]


def page_search(part: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            f"{one['build_s']:.1f}",
            f"{one['ms_per_query']:.2f}",
            f"{one['recall_at_10']:.4f}",
            one["file_mb"],
            f"{one['effort']:.0f}",
        ]
        for name, one in part["table"].items()
    ]
    return [
        "",
        "## Index search",
        "",
        f"{part['rows']:,} rows ({part['real']:,} real vectors, the others copies of them at a cosine of 0.5 to 0.95), "
        f"{part['queries']:,} queries, mapped from disk but for the first line. {part['minutes']} minutes.",
        *rows_of("index|build, s|ms a query|recall@10|file MB|effort", rows),
    ]


NAMED = {"probe": "probe on sentence vectors", "finetune": "fine-tuned encoder"}
FIXED = {
    "own": "of held-back attacks of the sources that it was trained on. Less is better, but on attacks",
    "unseen": "of the tensortrust attacks, a source that no arm was trained on",
}


def page_value(part: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"## What the mined rows are worth to a {NAMED[part['detector']]}",
        "",
        f"Share flagged, with Wilson's 95% interval of one seed; rows added in each of "
        f"{len(part['added'])} draws of the base: {', '.join(map(str, part['added']))}. {part['minutes']} minutes.",
    ]
    for name, fixed in FIXED.items():
        lines += ["", f"Each detector's threshold catches {RECALL[name]:.0%} {fixed}."]
        lines += rates(part[name]["table"])
        lines += ["", "Crywolf less the others, paired, 95% bootstrap over rows and draws:"]
        lines += differences(part[name]["crywolf_less"])
    return lines


def rates(table: dict[str, Any]) -> list[str]:
    rows = []
    for name, first in next(iter(table.values())).items():
        cells = [arm[name] for arm in table.values()]
        shown = [f"{cell['share']:.1%} ({cell['low']:.1%} to {cell['high']:.1%})" for cell in cells]
        rows.append([name, first["n"], *shown])
    return rows_of("flagged, of|n|" + "|".join(table), rows)


def differences(less: dict[str, Any]) -> list[str]:
    rows = []
    for name in next(iter(less.values())):
        cells = [arm[name] for arm in less.values()]
        rows.append([name, *[f"{cell['mean']:+.1%} ({cell['low']:+.1%} to {cell['high']:+.1%})" for cell in cells]])
    return rows_of("flagged, of|" + "|".join(f"less {arm}" for arm in less), rows)
