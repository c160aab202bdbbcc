"""The store: one SQLite file that remembers every reported false positive, once, and every round run on them.

Takes contract frames, gives contract frames; SQLAlchemy in between. Text from outside goes in as bound parameters only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from crywolf.data import BadInput, check_target, make_corpus

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

Status = Literal["new", "quarantined", "accepted", "rejected", "grown"]
STATUSES: tuple[Status, ...] = ("new", "quarantined", "accepted", "rejected", "grown")
GROWABLE: tuple[Status, ...] = ("new", "accepted")
_BATCH = 500


@dataclass(frozen=True)
class Store:
    """The feedback database; `Store.open` makes it where it is missing.

    Attributes:
        path: the SQLite file.
        engine: SQLAlchemy's engine on it.
        tables: the tables by name: reports, ingestions, rounds.
    """

    path: Path
    engine: "Engine"
    tables: "MetaData"

    @classmethod
    def open(cls, path: Path | str) -> "Store":
        """Open or create the store.

        Raises:
            BadInput: the path is a folder or lies below a file, its folder cannot be made, or the file is not an SQLite
                database.
        """
        from sqlalchemy import URL, create_engine
        from sqlalchemy.exc import DatabaseError

        path = Path(path)
        if path.is_dir():
            raise BadInput(f"{path}: is a folder; the feedback store is one file")
        check_target(path, force=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{path}: its folder cannot be made ({error.strerror})") from error
        # Part by part, since a path written into a URL would be parsed; absolute, since ":memory:" would be no file.
        engine = create_engine(URL.create("sqlite", database=str(path.absolute())))
        tables = _tables()
        try:
            tables.create_all(engine)
        except DatabaseError as error:
            raise BadInput(f"{path}: not a feedback store ({error.orig})") from error
        return cls(path, engine, tables)

    @cached_property
    def _reports(self) -> "Table":
        return self.tables.tables["reports"]

    @contextmanager
    def _begin(self) -> Iterator["Connection"]:
        with self.engine.begin() as connection:
            yield connection

    def add(self, frame: pl.DataFrame) -> tuple[int, int]:
        """Add reported false positives (a contract frame; `seen_at`, `note` optional); return (new, already known).

        A prompt is known by the id of its text, so the same report from two logs counts once.
        """
        from sqlalchemy.dialects.sqlite import insert

        now = _now()
        wanted = ["id", "text", "category", "threat_type", "external_id"]
        unique = frame.unique("id", keep="first", maintain_order=True)
        more = {
            name: pl.col(name) if name in unique.columns else pl.lit(None, pl.String) for name in ("seen_at", "note")
        }
        confidence = unique["extra"].struct.field("confidence")
        rows = unique.select(*wanted, **more).with_columns(pl.col("threat_type").cast(pl.String), confidence=confidence)
        known = 0
        with self._begin() as connection:
            for start in range(0, len(rows), _BATCH):
                batch = [{**row, "status": "new", "added_at": now} for row in rows[start : start + _BATCH].to_dicts()]
                statement = insert(self._reports).values(batch).on_conflict_do_nothing(index_elements=["id"])
                known += len(batch) - int(connection.execute(statement).rowcount)
        return len(rows) - known, known + len(frame) - len(unique)

    def frame(self, statuses: Sequence[Status] = STATUSES) -> pl.DataFrame:
        """Return the reports of the given statuses as a contract frame (label BENIGN, source "feedback")."""
        from sqlalchemy import select

        table = self._reports
        query = select(table).where(table.c.status.in_(statuses)).order_by(table.c.added_at, table.c.id)
        with self._begin() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        keep = ("text", "category", "threat_type", "external_id")
        records = [
            {**{name: row[name] for name in keep}, "extra": {"confidence": row["confidence"], "notes": row["note"]}}
            for row in rows
        ]
        return make_corpus(records, source="feedback", label="BENIGN")

    def set_status(
        self, ids: Sequence[str], status: Status, *, note: str | None = None, round: int | None = None
    ) -> int:
        """Move reports to another status; return how many there were."""
        from sqlalchemy import update

        values: dict[str, Any] = {"status": status}
        if note is not None:
            values["note"] = note
        if round is not None:
            values["round"] = round
        changed = 0
        with self._begin() as connection:
            for start in range(0, len(ids), _BATCH):
                batch = list(ids[start : start + _BATCH])
                statement = update(self._reports).where(self._reports.c.id.in_(batch)).values(**values)
                changed += int(connection.execute(statement).rowcount)
        return changed

    def statuses(self) -> dict[str, str]:
        """Return the status of every report by its id, without reading the texts."""
        from sqlalchemy import select

        table = self._reports
        with self._begin() as connection:
            return {str(id_): str(status) for id_, status in connection.execute(select(table.c.id, table.c.status))}

    def counts(self) -> dict[str, int]:
        """Return how many reports there are of each status."""
        from sqlalchemy import func, select

        table = self._reports
        with self._begin() as connection:
            rows = connection.execute(select(table.c.status, func.count()).group_by(table.c.status)).all()
        found = {str(status): int(n) for status, n in rows}
        return {status: found.get(status, 0) for status in STATUSES}

    def record_ingestion(self, file: str, sha256: str, since: str | None, counts: dict[str, int]) -> None:
        """Remember that a log was read, and what was found in it."""
        with self._begin() as connection:
            values = {"file": file, "sha256": sha256, "since": since, "counts": counts, "at": _now()}
            connection.execute(self.tables.tables["ingestions"].insert().values(**values))

    def rounds(self) -> list[dict[str, Any]]:
        """Return the finished rounds, oldest first."""
        from sqlalchemy import select

        table = self.tables.tables["rounds"]
        with self._begin() as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(table.c.number)).mappings()]

    def record_round(self, number: int, folder: str, verdict: dict[str, Any], ids: Sequence[str]) -> None:
        """Remember a finished round and mark its reports as grown, in one transaction."""
        from sqlalchemy import update

        table = self.tables.tables["rounds"]
        with self._begin() as connection:
            connection.execute(table.insert().values(number=number, folder=folder, verdict=verdict, at=_now()))
            for start in range(0, len(ids), _BATCH):
                batch = list(ids[start : start + _BATCH])
                where = self._reports.c.id.in_(batch)
                connection.execute(update(self._reports).where(where).values(status="grown", round=number))


def _tables() -> "MetaData":
    from sqlalchemy import JSON, CheckConstraint, Column, Float, Integer, MetaData, String, Table, Text

    tables = MetaData()
    allowed = ", ".join(f"'{status}'" for status in STATUSES)
    Table(
        "reports",
        tables,
        Column("id", String(16), primary_key=True),
        Column("text", Text, nullable=False),
        Column("category", String),
        Column("threat_type", String),
        Column("external_id", String),
        Column("confidence", Float),
        Column("seen_at", String),
        Column("added_at", String, nullable=False),
        Column("status", String, nullable=False, index=True),
        Column("note", Text),
        Column("round", Integer),
        CheckConstraint(f"status IN ({allowed})"),
    )
    Table(
        "ingestions",
        tables,
        Column("number", Integer, primary_key=True),
        Column("file", String, nullable=False),
        Column("sha256", String, nullable=False),
        Column("since", String),
        Column("counts", JSON, nullable=False),
        Column("at", String, nullable=False),
    )
    Table(
        "rounds",
        tables,
        Column("number", Integer, primary_key=True),
        Column("folder", String, nullable=False),
        Column("verdict", JSON, nullable=False),
        Column("at", String, nullable=False),
    )
    return tables


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
