"""The prediction log: one row per answer of the service, no pixels, in any database SQLAlchemy opens."""

from datetime import UTC, datetime

import numpy as np
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    select,
)

PREDICTIONS = Table(
    "predictions",
    MetaData(),
    Column("request_id", String(36), primary_key=True),
    Column("at", DateTime, nullable=False, index=True),  # UTC without offset: SQLite keeps none
    Column("model_version", String(12), nullable=False),
    Column("predicted", String(64), nullable=False),
    Column("probabilities", JSON, nullable=False),  # class -> probability
    Column("descriptors", JSON, nullable=False),  # cxr.dataset.manifest.DESCRIPTORS -> number
    Column("embedding", LargeBinary, nullable=False),  # float32, little-endian
)


def open_log(url: str) -> Engine:
    """Open the log at a SQLAlchemy URL and make its table where there is none."""
    engine = create_engine(url)
    PREDICTIONS.metadata.create_all(engine)
    return engine


def append(
    log: Engine,
    request_id: str,
    model_version: str,
    predicted: str,
    probabilities: dict[str, float],
    descriptors: dict[str, float],
    embedding: np.ndarray,
) -> None:
    """Write one answer; `embedding` is float32 (d,)."""
    row = {
        "request_id": request_id,
        "at": datetime.now(UTC).replace(tzinfo=None),
        "model_version": model_version,
        "predicted": predicted,
        "probabilities": probabilities,
        "descriptors": descriptors,
        "embedding": embedding.astype("<f4").tobytes(),
    }
    with log.begin() as connection:
        connection.execute(insert(PREDICTIONS), row)


def read_since(log: Engine, since: datetime) -> list[dict]:
    """The rows at or after `since` (aware, any zone), oldest first, as dictionaries of the table's columns."""
    query = select(PREDICTIONS).where(PREDICTIONS.c.at >= since.astimezone(UTC).replace(tzinfo=None))
    with log.connect() as connection:
        return [dict(row) for row in connection.execute(query.order_by(PREDICTIONS.c.at)).mappings()]
