"""`crywolf audit` from files to a folder: the page, the document, the queue, and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.data import make_corpus, write_corpus
from crywolf.data.embedded import benign_seeds, malicious_seeds
from crywolf.mining import read_review


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benign prompts without labels, attacks with a benign row among them, and a holdout with a known prompt."""
    folder = tmp_path_factory.mktemp("audited")
    benign, attacks = benign_seeds().gather_every(8).head(150), malicious_seeds().gather_every(6).head(90)
    benign.select("text", source=pl.lit("plain")).write_ndjson(folder / "benign.jsonl")
    mixed = pl.concat([attacks, benign_seeds().tail(1)])
    write_corpus(mixed, folder / "attacks.jsonl")
    write_corpus(make_corpus([{"text": benign["text"][5]}], label="BENIGN"), folder / "golden.jsonl")
    return folder


@pytest.fixture(scope="module")
def ran(files: Path, cache: Path, crywolf: Callable) -> tuple[Path, Any]:
    out = files / "audit"
    given = ("--benign", files / "benign.jsonl", "--malicious", files / "attacks.jsonl")
    done = crywolf(
        "audit", *given, "--holdout", files / "golden.jsonl", "--sample", 60, "--cache", cache, "-o", out, "--json"
    )
    assert done.code == 0, done.err
    return out, done


def test_the_folder_has_the_page_the_document_the_queue_and_the_manifest(ran: tuple[Path, Any]) -> None:
    out, done = ran
    document = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert done.document["audit"] == document
    assert document["labels"] == {"BENIGN": 151, "MALICIOUS": 90}
    assert document["embedded"] == 120
    assert len(read_review(out / "review.jsonl")) == sum(document["label_errors"]["counts"].values())
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    manifest = json.loads((out / "run.manifest.json").read_text(encoding="utf-8"))
    assert [Path(entry["path"]).name for entry in manifest["inputs"]] == [
        "benign.jsonl",
        "attacks.jsonl",
        "golden.jsonl",
    ]
    assert len(manifest["outputs"]) == 3


def test_the_leak_and_the_lone_sources_are_named(ran: tuple[Path, Any]) -> None:
    document = ran[1].document["audit"]
    assert [row["rows"] for row in document["leakage"]["counts"] if row["kind"] == "exact"] == [1]
    checks = {finding["check"] for finding in document["findings"]}
    assert {"leakage", "shortcut: source"} <= checks


def test_people_see_tables_and_no_prompt(files: Path, crywolf: Callable) -> None:
    done = crywolf("audit", files / "attacks.jsonl", "--benign", files / "benign.jsonl", "--no-embeddings")
    assert done.code == 0, done.err
    assert "Shortcuts" in done.out
    assert "What to do" in done.out
    assert benign_seeds()["text"][0] not in done.out


def test_strict_fails_where_anything_is_flagged_after_writing(files: Path, crywolf: Callable, tmp_path: Path) -> None:
    given = (files / "attacks.jsonl", "--benign", files / "benign.jsonl", "--no-embeddings")
    done = crywolf("audit", *given, "--strict", "-o", tmp_path / "out")
    assert done.code == 1
    assert "findings" in done.err
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "review.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no data"),
        (("{attacks}", "{attacks}"), "given twice"),
        (("{attacks}", "--holdout", "{attacks}"), "both training data and a holdout"),
        (("{attacks}", "-o", "page.html"), "name a folder"),
        (("{missing}",), "missing.jsonl"),
        (("{benign}",), "label"),
        (("{attacks}", "--flag-auc", "0.4"), "--flag-auc"),
        (("{attacks}", "-o", "{attacks}"), "attacks.jsonl"),
    ],
)
def test_what_cannot_work_exits_with_2_and_says_why(
    arguments: tuple[str, ...], said: str, files: Path, crywolf: Callable
) -> None:
    names = {name: files / f"{name}.jsonl" for name in ("attacks", "benign", "missing")}
    done = crywolf("audit", *(argument.format(**names) for argument in arguments), "--no-embeddings")
    assert done.code == 2
    assert said in done.err


def test_an_earlier_audit_is_only_replaced_by_force(ran: tuple[Path, Any], files: Path, crywolf: Callable) -> None:
    given = (files / "attacks.jsonl", "--benign", files / "benign.jsonl", "--no-embeddings", "-o", ran[0])
    done = crywolf("audit", *given)
    assert done.code == 2
    assert "--force" in done.err
    assert crywolf("audit", *given, "--force").code == 0
    assert not (ran[0] / "review.jsonl").exists()
