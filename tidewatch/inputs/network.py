"""A network that does not exist: devices of some kinds at some sites, with their habits, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidewatch.errors import InputError
from tidewatch.inputs.encode import Array, Words

PARTNERS = 768
"""Outside addresses that devices talk to: the three blocks reserved for documentation."""
STRANGERS = 16384
"""Outside addresses that only incidents use: from the block reserved for benchmarks."""
MOST_DEVICES = 1_000_000
SITES = 5
"""At most."""
_SITE_DEVICES = 60_000
"""As many addresses has a site."""


@dataclass(frozen=True)
class Metric:
    """A metric that a kind of device reports, as a level, a daily wave and noise."""

    name: str
    base: float
    spread: float
    """Standard deviation of the level between devices."""
    daily: float
    """Height of the wave over a day."""
    noise: float
    """Standard deviation between two readings."""
    low: float
    high: float


@dataclass(frozen=True)
class Kind:
    """A kind of device and its habits."""

    name: str
    share: float
    """Of all devices."""
    rate: float
    """Flows, relative to the other kinds."""
    rhythm: float
    """Height of the daily wave of its activity: 0 day and night the same, 1 none at night."""
    peak: float
    """Hour of the day (UTC) of most activity."""
    external: float
    """Share of flows with outside partners."""
    inbound: float
    """Share of flows that others open."""
    out: float
    """Median bytes sent by a flow inside, by one with an outside partner, and received by either."""
    out_external: float
    back: float
    sigma: float
    """Spread of the logarithm of both."""
    peers: tuple[int, int]
    """How many devices inside, and partners outside, one device knows."""
    ports: tuple[int, ...]
    metrics: tuple[Metric, ...]


_CPU = Metric("cpu_percent", 35, 8, 12, 3, 0, 100)
_TEMPERATURE = Metric("temperature_c", 46, 4, 3, 0.6, -20, 110)
KINDS = (
    Kind("workstation", 0.40, 1.0, 0.8, 14, 0.55, 0.06, 2200, 2200, 14000, 1.2, (12, 25), (443, 443, 443, 80, 53, 445),
         (_CPU, Metric("memory_percent", 55, 8, 4, 0.9, 0, 100))),
    Kind("server", 0.15, 3.0, 0.35, 13, 0.20, 0.60, 9000, 6000, 3500, 1.1, (40, 15), (443, 5432, 22, 80, 53),
         (_CPU, Metric("memory_percent", 62, 8, 3, 0.7, 0, 100), _TEMPERATURE)),
    Kind("camera", 0.15, 0.6, 0.25, 12, 0.05, 0.15, 60000, 1500, 1500, 0.5, (3, 2), (554, 443),
         (_TEMPERATURE, Metric("bitrate_kbps", 2500, 300, 250, 70, 0, 20000), Metric("frame_rate", 25, 0.5, 0, 0.25, 0, 60))),
    Kind("sensor", 0.25, 0.4, 0.05, 12, 0.15, 0.05, 600, 600, 300, 0.4, (2, 2), (8883, 5683),
         (Metric("temperature_c", 21, 2, 3, 0.15, -40, 85), Metric("humidity_percent", 45, 6, 6, 0.6, 0, 100),
          Metric("voltage_v", 3.0, 0.08, 0.03, 0.008, 0, 5))),
    Kind("gateway", 0.05, 4.0, 0.5, 15, 0.50, 0.45, 5000, 4000, 6000, 1.3, (60, 40), (443, 8883, 53, 123),
         (_CPU, _TEMPERATURE)),
)


@dataclass(frozen=True)
class Network:
    """Devices 0 to N-1 as arrays, and the tables of words that their events use."""

    seed: int
    names: tuple[str, ...]
    kind: Array
    """Number in KINDS."""
    site: tuple[str, ...]
    rate: Array
    """Flows a minute, averaged over a day."""
    peers: Array
    """Shape (devices, most): numbers in `addresses`; devices inside, most used first."""
    peers_known: Array
    partners: Array
    """The same for outside partners."""
    partners_known: Array
    series_device: Array
    """Of every series (a metric of a device): the device, and below its habits."""
    series_metric: Array
    series_level: Array
    series_daily: Array
    series_noise: Array
    series_low: Array
    series_high: Array
    series_phase: Array
    """Of the reading period, 0 to 1."""
    series_waves: Array
    """Shape (series, 2, 2): period in seconds and phase of two slow waves."""
    metrics: Words
    addresses: Words
    """Devices, then partners, then strangers."""
    devices: Words
    """Device ids; then one that nobody knows, and an empty one."""

    @property
    def size(self) -> int:
        return len(self.names)

    def habit(self, name: str) -> Array:
        """One number of every device's kind."""
        return np.array([getattr(k, name) for k in KINDS], dtype=float)[self.kind]


