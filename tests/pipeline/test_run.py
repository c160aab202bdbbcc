"""One whole run of the loop on a few hundred embedded rows, from `train` to a feedback round, by commands alone.

The encoder that is trained is tiny; everything else is what a user gets: MiniLM for guards, mining and quarantine, real
splits, ONNX export, the store. The tests look at what the commands left, in the order in which they ran.
"""

import hashlib
import html
import json
import re
import shlex
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from crywolf.augment import nearest_reference
from crywolf.config import load_config
from crywolf.data import read_corpus, text_id
from crywolf.data.embedded import benign_prompts_path, edge_case_suite, programming_suite
from crywolf.export import Detector

FOLDS = ("train", "validation", "test", "held_out")
POISON = 2
LABEL = pl.col("label").cast(pl.String)


@dataclass(frozen=True)
class Run:
    """What each command of the run left, and where."""

    inputs: Any
    train: Any
    again: Any
    retrain: Any
    ingest: Any
    ingest_again: Any
    round: Any
    hashes: tuple[str, str]
    reported: tuple[str, ...]
    attacks: tuple[str, ...]

    @property
    def out(self) -> Path:
        return self.inputs / "run"

    def frame(self, name: str) -> pl.DataFrame:
        return read_corpus(self.out / name).frame

    def fold(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.out / "splits" / f"{name}.parquet")


