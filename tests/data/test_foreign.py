import csv
import gzip
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crywolf.data import CATEGORIES, THREAT_TYPES, make_corpus, read_corpus, read_fps, text_id, write_corpus
from crywolf.data.foreign import AUGMENTED_COLUMNS, MASTER_COLUMNS

SHARED = Path(os.environ.get("CRYWOLF_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "handoff"
handed = pytest.mark.skipif(not SHARED.is_dir(), reason="the handoff files are not here")
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(CHARS, min_size=1, max_size=120).filter(lambda text: bool(text.strip()))
WORD = st.text("abcxyz_-", min_size=1, max_size=8)
UNIT = st.floats(0, 1)
JSON = st.one_of(WORD, st.integers(-9, 9), UNIT, st.booleans(), st.lists(st.integers(0, 3), max_size=2))
MORE = st.dictionaries(st.sampled_from(["note", "shard", "verdict"]), JSON, max_size=2)
THREAT = st.builds(
    lambda known, more: {**known, **more},
    st.fixed_dictionaries(
        {
            "rule_id": st.one_of(st.sampled_from(THREAT_TYPES), WORD),
            "severity": WORD,
            "confidence": UNIT,
            "layer": st.sampled_from(["L1", "L2"]),
        }
    ),
    MORE,
)
DETAIL = st.builds(
    lambda known, more: {**known, **more},
    st.fixed_dictionaries(
        {
            "id": st.one_of(WORD, st.integers(1, 99)),
            "prompt": st.one_of(TEXT, TEXT.map(lambda text: (text * 100)[:100] + "...")),
            "category": st.sampled_from([*CATEGORIES, "odd one"]),
            "threats": st.lists(THREAT, max_size=3),
        }
    ),
    MORE,
)


@QUICK
@given(details=st.lists(DETAIL, max_size=6), more=MORE, extra_total=st.integers(0, 50))
def test_a_harness_result_is_written_back_as_it_was(
    tmp_path: Path, details: list[dict[str, object]], more: dict[str, object], extra_total: int
) -> None:
    fps: dict[str, int] = {}
    for detail in details:
        fps[str(detail["category"])] = fps.get(str(detail["category"]), 0) + 1
    total = len(details) + extra_total
    document = {
        "total": total,
        "false_positives": len(details),
        "true_negatives": extra_total,
        "fp_details": details,
        "categories": {name: {"total": n + 3, "fp": n} for name, n in fps.items()} | {"quiet": {"total": 9, "fp": 0}},
        **more,
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    corpus = read_corpus(path)
    assert corpus.format == "harness"
    back = write_corpus(corpus.frame, tmp_path / "back.json", summary=corpus.summary, force=True)
    assert json.loads(back.read_text()) == document


def test_a_harness_result_of_other_rows_counts_them(tmp_path: Path) -> None:
    rows = [
        {"text": "a" * 200, "label": 0, "category": "education", "threat_type": "unknown"},
        {"text": "b", "label": 0},
    ]
    summary = {"total": 100, "categories": {"education": {"total": 40, "fp": 7}, "creative": {"total": 60, "fp": 1}}}
    path = write_corpus(make_corpus(rows), tmp_path / "r.json", summary=summary)
    said = json.loads(path.read_text())
    assert (said["total"], said["false_positives"], said["true_negatives"]) == (100, 2, 98)
    assert said["categories"]["education"] == {"total": 40, "fp": 1}
    assert said["categories"]["creative"] == {"total": 60, "fp": 0}
    assert said["fp_details"][0]["prompt"] == "a" * 200, "prompts are written whole"
    assert said["fp_details"][0]["id"] == text_id("a" * 200)
    assert said["fp_details"][0]["threats"][0]["rule_id"] == "unknown"
    assert read_fps(path).frame["text"].to_list() == ["a" * 200, "b"]


AUGMENTED = st.builds(
    lambda known, more: {**known, **more},
    st.fixed_dictionaries(
        {
            "prompt": TEXT,
            "label": st.sampled_from(["BENIGN", "MALICIOUS"]),
            "category": st.one_of(st.none(), WORD),
            "subcategory": st.one_of(st.none(), WORD),
            "original_fp": st.one_of(st.none(), TEXT),
            "why_hard": st.one_of(st.none(), TEXT),
        }
    ),
    MORE,
)


@QUICK
@given(rows=st.lists(AUGMENTED, min_size=1, max_size=6))
def test_augmented_data_is_written_back_as_it_was(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "augmented_training_data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = read_corpus(path)
    assert corpus.format == "augmented"
    assert corpus.frame["source"].unique().to_list() == ["augmented"]
    assert corpus.frame["origin_id"].to_list() == [
        text_id(str(row["original_fp"])) if row["original_fp"] else None for row in rows
    ]
    back = write_corpus(corpus.frame, tmp_path / "back.jsonl", format="augmented", force=True)
    written = [json.loads(line) for line in back.read_text().split("\n") if line]
    assert [_without_origin(row) for row in written] == rows
    assert read_corpus(back).frame.equals(corpus.frame)


def _without_origin(row: dict[str, object]) -> dict[str, object]:
    """The row without what we add to say where it comes from and what the category of an attack means."""
    return {name: value for name, value in row.items() if name not in ("origin_id", "threat_type")}


def test_grown_rows_written_as_augmented_say_all_they_know(tmp_path: Path) -> None:
    row = {
        "text": "a",
        "label": 0,
        "category": "hard_negative",
        "origin_id": text_id("x"),
        "how": "swap:1",
        "weight": 2,
    }
    path = write_corpus(make_corpus([row], source="augmented"), tmp_path / "a.jsonl.gz", format="augmented")
    said = json.loads(gzip.decompress(path.read_bytes()))
    assert tuple(said)[: len(AUGMENTED_COLUMNS)] == AUGMENTED_COLUMNS
    assert said["original_fp"] == text_id("x")
    assert (said["how"], said["weight"]) == ("swap:1", 2.0)


@QUICK
@given(
    rows=st.lists(
        st.tuples(
            TEXT.filter(lambda text: "\r" not in text),
            st.sampled_from([("0", "BENIGN"), ("1", "SEMANTIC_JAILBREAK"), ("1", "custom"), ("0", "")]),
            st.one_of(st.sampled_from([*CATEGORIES, *THREAT_TYPES, "SEMANTIC_JAILBREAK", "odd"])),
            st.sampled_from(["info", "high"]),
            UNIT,
            WORD,
            st.one_of(st.just(""), TEXT.filter(lambda text: "\r" not in text)),
            st.one_of(st.just(""), WORD),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_master_csv_is_written_back_as_it_was(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    table = [[text, label, family, *rest] for text, (label, family), *rest in rows]  # type: ignore[misc]  # as built
    out = io.StringIO(newline="")
    csv.writer(out).writerows([[*MASTER_COLUMNS, "annotator"], *table])
    path = tmp_path / "master.csv"
    path.write_bytes(out.getvalue().encode())
    corpus = read_corpus(path)
    assert corpus.format == "master"
    back = write_corpus(corpus.frame, tmp_path / "back.csv", format="master", force=True)
    assert read_corpus(back).frame.equals(corpus.frame)
    found = list(csv.DictReader(io.StringIO(back.read_bytes().decode(), newline="")))
    for given_row, row in zip(table, found, strict=True):
        said = dict(zip([*MASTER_COLUMNS, "annotator"], given_row, strict=True))
        assert float(row.pop("confidence")) == said.pop("confidence")
        # A benign row never has a threat type; what is said of an attack beyond its category is added.
        assert {name: row.get(name, "") for name in said} == said


def test_the_category_of_a_malicious_master_row_is_its_threat_type(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    head = ",".join(MASTER_COLUMNS)
    body = ["a,1,X,Data_Exfil_Pattern,high,1,s,", "b,1,OBFUSCATED_COMMAND,rare,high,1,s,", "c,1,X,rare,high,1,s,",
            "d,0,BENIGN,unknown,info,1,s,", "e,1,,semantic_jailbreak,high,,s,why"]  # fmt: skip
    path.write_text("\n".join([head, *body]))
    frame = read_corpus(path).frame
    types = ["data_exfil_pattern", "obfuscated_command", "unknown", None, "semantic_jailbreak"]
    assert frame["threat_type"].to_list() == types
    assert frame["category"].to_list() == ["Data_Exfil_Pattern", "rare", "rare", "unknown", None]


def test_fresh_rows_written_as_master_have_its_columns(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 1, "threat_type": "semantic_jailbreak"},
        {"text": "b", "label": 0, "category": "creative"},
    ]
    path = write_corpus(make_corpus(rows, source="s"), tmp_path / "m.csv", format="master")
    assert path.read_bytes().decode().split("\r\n") == [
        ",".join(MASTER_COLUMNS),
        "a,1,SEMANTIC_JAILBREAK,semantic_jailbreak,high,1.0,s,",
        "b,0,BENIGN,creative,info,1.0,s,",
        "",
    ]


@handed
def test_the_handed_false_positives_are_all_found_whole() -> None:
    found = read_fps(SHARED / "benign_test_results.json", prompts=SHARED / "benign_prompts.jsonl.gz")
    assert (found.frame.height, found.cut_joined, found.cut_left_out) == (4626, 1441, 0)
    alone = read_fps(SHARED / "benign_test_results.json")
    assert (alone.frame.height, alone.cut_joined, alone.cut_left_out) == (3185, 0, 1441)


@handed
def test_the_handed_harness_result_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    corpus = read_corpus(SHARED / "benign_test_results.json")
    back = write_corpus(corpus.frame, tmp_path / "back.json", summary=corpus.summary)
    assert back.read_bytes() == (SHARED / "benign_test_results.json").read_bytes()


@handed
def test_the_handed_master_csv_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    corpus = read_corpus(SHARED / "sample_training_master.csv.gz")
    assert (corpus.frame.height, corpus.rejected.height, corpus.format) == (11_887, 0, "master")
    back = write_corpus(corpus.frame, tmp_path / "back.csv", format="master")
    assert back.read_bytes() == gzip.decompress((SHARED / "sample_training_master.csv.gz").read_bytes())
