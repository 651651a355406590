"""A device that keeps sending to one outside party as it never does, though all that it sends outside hardly moves."""

from datetime import timedelta

from tidewatch.detectors import Detector, Example, Signal
from tidewatch.features import SUM_GROUPS

_GROUPS = range(1, SUM_GROUPS + 1)


def _hour(usual: float, *, third: float) -> dict[str, float]:
    return {f"pair_rate_{k}": third if k == 3 else usual for k in _GROUPS}


DETECTOR = Detector(
    name="egress_pair",
    use_case="leak",
    title="Device keeps sending to one outside party",
    doc=__doc__ or "",
    view="egress_1h",
    history=timedelta(days=1),
    signals=tuple(
        Signal(
            # the mean of ln(1 + kB) over the hour's minutes, as a rate again: one large flow does not make an hour, as in a sum of bytes
            f"pair_rate_{k}", f"POWER(2.718281828459045, outside_log_{k} / 60.0) - 1.0", 1, "log1p", "kB/min",
            f"kB sent in a minute to outside addresses of group {k} (of {SUM_GROUPS}, by a hash): the geometric mean of the hour's minutes, each with 1 kB added", 0.05,
        )
        for k in _GROUPS
    ),
    technique="T1048",
    runbook="docs/runbooks/egress_pair.md",
    false_positives=("a backup or synchronisation that moved to another provider", "a long call or session with a service that is seldom used"),
    examples=(
        Example("ten kilobytes in most minutes to one that gets some now and then", _hour(0.2, third=6.0), _hour(0.2, third=0.1), True),
        Example("a busy hour", _hour(0.24, third=0.24), _hour(0.2, third=0.2), False),
    ),
)
