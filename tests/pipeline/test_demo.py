"""The demo's own parts: how it divides the traffic and what it plays as production."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from crywolf.augment import near_duplicate_clusters
from crywolf.config import load_config
from crywolf.data import make_corpus, read_corpus
from crywolf.demo import PARTS, part_traffic, write_inputs, write_log
from crywolf.train import BENIGN_TEST, evaluate, suite_of


def test_parts_of_the_traffic_are_whole_clusters_and_lose_nothing() -> None:
    words = np.random.default_rng(3).integers(0, 900, size=(60, 8))
    texts = [" ".join(f"word{n}" for n in row) for row in words]
    siblings = [f"{text}!" for text in texts[:20]]
    traffic = make_corpus([{"text": text} for text in texts + siblings], label="BENIGN")
    parts = part_traffic(traffic, np.random.default_rng(0))
    joined = pl.concat(list(parts.values()))
    assert sorted(joined["id"]) == sorted(traffic["id"])
    assert list(parts) == list(PARTS)
    clusters = near_duplicate_clusters(joined["text"].to_list())
    part_of = np.repeat(np.arange(len(parts)), [len(frame) for frame in parts.values()])
    assert all(len(set(part_of[clusters == name])) == 1 for name in np.unique(clusters))


def test_inputs_are_a_user_s_files_and_a_valid_configuration(tmp_path: Path) -> None:
    parts = write_inputs(tmp_path, seed=0)
    config = load_config(tmp_path / "crywolf.yaml")
    assert all(path.is_file() for path in (*config.data.benign, *config.data.malicious))
    assert config.evaluate.benign_test is not None
    held_out = read_corpus(config.evaluate.benign_test).frame
    assert set(held_out["id"]) == set(parts[BENIGN_TEST]["id"])
    assert not set(held_out["id"]) & set(parts["this_quarter"]["id"])


def test_the_log_reports_what_was_flagged_and_two_known_attacks(tmp_path: Path) -> None:
    traffic = make_corpus([{"text": f"prompt number {i} of the traffic"} for i in range(6)], label="BENIGN")
    scores = {text: 0.9 if i < 2 else 0.1 for i, text in enumerate(traffic["text"])}
    measured = evaluate(
        lambda texts: np.array([scores[text] for text in texts]), threshold=0.5, suites=[suite_of("log", traffic)]
    )
    attacks = make_corpus([{"text": f"attack {i} on the prompt"} for i in range(3)], label="MALICIOUS")
    write_log(measured, attacks, tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    reported = [row["text"] for row in rows if row["user_reported_fp"]]
    assert len(rows) == 8
    assert sorted(reported[:2]) == sorted(text for text, score in scores.items() if score > 0.5)
    assert reported[2:] == [f"attack {i} on the prompt Thanks!" for i in range(2)]


def test_the_demo_empties_no_folder_that_is_not_its_own(tmp_path: Path, crywolf: Callable) -> None:
    (tmp_path / "crywolf.yaml").write_text("out: run")
    (tmp_path / "benign.jsonl").write_text("{}")
    ran = crywolf("demo", "--force", "-o", tmp_path)
    assert ran.code == 2
    assert "does not look like a demo's folder" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benign.jsonl", "crywolf.yaml"]
