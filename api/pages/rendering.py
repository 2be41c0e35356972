"""Renders templates: escaping on, the page's formats, assets with their version, the token against forged forms."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import plotly
from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.graph_objects import Figure

from api.access.callers import NOBODY, Caller
from api.pages.navigation import navigation
from api.problems import Refused
from env.secrets import redact
from planner.archive import TrialRecord
from planner.loop.conclude import TEST_TRIALS
from planner.plans import amount
from planner.plans.wording import count, duration, score, share, signed
from planner.schedules.revalidation import REVALIDATIONS

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
TOKEN_COOKIE = "apportion_form"
TOKEN_FIELD = "form_token"
FRESH = {"Cache-Control": "no-store"}


@cache
def environment() -> Environment:
    """The templates with what they may call. Everything they print is escaped."""
    env = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    env.globals.update(asset=asset, token_field=TOKEN_FIELD)
    env.filters.update(
        amount=amount,
        score=score,
        signed=signed,
        count=count,
        duration=duration,
        share=share,
        moment=_moment,
        number=_number,
    )
    return env


def render(request: Request, template: str, code: int = 200, **context: Any) -> HTMLResponse:
    """A page; its forms carry a token that belongs to the visitor's session, or else must match a cookie."""
    held = _form_token(request)
    token = held or secrets.token_urlsafe(24)
    visitor = _caller(request)
    html = (
        environment()
        .get_template(template)
        .render(
            token=token,
            path=request.url.path,
            visitor=visitor,
            scope=visitor.scope,
            navigation=navigation(request),
            **context,
        )
    )
    response = HTMLResponse(redact(html), code, {"Cache-Control": "no-store"})
    if not held:
        secure = request.url.scheme == "https"
        response.set_cookie(TOKEN_COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def form_texts(request: Request) -> dict[str, str]:
    """The texts of a submitted form.

    Raises:
        Refused: its token is not the visitor's, so that another page may have sent it.
    """
    async with request.form(max_files=0, max_fields=500) as form:
        texts = {key: value for key, value in form.items() if isinstance(value, str)}
    held = _form_token(request)
    sent = texts.pop(TOKEN_FIELD, "")
    if not held or not secrets.compare_digest(held.encode(), sent.encode()):
        raise Refused(403, "this form has expired: load its page again and send it once more")
    return texts


def _form_token(request: Request) -> str:
    """What a visitor's forms must carry; empty where the visitor has nothing yet."""
    session = _caller(request).session
    if session is not None:
        return hmac.new(session.encode(), b"form", hashlib.sha256).hexdigest()
    return request.cookies.get(TOKEN_COOKIE, "")


def _caller(request: Request) -> Caller:
    found: Caller = getattr(request.state, "caller", NOBODY)
    return found


def figures_response(figures: Mapping[str, Figure]) -> Response:
    """Figures by the id of their place, for the page's script."""
    return Response(figures_json(figures), media_type="application/json", headers=FRESH)


def figures_json(figures: Mapping[str, Figure]) -> str:
    """The same as text."""
    text = ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in figures.items())
    return f"{{{text}}}"


def asset(name: str) -> str:
    """URL of a file under static/, which changes with its content so that browsers may keep it for ever."""
    return f"/static/{name}?v={_version(name)}"


@cache
def _version(name: str) -> str:
    if name == "plotly.min.js":
        return str(plotly.__version__)
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def kept(response: Response) -> Response:
    """The same response, to be kept by browsers for ever."""
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


def _number(trial: TrialRecord) -> str:
    """A trial's number for people; those on the sealed split and re-validations are counted apart."""
    if trial.split == "revalidation":
        return f"re-validation {trial.trial_no - REVALIDATIONS + 1}"
    return f"test {trial.trial_no - TEST_TRIALS + 1}" if trial.split == "test" else str(trial.trial_no)
