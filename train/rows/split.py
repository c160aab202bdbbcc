"""Train, validation and test from the originals, before anything is grown.

Takes contract rows and gives three (or four) frames that share no near-duplicate: whole clusters are dealt out, so that
no test row has a sibling in training. The split is saved to files, and every later stage reads it from there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import LABELS, BadInput, CorruptPackage, empty_corpus

FOLDS = ("train", "validation", "test", "held_out")
SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class Split:
    """The folds, and how they were made.

    Attributes:
        train: What to grow from and train on.
        validation: For early stopping, calibration and the threshold.
        test: For the report only.
        held_out: Rows of whole sources that were held out, and their near-duplicates from elsewhere; often empty.
        info: Fractions, threshold, number of clusters, as saved in split.json.
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    held_out: pl.DataFrame = field(default_factory=empty_corpus)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> dict[str, pl.DataFrame]:
        """The folds by name."""
        return {name: getattr(self, name) for name in FOLDS}

    @property
    def table(self) -> pl.DataFrame:
        """Rows by fold and label, with the share of the label's rows that the fold has."""
        tagged = pl.concat(
            [
                frame.select(pl.lit(name).alias("fold"), pl.col("label").cast(pl.String))
                for name, frame in self.frames.items()
            ]
        )
        counts = tagged.group_by("fold", "label").len("rows")
        order = {name: index for index, name in enumerate(FOLDS)}
        return counts.with_columns((pl.col("rows") / pl.col("rows").sum().over("label")).alias("share")).sort(
            pl.col("fold").replace_strict(order, return_dtype=pl.Int64), "label"
        )

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the folds as Parquet and split.json (counts and hashes) into a folder.

        Raises:
            BadInput: If the folder holds a split already and `force` is not set: what has been trained on one split
                must not be tested on another.
        """
        from crywolf.data import atomic_path

        path = Path(folder)
        if (path / SPLIT_FILE).exists() and not force:
            raise BadInput(f"{path}: holds a split already; load it, choose another folder, or use force")
        path.mkdir(parents=True, exist_ok=True)
        # Without split.json a folder is no split, so a crash between two folds leaves nothing that would load.
        (path / SPLIT_FILE).unlink(missing_ok=True)
        files = {}
        for name, frame in self.frames.items():
            target = path / f"{name}.parquet"
            with atomic_path(target, force=True) as temporary:
                frame.write_parquet(temporary)
            files[name] = {"rows": frame.height, "sha256": _sha256(target)}
        content = {"format": 1, **self.info, "files": files, "table": self.table.to_dicts()}
        with atomic_path(path / SPLIT_FILE, force=True) as temporary:
            Path(temporary).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> "Split":
        """Read a saved split.

        Raises:
            BadInput: If the folder holds none.
            CorruptPackage: If a fold is missing or not the one that was saved.
        """
        from crywolf.data import check_corpus

        path = Path(folder)
        if not (path / SPLIT_FILE).is_file():
            raise BadInput(f"{path}: holds no split ({SPLIT_FILE} is missing)")
        try:
            content = json.loads((path / SPLIT_FILE).read_text(encoding="utf-8"))
            recorded = {name: content["files"][name]["sha256"] for name in FOLDS}
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptPackage(
                f"{path / SPLIT_FILE}: not readable ({error!r}); split again into a new folder"
            ) from error
        frames = {}
        for name, expected in recorded.items():
            file = path / f"{name}.parquet"
            if not file.is_file() or _sha256(file) != expected:
                raise CorruptPackage(f"{file}: missing or not the fold that was saved; split again into a new folder")
            frames[name] = check_corpus(pl.read_parquet(file))
        info = {key: value for key, value in content.items() if key not in ("format", "files", "table")}
        return cls(**frames, info=info)


def split_originals(
    frame: pl.DataFrame,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    threshold: float = 0.8,
    holdout_sources: Sequence[str] = (),
    rng: np.random.Generator,
) -> Split:
    """Deal near-duplicate clusters into train, validation and test, stratified by label and category.

    Rows of one origin count as one cluster too. Rows that were grown (an origin, or source `augmented`: an older
    training set may hold some) drag their cluster into training, the only place where grown rows may live. The result
    depends on the rows and the generator, not on the order of the rows.

    Args:
        frame: Contract rows, benign and malicious.
        fractions: Shares of train, validation and test; they sum to 1.
        threshold: Jaccard similarity from which two texts are near-duplicates.
        holdout_sources: Sources to hold out whole. A near-duplicate of a held-out row from another source goes with it.
        rng: Decides which cluster goes where.

    Raises:
        BadInput: If there are no rows, the fractions do not sum to 1, or a source to hold out is not there.
    """
    from crywolf.augment.dedup import near_duplicate_clusters

    _check_arguments(frame, fractions, holdout_sources)
    rows = frame.sort("id", "label", "source", maintain_order=True)
    clusters = _join_groups(near_duplicate_clusters(rows["text"].to_list(), threshold=threshold), rows["origin_id"])
    held = np.isin(clusters, clusters[_mask(rows, pl.col("source").is_in(list(holdout_sources)))])
    grown = pl.col("origin_id").is_not_null() | (pl.col("source") == "augmented").fill_null(value=False)
    forced = np.isin(clusters, clusters[_mask(rows, grown)])
    folds = np.full(rows.height, 3, dtype=np.int64)
    folds[~held] = _deal(rows.filter(~held), clusters[~held], forced[~held], fractions, rng)
    info = {
        "fractions": list(fractions),
        "threshold": threshold,
        "clusters": len(np.unique(clusters)),
        "largest_cluster": int(np.unique(clusters, return_counts=True)[1].max()),
        "holdout_sources": list(holdout_sources),
    }
    train, validation, test, held_out = (rows.filter(folds == index) for index in range(len(FOLDS)))
    return Split(train, validation, test, held_out, info)


def _check_arguments(frame: pl.DataFrame, fractions: tuple[float, float, float], holdouts: Sequence[str]) -> None:
    if not frame.height:
        raise BadInput("split: there are no rows")
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise BadInput(f"split: fractions {fractions} must be three shares (train above 0) that sum to 1")
    sources = frame["source"].unique().drop_nulls().to_list()
    for name in holdouts:
        if name not in sources:
            raise BadInput(f"split: no rows of source {name!r} to hold out; there are {', '.join(sorted(sources))}")


def _mask(rows: pl.DataFrame, condition: pl.Expr) -> NDArray[np.bool_]:
    mask = rows.select(condition.fill_null(value=False).alias("mask"))["mask"]
    return np.asarray(mask.to_numpy(), dtype=np.bool_)


def _join_groups(clusters: NDArray[np.int64], origin: pl.Series) -> NDArray[np.int64]:
    """Clusters joined where they share an origin."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if origin.null_count() == len(origin):
        return np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    _, cluster = np.unique(clusters, return_inverse=True)
    known = origin.is_not_null().to_numpy()
    _, group = np.unique(origin.drop_nulls().to_numpy(), return_inverse=True)
    n_clusters = int(cluster.max()) + 1
    size = n_clusters + int(group.max()) + 1
    edges = coo_matrix((np.ones(len(group)), (cluster[known], n_clusters + group)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return np.asarray(component[cluster], dtype=np.int64)


def _deal(
    rows: pl.DataFrame,
    clusters: NDArray[np.int64],
    forced: NDArray[np.bool_],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Fold (0, 1, 2) of each row.

    Stratum by stratum each cluster goes to the fold that is furthest behind its share. What a fold is behind or ahead
    carries over to the next stratum of the label: a hundred strata of three rows still make 80/10/10.
    """
    if not rows.height:
        return np.zeros(0, dtype=np.int64)
    table = (
        rows.select(pl.col("label").cast(pl.String), pl.col("category").fill_null(""))
        .with_columns(cluster=pl.Series(clusters), forced=pl.Series(forced))
        .group_by("cluster", maintain_order=True)
        # A cluster's stratum is that of its first row; rows are sorted by id, so this does not depend on their order.
        .agg(
            pl.len().cast(pl.Int64).alias("size"),
            pl.col("label").first(),
            pl.col("category").first(),
            pl.col("forced").any(),
        )
        .with_columns(luck=pl.Series(rng.random(len(np.unique(clusters)))))
        # Largest first: the single rows that come last even out what the large ones skewed.
        .sort(pl.col("forced").not_(), "label", "category", pl.col("size").neg(), "luck")
    )
    fold_of = _fill(table, np.asarray(fractions))
    table = _fill_empty(table.with_columns(fold=pl.Series(fold_of)), fractions)
    lookup = np.zeros(int(clusters.max()) + 1, dtype=np.int64)
    lookup[table["cluster"].to_numpy()] = table["fold"].to_numpy()
    return np.asarray(lookup[clusters], dtype=np.int64)


def _fill(table: pl.DataFrame, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    folds = np.zeros(table.height, dtype=np.int64)
    behind: dict[str, NDArray[np.float64]] = {label: np.zeros(3) for label in LABELS}
    strata = table.select("label", "category", "forced", "size").with_row_index("at")
    sums = {
        (label, category): total
        for label, category, total in table.group_by("label", "category").agg(pl.col("size").sum()).iter_rows()
    }
    opened: set[tuple[str, str]] = set()
    # One step a cluster, each depending on the one before it: there is nothing to vectorize.
    for at, label, category, must_train, size in strata.iter_rows():
        if (label, category) not in opened:
            opened.add((label, category))
            behind[label] += shares * sums[label, category]
        fold = 0 if must_train else int(np.argmax(np.where(shares > 0, behind[label], -np.inf)))
        behind[label][fold] -= size
        folds[at] = fold
    return folds


def _fill_empty(table: pl.DataFrame, fractions: Iterable[float]) -> pl.DataFrame:
    """Give validation and test one cluster of each label that training can spare: few attacks are better than none."""
    for fold, share in enumerate(fractions):
        for label in LABELS:
            mine = pl.col("label") == label
            if fold == 0 or share <= 0 or table.filter(mine & (pl.col("fold") == fold)).height:
                continue
            spare = table.filter(mine & (pl.col("fold") == 0) & ~pl.col("forced")).sort("size", "luck")
            in_train = table.filter(mine & (pl.col("fold") == 0)).height
            if spare.height and in_train > 1:
                chosen = pl.col("cluster") == spare["cluster"][0]
                table = table.with_columns(fold=pl.when(chosen).then(fold).otherwise(pl.col("fold")))
    return table


def _sha256(path: Path) -> str:
    from crywolf.data import file_hash

    return file_hash(path)
