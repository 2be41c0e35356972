"""Builds the web application: REST, live events and pages over one runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api import problems
from api.access import login
from api.access.guard import Guard
from api.access.policy import AccessPolicy
from api.completions import routes as completions
from api.completions.desk import Desk
from api.completions.errors import error_reply
from api.documenting import documented
from api.observing.metrics import Metrics
from api.observing.process import apportion_version
from api.observing.requests import ObservedRequests
from api.pages import install as install_pages
from api.pages.errors import problem_page
from api.routes import (
    audit,
    datasets,
    estimate,
    events,
    health,
    learnt,
    metrics,
    models,
    notes,
    pipelines,
    plans,
    reports,
    schedules,
    spec,
    studies,
    study_actions,
    trials,
)
from api.routes.spec_bodies import described
from api.settings import Settings
from planner.datasets import Limits
from planner.durable import Runtime

DESCRIPTION = (
    "Finds compute-optimal plans for multi-stage LLM pipelines. Submit a study spec, follow the search, take the plan. "
    "Everything that goes wrong is answered as problem details (RFC 9457) with one fault a field."
)


def create_app(
    runtime: Runtime,
    counted: Metrics | None = None,
    access: AccessPolicy | None = None,
    settings: Settings | None = None,
) -> FastAPI:
    """The application over a launched runtime; whoever launched it closes it.

    Handlers that touch the archive run on threads, so that the web loop is never held up.

    Args:
        runtime: launched.
        counted: the process's metrics; new ones that count requests only by default.
        access: who may ask; whoever is on this machine where not given.
        settings: limits of uploads and of the plan endpoint; from the environment by default.
    """
    settings = settings or Settings()
    uploads = Limits(settings.upload_bytes, settings.upload_rows)
    desk = Desk(runtime.archive, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Handlers share one interpreter lock: more of them at a time answer no sooner, keep the loop, and with it
        # /healthz, from its turn, and want more connections to the archive than are kept open.
        current_default_thread_limiter().total_tokens = settings.request_threads
        yield
        await desk.close()

    app = FastAPI(
        title="Apportion",
        version=apportion_version(),
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        lifespan=lifespan,
    )
    app.state.runtime = runtime
    app.state.desk = desk
    app.state.metrics = counted or Metrics(runtime.archive)
    app.state.uploads = uploads
    rest = APIRouter(prefix="/api/v1")
    for subject in (
        studies,
        study_actions,
        notes,
        trials,
        learnt,
        reports,
        events,
        schedules,
        spec,
        estimate,
        plans,
        audit,
    ):
        rest.include_router(subject.router)
    for subject in (pipelines, datasets, models):
        rest.include_router(subject.router)
    rest.include_router(events.everything)
    app.include_router(rest)
    app.include_router(completions.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(login.router)
    install_pages(app)
    problems.install(app, problem_page, error_reply)
    app.add_middleware(Guard, archive=runtime.archive, policy=access, max_upload=uploads.bytes, other=error_reply)
    app.add_middleware(ObservedRequests, metrics=app.state.metrics)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            plain = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            app.openapi_schema = documented(described(plain))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
