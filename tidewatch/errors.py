"""The error tree: every error a user can cause says what happened, where, and how to fix it.

TidewatchError
├── SettingsError      a setting is missing or impossible
├── ContractError      a contract, feature view or detector is defined wrongly
├── InputError         data handed in cannot be used
├── ServiceError       a server does not start, does not answer, or refuses
└── GateError          a batch or a model did not pass its gate
"""

from __future__ import annotations


class TidewatchError(Exception):
    """An error with a reason and an instruction; the command line prints both and exits 1."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason if not fix else f"{reason} Fix: {fix}")
        self.reason = reason
        self.fix = fix


class SettingsError(TidewatchError):
    """A setting is missing or impossible."""


class ContractError(TidewatchError):
    """A contract, feature view or detector is defined wrongly."""


class InputError(TidewatchError):
    """Data handed in cannot be used."""


class ServiceError(TidewatchError):
    """A server does not start, does not answer, or refuses."""


class GateError(TidewatchError):
    """A batch or a model did not pass its gate."""
