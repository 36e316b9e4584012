"""The ledger's tables, for SQLite and PostgreSQL alike. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    false,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from dicom_node.refusal import Refused

#: What a database raises that is away, locked or full for a while.
DATABASE_AWAY = (OperationalError, InterfaceError)

METADATA = MetaData()

STUDIES = Table(
    "studies",
    METADATA,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_id", Text, nullable=False, index=True),
    Column("acquired", String(8), nullable=False),
    Column("images", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("last_arrival", Float, nullable=False),
    Column("priority", Integer, nullable=False, server_default="1"),
    Column("issuer_of_patient_id", Text, nullable=False, server_default=""),
    # Why a study is not called complete though nothing more arrives; and whether a person said that it is to be used.
    Column("held", Text, nullable=False, server_default=""),
    Column("released", Boolean, nullable=False, server_default=false()),
)

INSTANCES = Table(
    "instances",
    METADATA,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("arrived_at", Float, nullable=False),
    Column("acquired", String(8), nullable=False, server_default=""),
    # Of a file that is read in place: size and time when it was last read, and the hash of what precedes the data set.
    Column("seen", String(64), nullable=False, server_default=""),
    Column("head_sha256", String(64), nullable=False, server_default=""),
    # The AE title of the system that brought it; NULL where that is not known.
    Column("received_from", String(16)),
)

CONFLICTS = Table(
    "conflicts",
    METADATA,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("arrived_at", Float, nullable=False),
)

PLANS = Table(
    "plans",
    METADATA,
    Column("plan_id", Text, primary_key=True),
    Column("patient_id", Text, nullable=False, index=True),
    Column("procedure_date", String(8), nullable=False),
    Column("baseline_study_instance_uid", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("folder", Text, nullable=False),
    Column("added_at", Float, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False, server_default=""),
)

ASSESSMENTS = Table(
    "assessments",
    METADATA,
    Column("assessment_id", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("plan_id", Text, nullable=False, index=True),
    Column("inputs", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("previous", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("superseded", Boolean, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("ended_at", Float),
    # Who works on it: see `claims`.
    Column("resource", String(8), nullable=False, server_default="cpu"),
    Column("owner", String(128), nullable=False, server_default=""),
    Column("token", Integer, nullable=False, server_default="0"),
    Column("takeovers", Integer, nullable=False, server_default="0"),
    # Whether the earlier results are withdrawn in whose place it brought none: see `withdrawing`.
    Column("withdrawal", String(8), nullable=False, server_default="", index=True),
)

SENDS = Table(
    "sends",
    METADATA,
    Column("assessment_id", String(64), primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("at", Float, nullable=False),
)

# What other systems were asked for, and what came of it. subject: the study that is wanted, or on whose account.
REQUESTS = Table(
    "requests",
    METADATA,
    Column("peer", Text, primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
    # The subject's when it was asked about: an answer holds for what was here then.
    Column("last_arrival", Float),
)

# Storage commitment that was asked of a destination, by the transaction's UID.
COMMITMENTS = Table(
    "commitments",
    METADATA,
    Column("transaction_uid", String(64), primary_key=True),
    Column("assessment_id", String(64), nullable=False, index=True),
    Column("destination", Text, nullable=False),
    Column("instances", Text, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("state", String(16), nullable=False),
)

USERS = Table(
    "users",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),
    Column("added_at", Float, nullable=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("token_sha256", String(64), primary_key=True),
    Column("name", String(64), nullable=False, index=True),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("worker_id", String(128), primary_key=True),
    Column("host", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("lost", Boolean, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", String(128), nullable=False),
)

#: Whoever makes or changes the tables holds this lock of PostgreSQL's: several workers may start at once.
_MIGRATION_LOCK = 0x6D617267


def open_engine(url: str) -> Engine:
    """An engine on the ledger's database, its tables made where they are missing. Raises SQLAlchemyError."""
    is_postgresql = url.startswith("postgresql")
    arguments = {"connect_timeout": 10} if is_postgresql else {}
    # What a statement was given (patient IDs among it) must not stand in the errors, which are logged.
    engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=arguments)
    if not is_postgresql:
        _make_private(engine.url.database or "")
    event.listen(engine, "connect", _set_up_postgresql if is_postgresql else _set_up_sqlite)
    with engine.begin() as connection:
        lock = f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})" if is_postgresql else "BEGIN IMMEDIATE"
        connection.exec_driver_sql(lock)
        METADATA.create_all(connection)
        _add_what_is_missing(connection)
    return engine


def insert_into(connection: Connection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, which SQLAlchemy has for each database apart."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def insert_new(connection: Connection, table: Table) -> Any:
    """An INSERT that leaves rows alone that are there."""
    return insert_into(connection, table).on_conflict_do_nothing()


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, or put it in place of the one with the same primary key."""
    insert = insert_into(connection, table).values(row)
    connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=row))


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what a database raises in the block into `Refused` ("database_unreachable") that says what to do.

    url: the database's. Its password is never shown.
    """
    try:
        yield
    except SQLAlchemyError as problem:
        cause = str(getattr(problem, "orig", None) or problem).split("\n", 1)[0].rstrip(".")
        raise Refused("database_unreachable", _what_to_do(url, problem, cause)) from problem


def _what_to_do(url: str, problem: SQLAlchemyError, cause: str) -> str:
    if not url.startswith("sqlite"):
        try:
            shown = make_url(url).set(drivername="postgresql").render_as_string(hide_password=True)
        except (ArgumentError, ValueError):
            shown = "of database.url"
        return f"The database {shown} cannot be used ({cause}); start it, or correct database.url in the configuration."
    file = Path(url.removeprefix("sqlite:///"))
    if isinstance(problem, OperationalError):
        todo = "check that its folder can be written, has room, and that no other program keeps it locked"
    else:
        todo = f"restore {file.parent} from a backup, or move ledger.sqlite* and queue.sqlite* out of it to begin anew"
    return f"The database {file} cannot be used ({cause}); {todo}."


def _add_what_is_missing(connection: Connection) -> None:
    """Bring a ledger that an earlier version made up to date; what is new in a table has a default."""
    inspector = inspect(connection)
    for table in METADATA.sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _set_up_postgresql(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # A worker that is stopped in mid-transaction must not hold its locks for ever.
    cursor.execute("SET SESSION idle_in_transaction_session_timeout = 10000")
    cursor.close()
    connection.commit()  # type: ignore[attr-defined]


def _make_private(file: str) -> None:
    """A new ledger is its owner's alone: it holds patient IDs and what is kept of passwords."""
    with suppress(OSError):  # it is there already, or SQLite will say better what is wrong
        os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))


def _set_up_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")  # readers (the page) do not stop the listener
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
