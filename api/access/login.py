"""Logging in and out: a browser shows a token once and gets a session's cookie for it."""

from __future__ import annotations

import asyncio
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.access.callers import SESSION_COOKIE, TOKEN_START, Caller, Callers
from api.access.policy import AccessPolicy
from api.dependencies import ArchiveDep
from api.pages.rendering import form_texts, render

router = APIRouter(include_in_schema=False)

Next = Annotated[str, Query(max_length=2000)]


@router.get("/login")
def login_page(request: Request, next: Next = "") -> HTMLResponse:
    """The form for a token."""
    return render(request, "login.html", next=local(next), fault="")


@router.post("/login")
async def log_in(
    request: Request, archive: ArchiveDep, texts: Annotated[dict[str, str], Depends(form_texts)]
) -> Response:
    """Open a session for a good token, or show the form again."""
    wanted, token = local(texts.get("next", "")), texts.get("token", "").strip()
    record = await asyncio.to_thread(archive.tokens.shown, token) if token.startswith(TOKEN_START) else None
    if record is None:
        fault = "No such token, or it is revoked or expired." if token else "Enter a token."
        return render(request, "login.html", 422, next=wanted, fault=fault)
    policy: AccessPolicy = request.state.access
    request.state.caller = Caller("session", record.name, record.scope, record.id)
    session = await asyncio.to_thread(archive.tokens.open_session, record, policy.session)
    response = RedirectResponse(wanted, 303, {"Cache-Control": "no-store"})
    response.set_cookie(
        SESSION_COOKIE,
        session,
        max_age=int(policy.session.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return response


@router.post("/logout", dependencies=[Depends(form_texts)])
def log_out(request: Request, archive: ArchiveDep) -> RedirectResponse:
    """End the session."""
    caller: Caller = request.state.caller
    callers: Callers = request.state.callers
    if caller.session is not None:
        archive.tokens.close_session(caller.session)
        callers.forget(caller.session)
    response = RedirectResponse("/login", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return response


def local(address: str) -> str:
    """An address of this service to go to; the start page for anything that could lead elsewhere."""
    parts = urlsplit(address)
    plain = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if plain and not parts.scheme and not parts.netloc else "/"
