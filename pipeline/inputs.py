"""What a run reads: all of it, and checked, before any work starts.

Takes a `Session`, gives `Inputs`: the originals, the false positives, and everything that detectors are measured on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from crywolf.augment import near_duplicate_clusters
from crywolf.data import BadInput, empty_corpus, file_hash
from crywolf.train import BENIGN_TEST, EDGE_CASES, MALICIOUS_HELD_OUT, PROGRAMMING, WHOLE

from .session import Session

Named = tuple[str, pl.DataFrame]
KEPT_FPS = "kept_fps"
TEST_BENIGN = "test_benign"
HELD_OUT_SOURCES = "held_out_sources"
OWN_SUITES = (BENIGN_TEST, MALICIOUS_HELD_OUT, PROGRAMMING, EDGE_CASES, TEST_BENIGN, HELD_OUT_SOURCES, KEPT_FPS)
_LABEL = pl.col("label").cast(pl.String)


@dataclass(frozen=True)
class Originals:
    """The original data as it was read.

    Attributes:
        frame: benign and malicious rows to split.
        pool: benign rows that `benign_limit` left out; hard negatives may come from them.
        hashes: SHA-256 of each input file, sorted.
    """

    frame: pl.DataFrame
    pool: pl.DataFrame
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads.

    Attributes:
        originals: the data to train on.
        fps: the configured false positives; None where the detector's own are to be harvested.
        tested: benign prompts that are only ever measured on.
        harvested: benign prompts that false positives may come from, no cluster of them in `tested`; empty where the
            false positives come from elsewhere.
        suites: the user's further suites by name.
        holdouts: the user's further holdouts by name.
        calibration: rows to calibrate and place thresholds on beside the validation fold; never trained on.
    """

    originals: Originals
    fps: pl.DataFrame | None
    tested: pl.DataFrame
    harvested: pl.DataFrame
    suites: tuple[Named, ...]
    holdouts: tuple[Named, ...]
    calibration: pl.DataFrame


def read_inputs(session: Session, *, fps: pl.DataFrame | None = None, fps_may_come_later: bool = False) -> Inputs:
    """Read and check all that the configuration names.

    Args:
        session: the run.
        fps: false positives to take instead of those of `data.fps`.
        fps_may_come_later: take a file `data.fps` that is not there for one that will be harvested from elsewhere.

    Raises:
        BadInput: a file cannot be used, two suites share a name, or the benign test set holds attacks.
        CorruptPackage: a teacher's files are not those that were saved.
    """
    from crywolf.train.learn.teachers import teacher_hashes

    teacher_hashes(session.config.train.teachers)  # hours before they are needed
    evaluated = session.config.evaluate
    originals = read_originals(session)
    if fps is None:
        later = fps_may_come_later and session.config.data.fps is not None and not session.config.data.fps.exists()
        fps = empty_corpus() if later else _configured_fps(session)
    benign = empty_corpus()
    if evaluated.benign_test is not None:
        benign = session.reader.corpus(evaluated.benign_test, label="BENIGN")
        if attacks := benign.filter(_LABEL != "BENIGN").height:
            raise BadInput(f"{evaluated.benign_test}: {attacks:,} rows of the benign test set are labelled MALICIOUS")
    suites = tuple((path.name.split(".")[0], session.reader.corpus(path)) for path in evaluated.suites)
    _check_names([name for name, _ in suites])
    holdouts = tuple(
        (f"holdout {path}", session.reader.corpus(path, label="BENIGN")) for path in session.config.data.holdouts
    )
    frames = [session.reader.corpus(path) for path in session.config.data.calibration]
    calibration = pl.concat([empty_corpus(), *frames]).unique("id", keep="first", maintain_order=True)
    return Inputs(originals, fps, *_part(session, benign, fps), suites, holdouts, calibration)


def _check_names(names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in OWN_SUITES or name.endswith(WHOLE) or name in names[:place]:
            raise BadInput(f"evaluate.suites: a suite called {name!r} is there already; rename the file")


def _part(session: Session, benign: pl.DataFrame, fps: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the benign test set in what is only measured on and what false positives may come from.

    A test set whose false positives are taken out to be grown has lost exactly the rows that are hard: its FP rate
    would look good whatever was trained. So the parts are drawn by chance, by near-duplicate cluster, before anything
    is scored. Where no false positive comes from the set, all of it is measured on.
    """
    if benign.is_empty() or (fps is not None and not fps["id"].is_in(benign["id"].implode()).any()):
        return benign, benign.head(0)
    clusters = near_duplicate_clusters(benign["text"].to_list())
    names = np.unique(clusters)
    chosen = session.rng("benign test").permutation(names)[: round(session.config.evaluate.test_share * len(names))]
    tested = pl.Series(np.isin(clusters, chosen))
    session.console.say(
        f"benign test set: {int(tested.sum()):,} rows are only measured on, {int((~tested).sum()):,} may give false "
        "positives (evaluate.test_share)"
    )
    return benign.filter(tested), benign.filter(~tested)


def read_originals(session: Session) -> Originals:
    """Read the configured benign and malicious files and draw the configured number of rows."""
    data = session.config.data
    rng = session.rng("originals")
    benign = _read_all(session, data.benign, "BENIGN")
    malicious = _read_all(session, data.malicious, "MALICIOUS")
    benign, pool = _draw(benign, data.benign_limit, data.holdout_sources, rng)
    malicious, _ = _draw(malicious, data.malicious_limit, data.holdout_sources, rng)
    hashes = tuple(sorted(file_hash(path) for path in (*data.benign, *data.malicious)))
    return Originals(pl.concat([benign, malicious]), pool, hashes)


def _read_all(session: Session, paths: Sequence[Path], label: str) -> pl.DataFrame:
    frames = [session.reader.corpus(path, label=label) for path in paths]
    # A file that has labels of its own may hold both classes; each list takes its class.
    frame = pl.concat(frames).filter(label == _LABEL)
    if frame.is_empty():
        raise BadInput(f"{', '.join(str(path) for path in paths)}: no {label} rows")
    return frame.unique("id", keep="first", maintain_order=True)


def _draw(
    frame: pl.DataFrame, limit: int | None, held: Sequence[str], rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Draw `limit` rows by chance; rows of sources that are held out whole all stay and do not count."""
    if limit is None:
        return frame, frame.head(0)
    aside = frame.filter(pl.col("source").is_in(list(held)))
    rest = frame.filter(~pl.col("source").is_in(list(held)))
    order = rng.permutation(len(rest))
    drawn = rest[np.sort(order[:limit])]
    return pl.concat([drawn, aside]), rest[np.sort(order[limit:])]


def _configured_fps(session: Session) -> pl.DataFrame | None:
    """Read the configured file of false positives; None where there is none."""
    data = session.config.data
    if data.fps is None:
        return None
    read = session.reader.fps(data.fps, prompts=data.prompts)
    session.console.result(
        "fps",
        {"read": len(read.frame), "cut_joined": read.cut_joined, "cut_left_out": read.cut_left_out},
        f"{data.fps}: {len(read.frame):,} false positives, {read.cut_joined:,} cut prompts made whole, "
        f"{read.cut_left_out:,} cut and left out",
    )
    return read.frame
