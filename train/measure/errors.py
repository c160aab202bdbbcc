"""Error analysis: which false positives remain, in which groups they fall, and what each group has in common.

Takes an `Evaluation` with its prompts and an `encode` callable; gives an `ErrorAnalysis`: clusters of the remaining
false positives, each named by its opening and its most distinctive words, with the attack that it lies nearest to, and
the patterns of `patterns.py`. Prompts are shown only when asked for; names hold words that several prompts share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.augment.attribution import OPENING, contrast
from crywolf.data import BadInput, Encode

from .evaluate import Evaluation
from .intervals import Rate
from .patterns import MOST_ORDINARY, Pattern, drawn, find_patterns

Vectors = NDArray[np.float32]

MOST_CLUSTERED = 3000
"""False positives that are clustered at once, as that takes memory by their square; others join the nearest cluster."""
MOST_ATTACKS = 5000
MIN_COSINE = 0.3
"""Two clusters whose rows have this mean cosine or more are one. With all-MiniLM-L6-v2 it put half of 237 false
positives of the demo's traffic into 26 clusters that a person can name; 0.5 put 8% into six."""
MIN_SIZE = 3
EXAMPLES = 5
_NAME_WORDS = 4
_Z = 1.96
_SHARED = 0.4
"""Of a cluster's rows, the share that must begin alike before that names it."""
_NONE = "(none)"
_HEAD = r"[\p{L}\p{N}]+(?:['’_-][\p{L}\p{N}]+)*"


@dataclass(frozen=True)
class Nearest:
    """The attack that a cluster lies nearest to.

    Attributes:
        id: the attack's.
        threat_type: what kind it is; None if its row does not say.
        cosine: its mean cosine with the cluster's rows.
        text: the attack itself, for those who ask for prompts.
    """

    id: str
    threat_type: str | None
    cosine: float
    text: str

    def to_dict(self, *, prompts: bool = False) -> dict[str, Any]:
        """For machines; the text only if asked."""
        own = {"id": self.id, "threat_type": self.threat_type, "cosine": self.cosine}
        return {**own, "text": self.text} if prompts else own


