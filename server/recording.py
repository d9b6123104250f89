"""Writes every answer to the prediction log. An answer that cannot be recorded is withheld."""

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, make_url
from sqlalchemy.exc import SQLAlchemyError

from cxr.release.prediction_log import PREDICTIONS, append, open_log
from server.refusals import RefusedError
from server.telemetry import logger


class Recorder:
    """The prediction log at a SQLAlchemy URL, opened anew after a failure: its file or server may be another by then.

    Safe to call from several threads.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._log: Engine | None = None

    def is_ready(self) -> bool:
        """Whether a row can be written; the reason goes to the server's log."""
        try:
            rehearse(self._opened())
        except SQLAlchemyError as error:
            self._lose(error)
            return False
        return True

    def record(self, **row: Any) -> None:
        """Write one answer, see `cxr.release.prediction_log.append`. Raises RefusedError where that fails."""
        try:
            append(self._opened(), **row)
        except SQLAlchemyError as error:
            self._lose(error)
            raise RefusedError(
                503, "log", "the answer could not be recorded in the prediction log and is withheld; try again later"
            ) from None

    def _opened(self) -> Engine:
        self._log = self._log or open_log(self.url)
        return self._log

    def _lose(self, error: SQLAlchemyError) -> None:
        place = make_url(self.url).render_as_string(hide_password=True)
        logger.error("%s: the prediction log cannot be written (%s)", place, getattr(error, "orig", None) or error)
        if self._log:
            self._log.dispose()
        self._log = None


def rehearse(log: Engine) -> None:
    """Insert a row and take it back. Raises SQLAlchemyError where the log cannot be written."""
    row = {"request_id": "rehearsal", "at": datetime.min, "model_version": "", "predicted": ""}
    with log.connect() as connection:
        connection.execute(insert(PREDICTIONS), row | {"probabilities": {}, "descriptors": {}, "embedding": b""})
        connection.rollback()
