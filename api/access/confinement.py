"""What studies may reach from this process, as the settings say: which servers, which keys, which files."""

from __future__ import annotations

import os

from api.access.policy import AccessPolicy
from api.settings import Settings
from env import egress
from env.egress import Egress
from env.errors import ApportionError
from env.tasks.data import ROOT_VARIABLE


class ConfinementError(ApportionError):
    """A setting of what may be reached cannot be understood, or the data root cannot be made."""


def confine(settings: Settings) -> None:
    """Hold studies of this process to what specs that others send may reach.

    Raises:
        ConfinementError: a setting is not usable.
    """
    open_to_others = AccessPolicy.of(settings).tokens_needed
    try:
        policy = Egress.strict(
            settings.allowed_targets, loopback=not open_to_others, keys=settings.spec_keys if open_to_others else None
        )
    except ValueError as error:
        raise ConfinementError(f"APPORTION_ALLOWED_TARGETS: {error}") from error
    egress.obey(policy)
    root = settings.data_root
    if root is None and open_to_others:
        root = settings.home / "data"
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfinementError(f"the data root {root} cannot be made: {error.strerror}") from error
    if root is not None:
        os.environ[ROOT_VARIABLE] = str(root.resolve())