def _address(site: int, number: int) -> str:
    block, rest = divmod(number, _SITE_DEVICES)
    return f"10.{site + block * SITES}.{rest // 250}.{rest % 250 + 1}"


def _known(rng: np.random.Generator, counts: Array, among: int, offset: int) -> Array:
    return offset + rng.integers(0, among, size=(len(counts), int(counts.max())))


def network(devices: int, flows_per_device_minute: float, seed: int) -> Network:
    """The network of this seed; raises InputError if it cannot have that many devices."""
    if not 1 <= devices <= MOST_DEVICES:
        raise InputError(f"{devices} devices: from 1 to {MOST_DEVICES} are possible.", "give --devices within that range")
    rng = np.random.default_rng([seed, 1])
    shares = np.array([k.share for k in KINDS])
    # every kind is there from five devices on; the rest by share
    kind = np.concatenate([np.arange(min(len(KINDS), devices)), rng.choice(len(KINDS), max(0, devices - len(KINDS)), p=shares)])
    site = rng.integers(1, 1 + min(SITES, 1 + devices // 20), size=devices)
    names = tuple(f"{KINDS[k].name}-{i:04d}" for i, k in enumerate(kind))
    weight = np.array([k.rate for k in KINDS])[kind] * rng.lognormal(0, 0.9, devices)
    rate = np.maximum(weight / weight.mean(), 0.05) * flows_per_device_minute
    peers_known = np.minimum([KINDS[k].peers[0] for k in kind], devices)
    partners_known = np.array([KINDS[k].peers[1] for k in kind])
    series = [(d, m) for d, k in enumerate(kind) for m in KINDS[k].metrics]
    metric_names = sorted({m.name for k in KINDS for m in k.metrics})
    n = len(series)
    partner = [f"{block}.{i}" for block in ("192.0.2", "198.51.100", "203.0.113") for i in range(256)]
    stranger = [f"198.{18 + i // 8192}.{i // 64 % 128}.{i % 64 * 4 + 1}" for i in range(STRANGERS)]
    return Network(
        seed, names, kind, tuple(f"site-{s}" for s in site), rate,
        _known(rng, peers_known, devices, 0), peers_known, _known(rng, partners_known, PARTNERS, devices), partners_known,
        np.array([d for d, _ in series]), np.array([metric_names.index(m.name) for _, m in series]),
        np.array([m.base for _, m in series]) + rng.normal(size=n) * np.array([m.spread for _, m in series]),
        np.array([m.daily for _, m in series]) * rng.uniform(0.7, 1.3, n), np.array([m.noise for _, m in series]),
        np.array([m.low for _, m in series]), np.array([m.high for _, m in series]), rng.uniform(size=n),
        np.stack([rng.uniform(3000, 18000, (n, 2)), rng.uniform(0, 2 * np.pi, (n, 2))], axis=2),
        Words.of(metric_names),
        Words.of([_address(int(s), i) for i, s in enumerate(site)] + partner + stranger),
        Words.of([*names, "nobody-0000", ""]),
    )


def inventory(net: Network, added_ms: int) -> list[dict[str, object]]:
    """Rows of the table `devices`."""
    return [
        {"device_id": n, "kind": KINDS[k].name, "site": s, "address": net.addresses.values[i], "added_at": added_ms}
        for i, (n, k, s) in enumerate(zip(net.names, net.kind, net.site, strict=True))
    ]