@dataclass(frozen=True)
class Cluster:
    """False positives that are alike.

    Attributes:
        number: 0 for the largest.
        name: its opening, if its rows share one, and its most distinctive words.
        words: the most distinctive words, in at least two rows each.
        opening: the first words that its rows share; empty if they do not.
        of: its rows, of all remaining false positives.
        mean_score: of its rows.
        categories: rows by category, the most frequent first.
        taken_for: rows by the threat type that they were taken for.
        nearest: the attack nearest to it; None where no attack was scored.
        examples: ids of its rows, the most typical first.
        texts: their prompts, for those who ask for them.
    """

    number: int
    name: str
    words: tuple[str, ...]
    opening: str
    of: Rate
    mean_score: float
    categories: dict[str, int]
    taken_for: dict[str, int]
    nearest: Nearest | None
    examples: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many false positives it holds."""
        return self.of.k

    def to_dict(self, *, prompts: bool = False) -> dict[str, Any]:
        """For machines; prompts only if asked."""
        found: dict[str, Any] = {
            "number": self.number,
            "name": self.name,
            "words": list(self.words),
            "opening": self.opening,
            "n": self.n,
            "share": self.of.to_dict(),
            "mean_score": self.mean_score,
            "categories": self.categories,
            "taken_for": self.taken_for,
            "nearest_attack": None if self.nearest is None else self.nearest.to_dict(prompts=prompts),
            "examples": list(self.examples),
        }
        return {**found, "texts": list(self.texts)} if prompts else found


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The remaining false positives of one detector, in groups.

    Attributes:
        name: the detector.
        suite: the suite looked at; None for all held-out rows.
        fp_rate: benign rows flagged.
        clusters: the largest first.
        patterns: single properties that go with being flagged, see `patterns.find_patterns`.
        members: id, cluster (null for a row that is like no other) and score of every false positive.
    """

    name: str
    suite: str | None
    fp_rate: Rate
    clusters: tuple[Cluster, ...]
    patterns: tuple[Pattern, ...]
    members: pl.DataFrame

    @property
    def clustered(self) -> Rate:
        """False positives that are in a cluster, of all."""
        return Rate(int(self.members["cluster"].is_not_null().sum()), self.members.height)

    def ids(self, cluster: int | None) -> list[str]:
        """The ids of a cluster's rows; None for those in no cluster."""
        wanted = pl.col("cluster").is_null() if cluster is None else pl.col("cluster") == cluster
        return self.members.filter(wanted)["id"].to_list()

    def cluster_of(self, id: str) -> Cluster | None:
        """The cluster of a false positive; None if it is in none.

        Raises:
            BadInput: no false positive has this id.
        """
        found = self.members.filter(pl.col("id") == id)["cluster"]
        if found.is_empty():
            raise BadInput(f"{id} is no false positive of {self.name} here")
        return None if found[0] is None else self.clusters[found[0]]

    def table(self) -> pl.DataFrame:
        """A row for each cluster, the largest first.

        Returns:
            Columns cluster, name, n, share, low, high (of all remaining false positives), mean_score, category and
            taken_for (the most frequent), nearest_attack (id), threat_type (its), cosine (its).
        """
        rows = [
            (
                one.number,
                one.name,
                one.n,
                one.of.value,
                one.of.low,
                one.of.high,
                one.mean_score,
                next(iter(one.categories), _NONE),
                next(iter(one.taken_for), _NONE),
                one.nearest.id if one.nearest else None,
                one.nearest.threat_type if one.nearest else None,
                one.nearest.cosine if one.nearest else None,
            )
            for one in self.clusters
        ]
        text, whole, real = pl.String(), pl.Int64(), pl.Float64()
        schema: dict[str, pl.DataType] = {
            "cluster": whole,
            "name": text,
            "n": whole,
            "share": real,
            "low": real,
            "high": real,
            "mean_score": real,
            "category": text,
            "taken_for": text,
            "nearest_attack": text,
            "threat_type": text,
            "cosine": real,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def pattern_table(self) -> pl.DataFrame:
        """A row for each pattern, in the order of `patterns`.

        Returns:
            Columns pattern, kind, k_inside, n_inside, value_inside, low_inside, high_inside, the same with the ending
            _outside, then difference, low, high, excess.
        """
        sides = ("inside", "outside")
        rows = [
            (
                one.name,
                one.kind,
                *(v for r in (one.inside, one.outside) for v in (r.k, r.n, r.value, r.low, r.high)),
                *(one.difference.value, one.difference.low, one.difference.high, one.excess),
            )
            for one in self.patterns
        ]
        schema: dict[str, pl.DataType] = {"pattern": pl.String(), "kind": pl.String()}
        for side in sides:
            schema |= {f"{name}_{side}": pl.Int64() for name in ("k", "n")}
            schema |= {f"{name}_{side}": pl.Float64() for name in ("value", "low", "high")}
        schema |= {name: pl.Float64() for name in ("difference", "low", "high", "excess")}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def to_dict(self, *, prompts: bool = False) -> dict[str, Any]:
        """For JSON; prompts only if asked."""
        return {
            "name": self.name,
            "suite": self.suite,
            "fp_rate": self.fp_rate.to_dict(),
            "clustered": self.clustered.to_dict(),
            "clusters": [one.to_dict(prompts=prompts) for one in self.clusters],
            "in_no_cluster": self.ids(None),
            "patterns": [one.to_dict() for one in self.patterns],
        }


def analyse_errors(
    evaluation: Evaluation,
    encode: Encode,
    rng: np.random.Generator,
    *,
    suite: str | None = None,
    min_cosine: float = MIN_COSINE,
    min_size: int = MIN_SIZE,
) -> ErrorAnalysis:
    """Cluster the false positives of an evaluation and find what each cluster, and all of them, have in common.

    Clusters are those of average linkage over cosine distances (Sokal and Michener 1958), cut where two clusters' rows
    have a lower mean cosine than `min_cosine`. Their words come from log-odds with an informative Dirichlet prior
    (Monroe, Colaresi and Quinn 2008) against benign rows that are not flagged.

    Args:
        evaluation: with its prompts.
        encode: texts to float32 unit vectors, (n, d).
        rng: draws rows where there are too many to look at all.
        suite: the suite whose false positives are looked at; None for all held-out rows. The nearest attacks are sought
            in every suite.
        min_cosine: higher gives more and tighter clusters.
        min_size: rows that make a cluster; fewer stay in none.

    Raises:
        BadInput: the suite was not scored, the evaluation was saved without prompts, or a bound is out of range.
    """
    if not -1.0 < min_cosine < 1.0 or min_size < 2:
        raise BadInput(f"clusters of {min_size} rows at cosine {min_cosine:g}: give 2 rows or more, and a cosine")
    if suite is not None and evaluation.suite(suite) is None:
        raise BadInput(f"suite {suite!r} was not evaluated; there are: {', '.join(i.name for i in evaluation.suites)}")
    is_benign = pl.col("label").cast(pl.String) == "BENIGN"
    rows = evaluation.select(suite, by="language").filter(is_benign)
    if rows["text"].null_count():
        raise BadInput("this evaluation was saved without prompts; evaluate again, or save it with prompts")
    fps = rows.filter("flagged").sort("score", "id", descending=[True, False])
    attacks = evaluation.rows.filter(~is_benign).unique(subset="id", keep="first", maintain_order=True)
    vectors = _encoded(encode, fps["text"].to_list())
    labels = _clustered(vectors, min_cosine, min_size, rng)
    clusters = _described(fps, vectors, labels, _attacks(attacks, encode, labels, rng), rows, rng)
    numbers = pl.Series("cluster", labels, dtype=pl.Int64)
    members = fps.select("id", numbers, "score").with_columns(
        pl.when(pl.col("cluster") >= 0).then(pl.col("cluster")).alias("cluster")
    )
    rate = Rate(fps.height, rows.height)
    return ErrorAnalysis(evaluation.name, suite, rate, clusters, find_patterns(rows, rng), members)


def _encoded(encode: Encode, texts: Sequence[str]) -> Vectors:
    """Unit vectors, checked."""
    if not texts:
        return np.empty((0, 1), dtype=np.float32)
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise BadInput(f"encode gave vectors of shape {vectors.shape} for {len(texts)} texts; give a finite one each")
    return vectors


def _clustered(vectors: Vectors, min_cosine: float, min_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The cluster of each vector, the largest first; -1 for those in none."""
    count = len(vectors)
    if count < min_size:
        return np.full(count, -1, dtype=np.int64)
    from sklearn.cluster import AgglomerativeClustering

    inside = np.arange(count) if count <= MOST_CLUSTERED else np.sort(rng.permutation(count)[:MOST_CLUSTERED])
    model = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1.0 - min_cosine)
    raw = np.full(count, -1, dtype=np.int64)
    raw[inside] = model.fit(vectors[inside]).labels_
    if count > len(inside):
        means = np.stack([vectors[raw == label].mean(axis=0) for label in range(int(raw.max()) + 1)])
        outside = np.flatnonzero(raw < 0)
        # The mean cosine with a cluster's rows is the product with their mean.
        cosine = vectors[outside] @ means.T
        raw[outside] = np.where(cosine.max(axis=1) >= min_cosine, cosine.argmax(axis=1), -1)
    sizes = np.bincount(raw[raw >= 0])
    order = [label for label in np.argsort(-sizes, kind="stable") if sizes[label] >= min_size]
    rank = np.full(len(sizes) + 1, -1, dtype=np.int64)  # the last place stands for -1
    rank[order] = np.arange(len(order))
    return rank[raw]


@dataclass(frozen=True)
class _Attacks:
    rows: pl.DataFrame
    vectors: Vectors

    def nearest(self, mean: NDArray[np.float32]) -> Nearest | None:
        """The attack with the highest mean cosine with rows of this mean."""
        if self.rows.is_empty():
            return None
        cosine = self.vectors @ mean
        at = int(cosine.argmax())
        row = self.rows.row(at, named=True)
        return Nearest(row["id"], row["threat_type"], float(cosine[at]), row["text"])


def _attacks(attacks: pl.DataFrame, encode: Encode, labels: NDArray[np.int64], rng: np.random.Generator) -> _Attacks:
    """The attacks that clusters are compared with; none are encoded where there is no cluster."""
    if not (labels >= 0).any():
        attacks = attacks.clear()
    elif attacks.height > MOST_ATTACKS:
        attacks = attacks[np.sort(rng.permutation(attacks.height)[:MOST_ATTACKS])]
    return _Attacks(attacks, _encoded(encode, attacks["text"].to_list()))


def _described(
    fps: pl.DataFrame,
    vectors: Vectors,
    labels: NDArray[np.int64],
    attacks: _Attacks,
    benign: pl.DataFrame,
    rng: np.random.Generator,
) -> tuple[Cluster, ...]:
    ordinary = drawn(benign.filter(~pl.col("flagged"))["text"], MOST_ORDINARY, rng)
    found: list[Cluster] = []
    for number in range(int(labels.max(initial=-1)) + 1):
        at = np.flatnonzero(labels == number)
        mean = vectors[at].mean(axis=0)
        typical = fps[at[np.argsort(-(vectors[at] @ mean), kind="stable")]]
        opening = _opening(typical["text"])
        words = _words(typical["text"].to_list(), ordinary, opening)
        found.append(
            Cluster(
                number=number,
                name=_name(opening, words),
                words=words,
                opening=opening,
                of=Rate(len(at), fps.height),
                mean_score=float(typical["score"].mean()),  # type: ignore[arg-type]  # a cluster has rows
                categories=_counts(typical["category"]),
                taken_for=_counts(typical["taken_for"]),
                nearest=attacks.nearest(mean),
                examples=tuple(typical["id"].head(EXAMPLES).to_list()),
                texts=tuple(typical["text"].head(EXAMPLES).to_list()),
            )
        )
    return tuple(found)


def _opening(texts: pl.Series) -> str:
    """The longest first words, up to three, that enough of the texts share; empty if there are none."""
    first = texts.str.to_lowercase().str.extract_all(_HEAD).list.head(OPENING).to_list()
    for count in range(OPENING, 0, -1):
        heads = Counter(" ".join(words[:count]) for words in first if len(words) >= count)
        text, rows = min(heads.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        if rows >= max(2, _SHARED * len(texts)):
            return text
    return ""


def _words(texts: Sequence[str], ordinary: Sequence[str], opening: str) -> tuple[str, ...]:
    """The words of at least two texts that stand out most against ordinary ones, less those of the opening."""
    found = contrast(texts, ordinary).filter((pl.col("fps") >= 2) & (pl.col("z") >= _Z))
    told = opening.split()
    return tuple(word for word in found["word"].head(_NAME_WORDS + len(told)) if word not in told)[:_NAME_WORDS]


def _name(opening: str, words: Sequence[str]) -> str:
    parts = [f'opens with "{opening}"'] if opening else []
    return "; ".join([*parts, *([", ".join(words)] if words else [])]) or "no word in common"


def _counts(values: pl.Series) -> dict[str, int]:
    counted = Counter(values.fill_null(_NONE).to_list())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
