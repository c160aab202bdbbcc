"""A round: the new false positives are checked, grown, added to everything before, retrained on, and judged.

Takes the store, the data that came before and three callables that the face wires up (grow, retrain, judge); leaves a
numbered folder with the grown rows, the whole training table, the new package and both verdicts beside the old ones.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crywolf.augment import Growth, deduplicate, nearest_cosine, nearest_reference
from crywolf.augment.dedup import NearIndex
from crywolf.data import CrywolfError, Encode, atomic_path, write_corpus

from .known import known_path, nearest_of, open_known
from .store import Store

Grow = Callable[[pl.DataFrame], Growth]
Retrain = Callable[[pl.DataFrame, Path], Path]
Judge = Callable[[Path], dict[str, Any]]

ATTACK_COSINE = 0.80
"""A report this near to a known attack waits for a person: whoever can report, can poison."""


class NothingNewError(CrywolfError):
    """There are no new false positives to run a round on."""


@dataclass(frozen=True)
class Before:
    """What a round builds on.

    Attributes:
        training: every row that the current detector was trained on, grown rows of earlier rounds included.
        attacks: known attacks, for the quarantine.
        holdouts: (name, frame) of everything that must stay out of training: validation, test, suites.
    """

    training: pl.DataFrame
    attacks: pl.DataFrame
    holdouts: tuple[tuple[str, pl.DataFrame], ...]


@dataclass(frozen=True)
class RoundResult:
    """What a round did.

    Attributes:
        number: of the round, from 1.
        folder: where everything of it is.
        counts: reports taken; of these quarantined, near-duplicates of another report, grown now or before (repeats),
            near evaluation rows (reserved, left in the queue); rows grown; of reports and grown rows, dropped as
            duplicates, and appended.
        package: the new package.
        verdict: what `judge` said: gates and the comparison with the package before.
    """

    number: int
    folder: Path
    counts: dict[str, int]
    package: Path
    verdict: dict[str, Any]


def quarantine(reports: pl.DataFrame, attacks: pl.DataFrame, encode: Encode) -> pl.DataFrame:
    """Return the reports that look like known attacks, with a column `note` that says why.

    Near-duplicates of an attack (Jaccard) and reports with a cosine of `ATTACK_COSINE` or more to one are held.
    """
    texts, known = reports["text"].to_list(), attacks["text"].to_list()
    if not texts or not known:
        return reports.head(0).with_columns(note=pl.lit(None, pl.String))
    twin = nearest_reference(texts, known) >= 0
    cosine = nearest_cosine(encode(texts), encode(known))
    note = np.where(
        twin, "near-duplicate of a known attack", [f"cosine {value:.2f} to a known attack" for value in cosine]
    )
    held = twin | (cosine >= ATTACK_COSINE)
    return reports.with_columns(note=pl.Series(note, dtype=pl.String)).filter(pl.Series(held))


def run_round(
    store: Store,
    folder: Path,
    before: Before,
    *,
    encode: Encode,
    grow: Grow,
    retrain: Retrain,
    judge: Judge,
    say: Callable[[str], None] = lambda line: None,
) -> RoundResult:
    """Run the next round of feedback.

    A round that was cut off starts again from the same reports and reuses what `retrain` had saved, because reports
    leave the queue only when the round is recorded.

    Args:
        store: where the reports are.
        folder: the rounds' folder; this round makes `folder/<number>`.
        before: see `Before`.
        encode: list of str -> (n, d) unit vectors.
        grow: reports -> grown rows.
        retrain: (training frame, round folder) -> new package.
        judge: new package -> verdict, with the package before measured on the same rows.
        say: told one line a step.

    Raises:
        NothingNewError: no report is new or accepted, all of them are held back, or they grow nothing new.
    """
    fresh, accepted = store.frame(("new",)), store.frame(("accepted",))
    if not len(fresh) + len(accepted):
        raise NothingNewError("no new false positives in the store; add some with `crywolf feedback ingest LOG`")
    known = open_known(store)
    held = _with_rejected(quarantine(fresh, before.attacks, encode), fresh, known, store)
    for id_, note in held.select("id", "note").rows():
        store.set_status([id_], "quarantined", note=note)
    fps = pl.concat([accepted, fresh.filter(~pl.col("id").is_in(held["id"].to_list()))])
    parted = deduplicate(fps, against=before.holdouts)
    kept = parted.kept
    # What repeats a report that is grown is done with too; it would only come up again in every later round.
    repeats = parted.dropped.filter(pl.col("reason") == "duplicate_within")["id"].to_list()
    again = nearest_of(known, kept, _of_status(store, "grown"))["id"].to_list()
    kept = kept.filter(~pl.col("id").is_in(again))
    repeats += again
    counts = {
        "reports": len(fresh) + len(accepted),
        "quarantined": len(held),
        "repeats": len(repeats),
        "reserved": len(fps) - len(kept) - len(repeats),
    }
    if not len(kept):
        store.set_status(repeats, "grown", note="nearly repeats a report that was grown before")
        raise NothingNewError(
            f"none of {counts['reports']} reports can be grown: {counts['quarantined']} quarantined, "
            f"{counts['reserved']} near-duplicates of evaluation rows, {counts['repeats']} of reports grown before; "
            "see `crywolf feedback review`"
        )
    number = len(store.rounds()) + 1
    here = folder / str(number)
    say(f"round {number}: {len(kept)} new false positives, {len(held)} quarantined")
    grown = grow(kept)
    # The reports stand first: what was grown varies them, it does not stand in for them.
    rows = pl.concat([kept, grown.frame])
    # Only rows that no round has seen are signed and added; the rest of the training table is in the index.
    if known.add(before.training):
        known.save(known_path(store))
    trained = _trained_on(known, rows, before.training)
    clean = deduplicate(rows.filter(~pl.col("id").is_in(trained)), against=before.holdouts).kept
    if not len(clean):
        raise NothingNewError(
            f"training holds the {len(kept)} new false positives and all that grew from them already: a round would "
            "change nothing; raise feedback.per_fp, or wait for more reports"
        )
    training = pl.concat([before.training, clean])
    write_corpus(clean, here / "grown.parquet", force=True)
    write_corpus(training, here / "training.parquet", force=True)
    counts |= {"grown": len(grown.frame), "duplicates": len(rows) - len(clean), "appended": len(clean)}
    say(f"round {number}: {len(clean)} rows appended to {len(before.training)}, retraining")
    package = retrain(training, here)
    verdict = judge(package)
    with atomic_path(here / "verdict.json", force=True) as target:
        target.write_text(json.dumps({"counts": counts, **verdict}, indent=2, default=str), encoding="utf-8")
    store.record_round(number, str(here), verdict, [*kept["id"], *repeats])
    known.add(clean)
    known.save(known_path(store))
    return RoundResult(number, here, counts, package, verdict)


def _with_rejected(held: pl.DataFrame, fresh: pl.DataFrame, known: NearIndex, store: Store) -> pl.DataFrame:
    """Add the reports that nearly repeat one which a person has rejected: an attack comes back with a word changed."""
    found = nearest_of(known, fresh.filter(~pl.col("id").is_in(held["id"].to_list())), _of_status(store, "rejected"))
    if found.is_empty():
        return held
    notes = found.select("id", note=pl.format("near-duplicate of the rejected report {}", "match_id"))
    return pl.concat([held, fresh.join(notes, on="id", how="inner", maintain_order="left")])


def _of_status(store: Store, wanted: str) -> set[str]:
    return {id_ for id_, status in store.statuses().items() if status == wanted}


def _trained_on(known: NearIndex, rows: pl.DataFrame, training: pl.DataFrame) -> list[str]:
    """Return the ids of the rows that are, or nearly repeat, a row of the training table."""
    return nearest_of(known, rows, set(training["id"].to_list()))["id"].to_list()
