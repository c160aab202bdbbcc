"""The whole audit: copies, conflicts, leaks, doubted labels and shortcuts of one table, and a page that is safe."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from crywolf.data import BadInput, make_corpus
from crywolf.train.audit import Audit, AuditConfig, audit
from crywolf.train.audit.report import render_audit

SCRIPT = "<script>alert('wolf')</script>"
ATTACKS = ["window", "garden", "number", "market", "bridge", "coffee"]
BENIGN = ["letter", "planet", "button", "ticket", "summer", "winter"]
WORDS = [*ATTACKS, *BENIGN]


def encode(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of word counts: texts with like words are near."""
    table = np.array([[text.count(word) for word in WORDS] for text in texts], dtype=np.float32) + 0.01
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True), dtype=np.float32)


def corpus(rows: int = 240) -> pl.DataFrame:
    """Rows whose label shows in what they speak of and in nothing else: like openings, lengths and words beside."""
    rng = np.random.default_rng(3)
    listed = []
    for at in range(rows):
        attack = at % 2 == 0
        beside = ["".join(word) for word in rng.choice(list("abdeginorstu"), (12, 6))]
        words = rng.permutation([*beside, *rng.choice(ATTACKS if attack else BENIGN, 8)])
        text = f"tell me {' '.join(words)} now"
        listed.append({"text": text, "label": "MALICIOUS" if attack else "BENIGN", "source": "one"})
    return make_corpus(listed)


def audited(frame: pl.DataFrame, **options: object) -> Audit:
    return audit(frame, rng=np.random.default_rng(0), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def planted() -> Audit:
    """A corpus with a copy, a text under both labels, three flipped labels, a leak and a hostile source."""
    clean = corpus()
    text = clean["text"].to_list()
    rows = clean.select("text", pl.col("label").cast(pl.String), "source").to_dicts()
    for at in (10, 12, 15):
        rows[at]["label"] = "BENIGN" if rows[at]["label"] == "MALICIOUS" else "MALICIOUS"
    rows += [{**rows[20]}, {**rows[40], "label": "BENIGN"}, {**rows[31], "text": text[31] + "!"}]
    rows += [{"text": f"{SCRIPT} {text[at][:40]}", "label": "BENIGN", "source": SCRIPT} for at in (1, 3)]
    held = make_corpus([{"text": text[7]}, {"text": text[9].upper()}, {"text": "nothing like it"}], label="BENIGN")
    # The same words in another order: no near-duplicate, but the same direction for this encoder.
    meant = make_corpus([{"text": " ".join(reversed(text[11].split()))}], label="BENIGN")
    holdouts = [("held", held), (f"meant {SCRIPT}", meant)]
    return audited(make_corpus(rows), holdouts=holdouts, encode=encode, config=AuditConfig(cosine=0.9999))


def test_copies_within_a_label_and_conflicts_between_labels_are_told_apart(planted: Audit) -> None:
    by_label = {row["label"]: row for row in planted.duplicates.by_label.to_dicts()}
    assert by_label["MALICIOUS"]["exact"] == 1
    assert by_label["BENIGN"]["near"] == by_label["BENIGN"]["exact"] + 1 == 1
    assert planted.duplicates.conflicting("same text") == 1
    assert planted.duplicates.conflicting("near-duplicate") == 0
    conflict = planted.duplicates.conflicts
    assert set(conflict["label"]) == {"BENIGN", "MALICIOUS"}
    assert conflict["id"].n_unique() == 1


def test_flipped_labels_are_accused(planted: Audit) -> None:
    assert planted.errors is not None
    ids = corpus()["id"]
    assert {ids[at] for at in (10, 12, 15)} <= set(planted.errors.frame["id"].head(4))


def test_leaks_are_found_by_characters_and_by_meaning(planted: Audit) -> None:
    found = {(row["holdout"], row["kind"]): row["rows"] for row in planted.leak_table().to_dicts()}
    ids = corpus()["id"]
    assert found[("held", "exact")] == 2
    assert set(planted.leaks.filter(pl.col("holdout") == "held")["id"]) >= {ids[7], ids[9]}
    assert ids[11] in planted.leaks.filter(pl.col("kind") == "semantic")["id"]


def test_every_kind_of_trouble_is_a_finding_with_advice(planted: Audit) -> None:
    checks = {finding.check.split(":")[0] for finding in planted.findings}
    assert {"duplicates between labels", "leakage", "label errors"} <= checks
    assert all(finding.advice for finding in planted.findings)


def test_a_clean_corpus_has_no_findings() -> None:
    result = audited(corpus(), encode=encode)
    assert result.findings == ()
    assert "Nothing passes a line" in render_audit(result, title="clean")


def test_the_order_of_the_rows_changes_nothing(planted: Audit) -> None:
    frame = corpus()
    mixed = frame.sample(fraction=1, shuffle=True, seed=5)
    assert audited(mixed, encode=encode).to_dict() == audited(frame, encode=encode).to_dict()


def test_a_sample_bounds_what_is_embedded_of_each_label() -> None:
    seen: list[str] = []

    def counting(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return encode(texts)

    result = audited(corpus(), encode=counting, sample=30)
    assert result.embedded == 60
    assert result.errors is not None
    assert result.errors.judged == 60
    assert len(seen) == len(set(seen)) == 60


def test_one_label_alone_is_still_checked_for_copies_and_leaks() -> None:
    frame = corpus().filter(pl.col("label").cast(pl.String) == "BENIGN")
    result = audited(frame, holdouts=[("itself", frame.head(5))], encode=encode)
    assert result.shortcuts == ()
    assert result.errors is None
    assert result.leaks.filter(pl.col("kind") == "exact")["id"].to_list() == sorted(frame["id"].head(5))
    assert [finding.what for finding in result.findings if finding.check == "balance"] == ["no row is MALICIOUS"]


def test_the_document_is_json_without_any_prompt(planted: Audit) -> None:
    written = json.dumps(planted.to_dict(), allow_nan=False)
    assert not any(text in written for text in corpus()["text"])


def test_the_page_escapes_what_is_hostile_and_shows_prompts_only_when_asked(planted: Audit) -> None:
    page = render_audit(planted, title=f"audit {SCRIPT}", parameters=[("encoder", SCRIPT)])
    shown = render_audit(planted, title="audit", show_text=True)
    assert "<script" not in page + shown
    assert "&lt;script&gt;" in page
    assert planted.errors is not None
    worst = planted.errors.frame["text"][0]
    assert worst in shown
    assert worst not in page
    for outside in ("http://", "https://", "<link", "@import"):
        assert outside not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == page.count("</svg>") >= 1
    assert "--ink" in page


@pytest.mark.parametrize(
    "lines",
    [
        {"flag_auc": 0.5},
        {"flag_share": 0.0},
        {"lift": 1.0},
        {"neighbours": 0},
        {"threshold": 1.5},
        {"label_ratio": 0.5},
    ],
)
def test_a_line_that_makes_no_sense_is_refused(lines: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(lines))):
        AuditConfig(**lines)  # type: ignore[arg-type]


def test_no_rows_and_no_sample_are_refused() -> None:
    with pytest.raises(BadInput, match="no rows"):
        audited(corpus().head(0))
    with pytest.raises(BadInput, match="sample"):
        audited(corpus(), encode=encode, sample=0)
