"""What can go wrong with a fleet."""

from __future__ import annotations

from env.errors import ApportionError


class FleetError(ApportionError):
    """A fleet file is not usable, or a server cannot be started or kept; the message says what to do."""


class DoesNotFitError(FleetError):
    """The models do not fit the devices' memory; nothing was started. The message carries the numbers."""


class ServerError(FleetError):
    """A server did not start, or died for good; the message ends with the last lines of its log."""