def package_hash(package: Path) -> str:
    files = sorted(path for path in package.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.fixture(scope="module")
def run(inputs: Any, cache: Path, crywolf: Callable) -> Run:
    config = ("--config", inputs.config, "--cache", cache)
    train = crywolf("train", *config, "--json")
    assert train.code in (0, 1), train.err
    first = package_hash(inputs / "run" / "base" / "package")
    again = crywolf("train", *config)
    hashes = (first, package_hash(inputs / "run" / "base" / "package"))
    retrain = crywolf("retrain", *config, "--show-prompts", "--json")
    assert retrain.code in (0, 1), retrain.err
    # A production log of the next quarter: prompts that nobody has seen, and attacks reported as false positives.
    unseen = read_corpus(benign_prompts_path(), label="BENIGN").frame["text"].to_list()[1:60:10]
    test = read_corpus(inputs / "run" / "splits" / "train.parquet").frame
    attacks = test.filter(LABEL == "MALICIOUS")["text"].to_list()[:POISON]
    log = inputs / "log.jsonl"
    rows = [
        {"msg": text, "flagged_as_threat": True, "user_reported_fp": True, "timestamp": "2026-10-02T08:00:00Z"}
        for text in [*unseen, *attacks]
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = ("feedback", "ingest", log, "--store", inputs / "feedback.sqlite", "--map", "text=msg", "--json")
    ingest, ingest_again = crywolf(*taken), crywolf(*taken)
    round_ = crywolf("feedback", "round", *config, "--json")
    assert round_.code in (0, 1), round_.err
    return Run(inputs, train, again, retrain, ingest, ingest_again, round_, hashes, tuple(unseen), tuple(attacks))


def near(texts: pl.DataFrame, others: pl.DataFrame) -> list[str]:
    """The texts that are near-duplicates of some other text."""
    match = nearest_reference(texts["text"].to_list(), others["text"].to_list())
    return texts["text"].filter(pl.Series(match >= 0)).to_list()


# --- train -----------------------------------------------------------------------------------------------------------


def test_the_folds_are_disjoint_and_hold_the_originals_only(run: Run) -> None:
    frames = {name: run.fold(name) for name in FOLDS}
    ids = [id_ for frame in frames.values() for id_ in frame["id"]]
    assert len(ids) == len(set(ids)) == 350
    for name in ("train", "validation", "test"):
        assert set(frames[name]["label"].cast(pl.String)) == {"BENIGN", "MALICIOUS"}
        assert frames[name]["origin_id"].null_count() == len(frames[name])
    assert 0.75 < len(frames["train"]) / len(ids) < 0.85
    assert near(frames["train"], pl.concat([frames["validation"], frames["test"]])) == []


def test_train_measures_every_suite_and_gives_its_verdict_as_one_document(run: Run) -> None:
    document = run.train.document
    assert {row["suite"] for row in document["by_suite"]} >= {
        "benign_test", "malicious_held_out", "programming", "edge_cases", "test_benign", "golden",
    }  # fmt: skip
    assert {"passed", "summary"} <= set(document["verdict"])
    assert document["package"] == str(run.out / "base" / "package")
    saved = json.loads((run.out / "base" / "evaluation.json").read_text())
    assert {row["suite"]: row["n"] for row in saved["tables"]["suite"]} == {
        row["suite"]: row["n"] for row in document["by_suite"]
    }


def test_train_a_second_time_reuses_what_is_there(run: Run) -> None:
    assert run.again.code == run.train.code
    assert "base: done before, reused" in run.again.err
    assert "epoch" not in run.again.err
    assert run.hashes[0] == run.hashes[1]


def test_train_with_other_settings_is_refused_and_names_what_changed(run: Run, crywolf: Callable) -> None:
    ran = crywolf("train", "--config", run.inputs.config, "--epochs", 1)
    assert ran.code == 2
    assert re.search(r"base: made with another recipe; .*--force", ran.err)
    assert package_hash(run.out / "base" / "package") == run.hashes[0]


def test_another_seed_would_be_another_split_and_is_refused(run: Run, crywolf: Callable) -> None:
    ran = crywolf("train", "--config", run.inputs.config, "--seed", 5)
    assert ran.code == 2
    assert re.search(r"splits: made with another seed; ", ran.err)


def test_every_step_has_a_manifest_that_holds_no_prompt(run: Run) -> None:
    manifests = list(run.out.rglob("run.manifest.json"))
    assert {path.parent.name for path in manifests} >= {"splits", "base", "retrained", "detector"}
    prompts = run.fold("train")["text"].to_list()
    for path in manifests:
        content = path.read_text()
        assert json.loads(content)["versions"]["crywolf"]
        assert not any(prompt in content for prompt in prompts if len(prompt) > 30)


# --- retrain ---------------------------------------------------------------------------------------------------------


def of_prompts(grown: pl.DataFrame) -> pl.DataFrame:
    """Rows grown of prompts; others were grown of attacks, to draw the border by intent."""
    made = pl.col("how").str.split(":").list.first()
    return grown.filter(made.is_in(["rewrite", "swap", "template", "noise", "context", "document"]))


def test_what_is_grown_lives_in_the_new_training_table_only(run: Run) -> None:
    training = run.frame("retrained/training.parquet")
    grown = training.filter(pl.col("origin_id").is_not_null())
    assert len(grown) > 10
    fps = run.frame("retrained-grown/grown_fps.parquet")
    assert set(of_prompts(grown)["origin_id"]) <= set(fps["id"])
    for name in FOLDS[1:3]:
        assert not set(grown["origin_id"]) & set(run.fold(name)["id"])
    assert len(training) > len(run.fold("train"))
    assert set(run.fold("train")["id"]) <= set(training["id"])
    assert len(run.frame("base/training.parquet")) == len(run.fold("train"))
    for name in FOLDS[1:3]:
        assert not set(run.fold(name)["id"]) & set(training["id"])


def test_nothing_in_training_is_near_an_evaluation_row(run: Run) -> None:
    training = run.frame("retrained/training.parquet")
    new = training.filter(~pl.col("id").is_in(run.fold("train")["id"].to_list()))
    assert len(new) > 50
    golden = read_corpus(run.inputs / "golden.jsonl").frame
    for held in (run.fold("validation"), run.fold("test"), programming_suite(), edge_case_suite(), golden):
        assert near(new, held) == []


def test_a_share_of_the_false_positives_is_kept_out_of_growth_and_measured(run: Run) -> None:
    grown_from = run.frame("retrained-grown/grown_fps.parquet")
    kept = run.inputs.fps.filter(~pl.col("id").is_in(grown_from["id"].to_list()))
    assert 0 < len(kept) < len(grown_from)
    rows = {row["suite"]: row["n"] for row in run.retrain.document["by_suite"]}
    assert rows["kept_fps"] == len(kept)
    assert near(run.frame("retrained/training.parquet"), kept) == []


def test_the_harnesss_cut_prompts_are_made_whole(run: Run) -> None:
    assert run.retrain.document["fps"] == {"read": len(run.inputs.fps), "cut_joined": run.inputs.cut, "cut_left_out": 0}
    assert run.inputs.cut > 0


def test_the_comparison_holds_both_detectors_on_the_same_rows(run: Run) -> None:
    comparison = json.loads((run.out / "retrained" / "comparison.json").read_text())
    for row in run.retrain.document["by_suite"]:
        assert {"k_before", "k_after", "n"} <= set(row)
    assert comparison["gates"]["passed"] == run.retrain.document["verdict"]["passed"]
    assert {"before", "after"} <= set(comparison)
    assert "no regression" in {gate["name"] for gate in comparison["gates"]["gates"]}


def test_retrain_ends_with_1_as_long_as_a_must_gate_is_not_proved(run: Run) -> None:
    # 136 benign prompts cannot prove an FP rate under 1%, so this holds whatever the tiny detector learned.
    assert run.retrain.document["verdict"]["passed"] is False
    assert run.retrain.code == 1
    assert run.retrain.err.splitlines()[-1] == f"crywolf: {run.retrain.document['verdict']['summary']}"


def test_the_report_stands_alone_and_escapes_what_users_sent(run: Run) -> None:
    page = (run.out / "report.html").read_text(encoding="utf-8")
    assert run.retrain.document["report"] == str(run.out / "report.html")
    loads = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?\s*(?:https?:)?//[^"')\s]*""", page)
    assert loads == []
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_report_and_the_comparison_tell_what_changed_texts_do(run: Run) -> None:
    comparison = json.loads((run.out / "retrained" / "comparison.json").read_text())
    found = comparison["robustness"]
    attacks = run.fold("test").filter(LABEL == "MALICIOUS")
    assert found["before"]["recall"]["n"] == found["after"]["recall"]["n"] == len(attacks)
    changes = {one["name"] for one in found["after"]["perturbations"]}
    assert changes >= {"typos", "upper_case", "look_alikes", "zero_width", "base64"}
    assert {"plain", *changes} == {one["name"] for one in found["changes"]}
    page = (run.out / "report.html").read_text(encoding="utf-8")
    section = page.split('aria-labelledby="h-robustness">')[1].split("</section>")[0]
    assert "as they came" in section
    assert section.count("<table>") == 2


def test_the_report_names_what_went_in_and_how_to_make_it_again(run: Run, cache: Path) -> None:
    page = (run.out / "report.html").read_text(encoding="utf-8")
    for name in ("benign.jsonl.gz", "malicious.csv", "benign_test_results.json", "benign_test.parquet"):
        assert hashlib.sha256((run.inputs / name).read_bytes()).hexdigest() in page
    for name in ("base", "retrained"):
        assert hashlib.sha256((run.out / name / "package" / "manifest.json").read_bytes()).hexdigest() in page
    shown = html.unescape(page.split('<pre class="prompt mono whole">')[1].split("</pre>")[0])
    again = run.inputs / "again.yaml"  # its paths are as seen from the configuration's folder
    again.write_text(shown)
    assert load_config(again) == load_config(run.inputs.config)
    commands = html.unescape(page.split('aria-labelledby="h-parameters">')[1].split("<pre")[1].split("</pre>")[0])
    given = ["--config", str(run.inputs.config), "--cache", str(cache)]
    assert shlex.join(["crywolf", "train", *given]) in commands.splitlines()
    assert shlex.join(["crywolf", "retrain", *given, "--show-prompts", "--json"]) in commands.splitlines()
    for line in commands.splitlines():
        page = page.replace(html.escape(line), "")
    assert str(run.inputs.folder) not in page


def test_the_new_detector_loads_and_is_another_one(run: Run) -> None:
    before, after = (Detector.load(run.out / name / "package") for name in ("base", "retrained"))
    assert before.version != after.version
    assert 0 < after.threshold < 1


# --- feedback --------------------------------------------------------------------------------------------------------


def counts(ran: Any, key: str) -> dict[str, int]:
    return {row["what"]: row["rows"] for row in ran.document[key]}


def test_a_log_is_taken_in_once(run: Run) -> None:
    n = len(run.reported) + POISON
    first, second = counts(run.ingest, "ingest"), counts(run.ingest_again, "ingest")
    assert (first["read"], first["new"], first["known"]) == (n, n, 0)
    assert (second["read"], second["new"], second["known"]) == (n, 0, n)


def test_attacks_reported_as_false_positives_are_quarantined_and_train_nothing(run: Run, crywolf: Callable) -> None:
    review = crywolf("feedback", "review", "--store", run.inputs / "feedback.sqlite", "--json").document
    held = {row["id"]: row["why"] for row in review["quarantined"]}
    for attack in run.attacks:
        assert "known attack" in held[text_id(attack)]
    grown = run.frame("rounds/1/grown.parquet")
    assert not set(grown["origin_id"].drop_nulls()) & set(held)
    assert not set(grown["text"]) & set(run.attacks)
    benign = run.frame("rounds/1/detector/training.parquet").filter(LABEL == "BENIGN")
    assert not set(benign["text"]) & set(run.attacks)


def test_review_shows_prompts_only_when_asked(run: Run, crywolf: Callable) -> None:
    store = ("--store", run.inputs / "feedback.sqlite")
    quiet, loud = (
        crywolf("feedback", "review", *store),
        crywolf("feedback", "review", *store, "--show-prompts", "--json"),
    )
    assert not any(attack[:20] in quiet.out for attack in run.attacks)
    assert {row["text"] for row in loud.document["quarantined"]} >= set(run.attacks)


def test_a_round_appends_to_everything_before_and_lies_beside_the_old_package(run: Run) -> None:
    grown, training = run.frame("rounds/1/grown.parquet"), run.frame("rounds/1/training.parquet")
    before = run.frame("retrained/training.parquet")
    assert len(grown) > 0
    assert set(before["id"]) | set(grown["id"]) == set(training["id"])
    assert len(training) == len(before) + len(grown) == len(run.frame("rounds/1/detector/training.parquet"))
    assert set(of_prompts(grown)["origin_id"]) <= {text_id(text) for text in run.reported}
    for held in (run.fold("validation"), run.fold("test"), programming_suite(), edge_case_suite()):
        assert near(grown, held) == []
    assert run.round.document["package"] == str(run.out / "rounds" / "1" / "detector" / "package")
    assert Detector.load(run.round.document["package"]).version != Detector.load(run.out / "retrained/package").version


def test_a_round_has_both_verdicts_and_ends_with_1_when_the_new_one_does_not_pass(run: Run) -> None:
    verdict = json.loads((run.out / "rounds" / "1" / "verdict.json").read_text())
    assert verdict["package_before"] == str(run.out / "retrained" / "package")
    assert verdict["gates_before"]["summary"] == run.round.document["gates_before"]
    assert verdict["gates_after"]["summary"] == run.round.document["gates_after"]
    assert verdict["gates_after"]["passed"] is False
    assert run.round.code == 1
    assert run.round.err.endswith(f"crywolf: round 1: {verdict['gates_after']['summary']}\n")


def test_a_round_without_new_reports_says_so_and_ends_with_2(run: Run, crywolf: Callable, cache: Path) -> None:
    ran = crywolf("feedback", "round", "--config", run.inputs.config, "--cache", cache)
    assert ran.code == 2
    assert "no new false positives" in ran.err or "none of" in ran.err
    assert not (run.out / "rounds" / "2" / "detector").exists()
    with sqlite3.connect(run.inputs / "feedback.sqlite") as store:
        assert store.execute("SELECT count(*) FROM rounds").fetchone() == (1,)


# --- the detector in use ---------------------------------------------------------------------------------------------


def test_predict_answers_in_the_promised_shape(run: Run, crywolf: Callable) -> None:
    ran = crywolf("predict", run.out / "retrained/package", "--file", run.inputs / "malicious.csv", "--json")
    assert ran.code == 0
    answers = [json.loads(row) for row in ran.out.splitlines()]
    assert len(answers) == 150
    flagged = [answer for answer in answers if answer["is_threat"]]
    assert len(flagged) > 0
    for answer in answers:
        assert {"predictions", "processing_time_ms", "model_version", "score", "threshold"} <= set(answer)
        assert answer["processing_time_ms"] > 0
        assert answer["model_version"] == Detector.load(run.out / "retrained/package").version
        assert bool(answer["predictions"]) == answer["is_threat"] == (answer["score"] >= answer["threshold"])
    for answer in flagged:
        (prediction,) = answer["predictions"]
        assert set(prediction) == {"threat_type", "confidence", "explanation"}
        assert 0 <= prediction["confidence"] <= 1


def test_predict_passes_l1_results_through(run: Run, crywolf: Callable) -> None:
    package, l1 = run.out / "base/package", {"matches": [1, "two"]}
    ran = crywolf("predict", package, "hello there", "--l1", json.dumps(l1), "--json")
    assert ran.document["l1_results"] == l1
    bad = crywolf("predict", package, "hello there", "--l1", "{not json")
    assert (bad.code, bad.out) == (2, "")
    assert bad.err.startswith("crywolf: --l1: not JSON")


def test_predict_refuses_a_package_that_was_altered(run: Run, tmp_path: Path, crywolf: Callable) -> None:
    import shutil

    copy = shutil.copytree(run.out / "base/package", tmp_path / "copy")
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    ran = crywolf("predict", copy, "hello there")
    assert (ran.code, ran.out) == (2, "")
    assert "tokenizer.json" in ran.err


def test_export_makes_a_package_with_the_same_answers_as_trains_own(
    run: Run, tmp_path: Path, crywolf: Callable
) -> None:
    out = tmp_path / "detector"
    parity = run.out / "splits" / "test.parquet"
    ran = crywolf(
        "export", run.out / "retrained" / "model" / "model", "-o", out, "--parity", parity, "--version", "q4", "--json"
    )
    figures = {row["figure"]: row["value"] for row in ran.document["export"]}
    assert figures["n"] == len(run.fold("test"))
    assert ran.code == (0 if figures["passed"] else 1)
    texts = run.fold("test")["text"].to_list()
    ours, theirs = Detector.load(out), Detector.load(run.out / "retrained" / "package")
    assert ours.score(texts).tolist() == theirs.score(texts).tolist()
    assert ours.version == "q4"
    again = crywolf("export", run.out / "retrained" / "model" / "model", "-o", out)
    assert again.code == 2
    assert "already there" in again.err


def test_export_with_force_does_not_empty_somebodys_folder(run: Run, tmp_path: Path, crywolf: Callable) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ran = crywolf("export", run.out / "base" / "model" / "model", "-o", tmp_path, "--force")
    assert ran.code == 2
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def evaluate(run: Run, crywolf: Callable, *more: object) -> Any:
    suites = ("--suite", f"benign_test={run.inputs / 'benign_test.parquet'}", "--suite", run.inputs / "golden.jsonl")
    return crywolf("evaluate", run.out / "retrained/package", *suites, *more)


def test_evaluate_compares_with_a_baseline_and_writes_what_it_found(
    run: Run, tmp_path: Path, crywolf: Callable
) -> None:
    fps, saved = tmp_path / "benign_test_results.json", tmp_path / "evaluation.json"
    baseline = ("--baseline", run.out / "base/package", "--fps-out", fps, "--save", saved)
    attacks = ("--suite", f"malicious_held_out={run.inputs / 'malicious.csv'}")
    ran = evaluate(run, crywolf, *baseline, *attacks, "--json")
    document = ran.document
    assert ran.code == 1
    assert ran.err == f"crywolf: {document['verdict']['summary']}\n"
    by_suite = {row["suite"]: row for row in document["by_suite"]}
    assert (by_suite["benign_test"]["n"], by_suite["golden"]["n"]) == (136, 8)
    assert by_suite["malicious_held_out"]["k_after"] > 0
    result = json.loads(fps.read_text())
    assert result["false_positives"] == len(result["fp_details"]) == by_suite["benign_test"]["k_after"]
    assert result["total"] == 136
    assert json.loads(saved.read_text())["threshold"] == Detector.load(run.out / "retrained/package").threshold
    prompt = read_corpus(run.inputs / "benign_test.parquet").frame["text"][0]
    assert prompt not in saved.read_text()


def test_evaluate_without_gates_ends_with_0(run: Run, crywolf: Callable) -> None:
    ran = evaluate(run, crywolf, "--gates", "none", "--no-standard", "--json")
    assert ran.code == 0
    assert ran.document["verdict"]["passed"] is False


def test_rows_that_the_detector_was_trained_on_are_no_held_out_suite(run: Run, crywolf: Callable) -> None:
    tested = run.inputs / "benign_test.parquet"
    ran = evaluate(run, crywolf, "--trained-on", tested, "--gates", "none", "--no-standard", "--json")
    rows = {row["suite"]: row["n"] for row in ran.document["by_suite"]}
    assert "benign_test" not in rows
    assert rows["benign_test_whole"] == 136


def test_the_rate_is_given_for_the_rows_that_layer_2_saw_too(run: Run, tmp_path: Path, crywolf: Callable) -> None:
    ids = read_corpus(run.inputs / "benign_test.parquet").frame["id"].to_list()
    stopped = tmp_path / "stopped.txt"
    stopped.write_text("\n".join(ids[:36]) + "\n")
    ran = evaluate(run, crywolf, "--l1-stopped", stopped, "--gates", "none", "--no-standard", "--json")
    assert {row["suite"]: row["n"] for row in ran.document["l2_only"]}["benign_test"] == 100


def test_the_rows_that_layer_1_stopped_may_be_named_by_the_harness_s_ids(
    run: Run, tmp_path: Path, crywolf: Callable
) -> None:
    ids = read_corpus(run.inputs / "benign_test.parquet").frame["external_id"].to_list()
    stopped = tmp_path / "stopped.txt"
    stopped.write_text("\n".join(ids[:36]) + "\n")
    ran = evaluate(run, crywolf, "--l1-stopped", stopped, "--gates", "none", "--no-standard", "--json")
    assert {row["suite"]: row["n"] for row in ran.document["l2_only"]}["benign_test"] == 100
    stopped.write_text("nobody-has-this-id\n")
    ran = evaluate(run, crywolf, "--l1-stopped", stopped, "--gates", "none", "--no-standard")
    assert ran.code == 2
    assert "no suite has a row of these ids" in ran.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--l1-stopped", "missing.txt"), "missing.txt: cannot be read"),
        (("--l1-stopped", "."), ".: cannot be read: Is a directory"),
        (("--suite", "golden=other.jsonl"), "there is a suite 'golden' already"),
        (("--suite", "programming=other.jsonl"), "an embedded suite has that name"),
        (("--suite", "=x.jsonl"), "expected NAME=FILE or FILE"),
        (("--fps-out", "fps.jsonl.csv"), "written to .json"),
        (("--baseline", "nowhere"), "'nowhere': neither a package folder"),
    ],
)
def test_evaluate_refuses_before_it_measures(more: tuple[str, ...], said: str, run: Run, crywolf: Callable) -> None:
    ran = evaluate(run, crywolf, *more)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_fps_out_needs_the_benign_test_suite(run: Run, tmp_path: Path, crywolf: Callable) -> None:
    ran = crywolf("evaluate", run.out / "base/package", "--fps-out", tmp_path / "fps.json")
    assert ran.code == 2
    assert "--suite benign_test=FILE" in ran.err


