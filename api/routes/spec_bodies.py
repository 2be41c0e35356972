"""Study specs as request bodies: JSON or YAML, described in OpenAPI by the spec's own model."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, cast

import yaml
from fastapi import Depends, Request

from api.bodies import read_spec
from api.demo import demo_yaml
from api.problems import Problem, Refused
from env.spec import StudySpec

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
SPEC_REF = "#/components/schemas/StudySpec"

SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A study spec.",
        "content": {
            "application/json": {"schema": {"$ref": SPEC_REF}},
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read."},
    401: {"model": Problem, "description": "The service asks for an access token."},
    403: {"model": Problem, "description": "The token may not do this, or a page of another origin asks."},
    413: {"model": Problem, "description": "The body is too large."},
    421: {"model": Problem, "description": "The Host header is none that this service answers on."},
    422: {"model": Problem, "description": "The spec or a parameter has faults; nothing was queued."},
    503: {"model": Problem, "description": "The archive cannot be reached, read or written."},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such thing."},
    409: {"model": Problem, "description": "The id fits several studies."},
}
UNSUPPORTED: dict[int | str, dict[str, Any]] = {
    415: {"model": Problem, "description": "The body is of another media type than those described."}
}


class RawSpec:
    """A spec's body, not read yet: that is work for a thread."""

    def __init__(self, body: bytes, yaml_body: bool) -> None:
        self._body = body
        self._yaml = yaml_body

    def read(self) -> Any:
        """The plain data.

        Raises:
            SpecError: it cannot be parsed or holds what is no JSON.
        """
        return read_spec(self._body, self._yaml)


async def raw_spec(request: Request) -> RawSpec:
    """The body of a request with a spec.

    Raises:
        Refused: of another media type than JSON or YAML.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        return RawSpec(await request.body(), True)
    if kind == "application/json":
        return RawSpec(await request.body(), False)
    raise Refused(415, f"send the spec as application/json or application/yaml, not as {kind or 'nothing stated'!r}")


RawSpecDep = Annotated[RawSpec, Depends(raw_spec)]


@cache
def demo_data() -> dict[str, Any]:
    """The demo spec as plain data, not checked: it is an example even where the embedded weights are missing."""
    return cast(dict[str, Any], yaml.safe_load(demo_yaml()))


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the spec's model and its example to an OpenAPI document."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    spec = StudySpec.model_json_schema(ref_template="#/components/schemas/{model}")
    components.update(spec.pop("$defs"))
    components["StudySpec"] = spec
    for path in schema["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            if content.get("application/json", {}).get("schema") == {"$ref": SPEC_REF}:
                content["application/json"]["example"] = demo_data()
                content["application/yaml"]["example"] = demo_yaml()
    for name in ("ScheduleCreate", "ScheduleFields"):
        if name in components:
            components[name]["properties"]["spec"] = {"$ref": SPEC_REF}
    create = components.get("ScheduleCreate")
    if create is not None:
        create["example"] = {"name": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "spec": demo_data()}
    return schema
