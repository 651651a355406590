"""Questions to Pinot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings


def query(settings: Settings, sql: str, given: Mapping[str, str] | None = None) -> list[Any]:
    """Rows of a query, with `%(name)s` in it as `given` says; raises ServiceError without Pinot, or with its words if it refuses or answers in part.

    A table that has no segment yet has no rows, nor a count of them.
    """
    import pinotdb
    from pinotdb import exceptions

    broker = urlsplit(settings.pinot_broker)
    try:
        connection = pinotdb.connect(host=broker.hostname, port=broker.port, path="/query/sql", scheme=broker.scheme, timeout=30)
        try:
            cursor = connection.cursor()
            cursor.execute(sql, given or {})
            return list(cursor.fetchall())
        finally:
            connection.close()
    except exceptions.DatabaseError as e:
        raise ServiceError(f"Pinot refuses the query: {str(e)[:300]}", "see that its tables are there: `tidewatch up pinot`") from e
    except Exception as e:
        # pinotdb lets the errors of whichever HTTP client it uses through
        if type(e).__module__.split(".")[0] not in ("httpx", "httpcore", "requests", "urllib3"):
            raise
        raise ServiceError(f"Pinot's broker at {settings.pinot_broker} does not answer ({type(e).__name__}).", "start it: `tidewatch up`") from e
