"""A typed client of the REST interface: what it answers as the service's own schemas, what goes wrong as exceptions."""

from api.client.client import DEFAULT_URL, Client
from api.client.errors import (
    ApiError,
    ChangedMeanwhile,
    Conflict,
    FaultyRequest,
    Missing,
    NotAllowed,
    ServiceFault,
    TooMany,
    Unreachable,
)
from api.client.streams import Event

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "ChangedMeanwhile",
    "Client",
    "Conflict",
    "Event",
    "FaultyRequest",
    "Missing",
    "NotAllowed",
    "ServiceFault",
    "TooMany",
    "Unreachable",
]
