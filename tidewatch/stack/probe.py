"""Questions that readiness checks ask: does a port accept, does an address answer."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # our servers are on this machine, never behind a proxy


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def answers(url: str, timeout: float = 5.0) -> bool:
    """The address answers with a 2xx status; raises OSError otherwise."""
    with _direct.open(url, timeout=timeout) as r:
        return 200 <= int(r.status) < 300


def document(url: str, timeout: float = 5.0) -> Any:
    """The JSON behind an address; raises OSError or ValueError."""
    with _direct.open(url, timeout=timeout) as r:
        return json.loads(r.read())
