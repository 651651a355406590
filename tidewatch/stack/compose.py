"""The compose file, generated from the service table: `python -m tidewatch.stack.compose [--check]`.

Every container runs one row of the table from one image, in the host's network: the servers keep to 127.0.0.1 as they
do without containers, with the same ports and configuration.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, table

PATH = ROOT / "docker" / "compose.yaml"
COMMON: dict[str, Any] = {
    "image": "tidewatch", "build": {"context": "..", "dockerfile": "docker/Dockerfile"}, "network_mode": "host", "init": True,
    "volumes": ["state:/var/lib/tidewatch"],
}


def _row(service: Service) -> dict[str, Any]:
    row = {
        **COMMON,
        "command": ["run", service.name],
        "restart": "unless-stopped",
        "stop_grace_period": f"{service.stop_seconds + 5}s",
        "mem_limit": f"{service.memory_mb * 5 // 4 + 200}m",
        "healthcheck": {
            "test": ["CMD", "docker/entrypoint", "run", service.name, "--ready"],
            "interval": "15s", "timeout": "20s", "start_period": f"{service.ready_timeout:.0f}s", "retries": 4,
        },
    }
    if service.nice:
        # what a nice value weighs in the kernel, of 1024 (sched(7)): containers share the cores out by these
        row["cpu_shares"] = round(1024 / 1.25**service.nice)
    if service.needs:
        row["depends_on"] = {n: {"condition": "service_healthy"} for n in service.needs}
    return row


def render() -> str:
    """The text of compose.yaml: for the settings' defaults, whatever this machine's are."""
    with tempfile.TemporaryDirectory() as folder:  # rows make secrets; these are thrown away
        defaults = Settings.model_construct(state_dir=Path(folder))
        services: dict[str, Any] = {s.name: _row(s) for s in table(defaults).values()}
    services["cli"] = {**COMMON, "profiles": ["cli"], "command": ["status"]}
    lines = ["# Generated from tidewatch/stack/services by `python -m tidewatch.stack.compose`; do not edit.", "name: tidewatch", "services:"]
    for name, row in services.items():
        lines.append(f"  {name}:")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in row.items()]
    return "\n".join([*lines, "volumes:", "  state: {}"]) + "\n"


def main(arguments: list[str]) -> int:
    text = render()
    if "--check" in arguments:
        if not PATH.exists() or PATH.read_text() != text:
            print(f"{PATH.relative_to(ROOT)} is not current; fix: python -m tidewatch.stack.compose", file=sys.stderr)
            return 1
        return 0
    PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