# --- before there is a run -------------------------------------------------------------------------------------------


def test_retrain_and_round_without_a_detector_say_what_to_run_first(
    inputs: Any, tmp_path: Path, crywolf: Callable
) -> None:
    raw = yaml.safe_load(inputs.config.read_text())
    for key in ("benign", "malicious"):
        raw["data"][key] = [str(inputs / name) for name in raw["data"][key]]
    raw["data"] |= {"fps": str(inputs / "benign_test_results.json"), "prompts": str(inputs / "prompts.jsonl")}
    raw["evaluate"] = {}
    path = tmp_path / "crywolf.yaml"
    path.write_text(yaml.safe_dump(raw))
    retrain = crywolf("retrain", "--config", path)
    assert retrain.code == 2
    assert "run `crywolf train` first" in retrain.err
    round_ = crywolf("feedback", "round", "--config", path)
    assert round_.code == 2
    assert "feedback.sqlite: there is no feedback store" in round_.err
    assert not (tmp_path / "feedback.sqlite").exists()


def test_the_new_threshold_may_lose_two_points_of_the_old_recall_on_validation(run: Run) -> None:
    attacks = run.fold("validation").filter(LABEL == "MALICIOUS")["text"].to_list()
    old = Detector.load(run.out / "base" / "package")
    recall = (old.score(attacks) >= old.threshold).mean()
    recipes = {
        step: json.loads((run.out / step / "step.json").read_text())["key"]["recipe"] for step in ("base", "retrained")
    }
    assert recipes["base"]["min_recall"] is None
    assert recipes["retrained"]["min_recall"] == pytest.approx(max(recall - 0.02, 0.0))


def test_a_report_elsewhere_is_not_overwritten_without_force(run: Run, tmp_path: Path, crywolf: Callable) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    ran = crywolf("retrain", "--config", run.inputs.config, "--report", mine)
    assert (ran.code, mine.read_text()) == (2, "mine")
    assert "mine.html: exists already" in ran.err
