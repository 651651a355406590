"""The metadata database of Airflow, MLflow and Superset: its address."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from tidewatch.errors import SettingsError
from tidewatch.settings import Settings

DATABASES = ("airflow", "mlflow", "superset")
USER = "tidewatch"


def url(settings: Settings, database: str, driver: str = "psycopg2") -> str:
    """A SQLAlchemy address of one database; raises SettingsError if `metadata.url` is not one of PostgreSQL."""
    given = settings.metadata.url
    if not given:
        password = quote(settings.secret("postgres_password"), safe="")
        return f"postgresql+{driver}://{USER}:{password}@127.0.0.1:{settings.ports.postgres}/{database}"
    parts = urlsplit(given)
    if parts.scheme.split("+")[0] not in ("postgresql", "postgres") or not parts.hostname or parts.path.strip("/"):
        raise SettingsError("setting `metadata.url` is not an address like postgresql://user:password@host:5432 (without a database).",
                            "correct it in tidewatch.toml or in the variable TIDEWATCH_METADATA__URL")
    return f"postgresql+{driver}://{parts.netloc}/{database}"
