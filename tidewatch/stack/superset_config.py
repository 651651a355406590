"""Superset's configuration; what depends on the place stands in the JSON file that `TIDEWATCH_SUPERSET` names."""

import copy
import json
import os
from pathlib import Path

from superset.config import TALISMAN_CONFIG as _TALISMAN

_place = json.loads(Path(os.environ["TIDEWATCH_SUPERSET"]).read_text())

SECRET_KEY = _place["secret_key"]
SQLALCHEMY_DATABASE_URI = _place["database"]
DATA_DIR = _place["folder"]

APP_NAME = "Tidewatch"
WTF_CSRF_ENABLED = True
# loopback only: whoever puts a proxy with TLS in front sets these two
TALISMAN_ENABLED = True
TALISMAN_CONFIG = copy.deepcopy(_TALISMAN)
# the built front end puts a counting pixel of another host on every page: the browser is told not to fetch it
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]
TALISMAN_CONFIG["content_security_policy"]["connect-src"] = ["'self'"]
SESSION_COOKIE_SECURE = False
SESSION_COOKIE_SAMESITE = "Lax"
AUTH_ROLE_PUBLIC = ""
AUTH_USER_REGISTRATION = False
RATELIMIT_STORAGE_URI = "memory://"

# "Last week" ends now, not last midnight: an alert of this minute must be seen
DEFAULT_RELATIVE_START_TIME = "now"
DEFAULT_RELATIVE_END_TIME = "now"
SUPERSET_WEBSERVER_TIMEOUT = 60
SQLLAB_TIMEOUT = 30
ROW_LIMIT = 10000
PREVENT_UNSAFE_DB_CONNECTIONS = True


def _cache(name: str, seconds: int) -> dict[str, object]:
    return {
        "CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(Path(_place["folder"]) / "cache" / name),
        "CACHE_DEFAULT_TIMEOUT": seconds, "CACHE_THRESHOLD": 5000,
    }


CACHE_CONFIG = _cache("metadata", 3600)
# charts read a live store: a minute at most between an alert and the screen
DATA_CACHE_CONFIG = _cache("data", 60)
# an open page asks again every 30 seconds: answered from the cache, however many people look
DASHBOARD_AUTO_REFRESH_MODE = "fetch"
FILTER_STATE_CACHE_CONFIG = _cache("filters", 86400 * 90)
EXPLORE_FORM_DATA_CACHE_CONFIG = _cache("explore", 86400 * 7)

# the filters for kind and site are templates in the datasets (tidewatch/dashboards/datasets.py)
FEATURE_FLAGS = {"ENABLE_TEMPLATE_PROCESSING": True, "DASHBOARD_RBAC": False, "ALERT_REPORTS": False, "EMBEDDED_SUPERSET": False}
