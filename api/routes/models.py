"""Models a spec can name, and the servers they run on."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import NO_NUL, ArchiveDep
from api.paging import PagingDep
from api.routes.spec_bodies import PROBLEMS
from api.schemas import FleetPublic, FleetServerPublic, ModelPublic, Page
from env.costs.catalogue import catalogue
from env.embedded import CHECKPOINT_NAMES
from env.errors import ApportionError
from env.fleet import load_fleet
from env.fleet.load import FLEET_VARIABLE, FleetFile
from env.fleet.state import StateFile
from planner.archive import Archive

router = APIRouter(tags=["models"], responses=PROBLEMS)


@router.get("/models")
def list_known_models(
    archive: ArchiveDep,
    paging: PagingDep,
    name: Annotated[str, Query(max_length=200, pattern=NO_NUL, description="Part of the name.")] = "",
) -> Page[ModelPublic]:
    """Models: embedded ones, the fleet's, published ones of the catalogue, and those the archive has draws of."""
    found = [model for model in _models(archive) if name.lower() in model.name.lower()]
    found.sort(key=_key)
    after = paging.after(str, str, str)
    if after is not None:
        found = [model for model in found if _key(model) > after]
    return paging.page(found[: paging.wanted], _key, lambda model: model)


@router.get("/fleet")
def get_fleet() -> FleetPublic:
    """The operator's model servers: where each runs, its phase, restarts, and the time it took."""
    path = os.environ.get(FLEET_VARIABLE)
    if not path:
        return FleetPublic(configured=False)
    try:
        file = load_fleet(Path(path))
    except ApportionError as error:
        return FleetPublic(configured=True, problem=str(error))
    return _fleet(file)


def _key(model: ModelPublic) -> tuple[str, str, str]:
    return model.kind, model.name, model.revision


def _fleet(file: FleetFile) -> FleetPublic:
    names = list(file.spec.models)
    state = StateFile(file.folder).read()
    if state is None:
        return FleetPublic(configured=True, models=names)
    servers = [
        FleetServerPublic(
            model=server.model,
            phase=server.phase,
            alive=server.alive,
            url=server.url,
            devices=list(server.devices),
            restarts=server.restarts,
            load_seconds=server.load_seconds,
            reason=server.reason,
        )
        for server in state.servers
    ]
    return FleetPublic(
        configured=True,
        models=names,
        running=state.alive,
        owner=state.kind,
        updated=datetime.fromtimestamp(state.updated, UTC),
        servers=servers,
        loads=state.loads,
        load_seconds=state.load_seconds,
        wakes=state.wakes,
        wake_seconds=state.wake_seconds,
        inference_seconds=state.inference_seconds,
    )


def _models(archive: Archive) -> list[ModelPublic]:
    found = [ModelPublic(name=name, kind="embedded", source=f"embedded:{name}") for name in CHECKPOINT_NAMES]
    path = os.environ.get(FLEET_VARIABLE)
    if path:
        with suppress(ApportionError):  # `/fleet` says why
            found += [ModelPublic(name=name, kind="fleet") for name in load_fleet(Path(path)).spec.models]
    for name, entry in catalogue().items():
        total, active, source = entry.published.total, entry.published.active, entry.published.source
        model = ModelPublic(name=name, kind="published", parameters=total, active_parameters=active, source=source)
        found.append(model)
    found += [ModelPublic(name=m.name, kind="seen", revision=m.revision) for m in archive.bank.models()]
    return found
