"""Keyset paging of lists: an opaque cursor, one shape of page, and a Link header (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from api.problems import Refused
from api.schemas.base import Page
from env.spec import Fault

MAX_PAGE = 200
MAX_CURSOR = 2000

Item = TypeVar("Item")
Record = TypeVar("Record")
Key = Sequence[str | int | datetime]


class Paging:
    """What a request asks of a list, and the page that answers it."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items on the page, at most.")] = 50,
        cursor: Annotated[
            str | None,
            Query(
                max_length=MAX_CURSOR, description="`next` of the page before; what is new since is on no later page."
            ),
        ] = None,
    ) -> None:
        self.limit = limit
        self._cursor = cursor
        self._request = request
        self._response = response

    @property
    def wanted(self) -> int:
        """How many records to read: one more than shown tells whether another page follows."""
        return self.limit + 1

    def after(self, *kinds: type) -> tuple[Any, ...] | None:
        """Key of the last item of the page before, one value for each type; None on the first page.

        Raises:
            Refused: the cursor is none of this list's.
        """
        if self._cursor is None:
            return None
        try:
            padded = self._cursor + "=" * (-len(self._cursor) % 4)
            values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if not isinstance(values, list):
                raise ValueError(self._cursor)
            return tuple(_read(value, kind) for value, kind in zip(values, kinds, strict=True))
        except (ValueError, binascii.Error, TypeError, RecursionError) as error:
            message = "is no cursor of this list; give `next` of a page as it is, or leave it out for the first page"
            raise Refused(422, "The request is not usable.", [Fault("query.cursor", message)]) from error

    def page(
        self, records: Sequence[Record], key: Callable[[Record], Key], shown: Callable[[Record], Item]
    ) -> Page[Item]:
        """The page of records that were read for `wanted`; sets the Link header where another follows."""
        following: str | None = None
        if len(records) > self.limit:
            following = _written(key(records[self.limit - 1]))
            query = [(k, v) for k, v in self._request.query_params.multi_items() if k != "cursor"]
            link = f"<{self._request.url.path}?{urlencode([*query, ('cursor', following)])}>"
            self._response.headers["Link"] = f'{link}; rel="next"'
        return Page(items=[shown(record) for record in records[: self.limit]], next=following)


PagingDep = Annotated[Paging, Depends()]


def _written(key: Key) -> str:
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    text = json.dumps(values, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(value: Any, kind: type) -> Any:
    """A key's value as it was written, or an error."""
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(value)
        return moment
    if kind is int and type(value) is int and abs(value) < 2**62:
        return value
    if kind is str and isinstance(value, str) and "\x00" not in value:
        value.encode("utf-8")  # half a surrogate pair is refused here rather than by the database
        return value
    raise ValueError(value)
