"""Completes the OpenAPI document: problems as they are sent, the tags' meaning, an example for every operation."""

from __future__ import annotations

from typing import Any

PROBLEM = {"$ref": "#/components/schemas/Problem"}
PROBLEM_MEDIA = "application/problem+json"

TAGS = {
    "studies": "One search each: submitted, found, followed, copied, annotated, cancelled and deleted.",
    "trials": "Allocations that were run, and what became of every example, down to single draws.",
    "plans": "What studies ended with: compared, exported, promoted to a name and served.",
    "spec": "The study spec: its schema, a check and a forecast that queue nothing.",
    "schedules": "Studies that are queued again and again.",
    "datasets": "Uploaded rows that studies read.",
    "pipelines": "Pipelines that studies have used, to use again.",
    "models": "Models that specs can name, and the servers they run on.",
    "service": "How the service is set, and who did what.",
    "plan endpoint": "Plans served in the protocol of OpenAI.",
    "health": "Whether the process and its archive answer.",
}

ANYWHERE = {
    "400": "The request cannot be read.",
    "401": "The service asks for an access token.",
    "403": "The token may not do this, or a page of another origin asks.",
    "421": "The Host header is none that this service answers on.",
    "422": "The request has faults; each names its field.",
    "429": "Too many requests; Retry-After says when to come back.",
    "500": "A fault of the service; its log has the details.",
    "503": "The archive cannot be reached, read or written.",
}
"""Problems that any operation below /api/v1 may be answered with."""

_EXAMPLES: dict[str, Any] = {
    "study_id": "3f2a9c41d0be",
    "other_id": "7b10c2d95e3a",
    "plan_id": "3f2a9c41d0be",
    "trial_no": 3,
    "example_id": "e1",
    "id": "3f2a9c41d0be",
    "name": "nightly",
    "stage": "solve",
    "model": "small",
    "digest": "a6fe3f2921edcece",
    "figure": "pareto",
    "unit": "FLOPs",
    "score": 0.914,
    "answer": '"42"',
    "notes": "The baseline for the new prompts.",
    "proposer": "insight",
    "phase": "execute",
    "round": 2,
    "path": "datasets/questions-9f2c1a7b03de.jsonl",
    "detail": "study 3f2a9c41d0be is running; cancel it first, or wait for its end",
    "title": "Conflict",
    "type": "about:blank",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "error": "",
    "next": None,
}
_MAX_DEPTH = 8


def documented(schema: dict[str, Any]) -> dict[str, Any]:
    """The document with what FastAPI cannot know of it."""
    components: dict[str, Any] = schema["components"]["schemas"]
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            if path.startswith("/api/v1"):
                _add_problems(operation)
            _send_problems(operation)
            _add_examples(operation, components)
    schema["tags"] = [{"name": name, "description": told} for name, told in TAGS.items()]
    return schema


def _add_problems(operation: dict[str, Any]) -> None:
    """State what every operation may be refused with; what a route says itself stays."""
    responses = operation.setdefault("responses", {})
    common = dict(ANYWHERE)
    if "requestBody" in operation:
        common |= {"413": "The body is too large.", "415": "The body is of another media type."}
    for status, told in common.items():
        known = responses.get(status, {})
        if status not in responses or "HTTPValidationError" in str(known.get("content", "")):
            responses[status] = {"description": told, "content": {PROBLEM_MEDIA: {"schema": PROBLEM}}}
    operation["responses"] = dict(sorted(responses.items()))


def _send_problems(operation: dict[str, Any]) -> None:
    """Problems have a media type of their own, and other kinds of answer that a route states are not theirs."""
    for response in operation.get("responses", {}).values():
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema") == PROBLEM:
            response["content"] = {PROBLEM_MEDIA: {"schema": PROBLEM}}


def _add_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        known = parameter.get("example", parameter.get("examples", parameter["schema"].get("examples")))
        if parameter["in"] == "path" and known is None:
            parameter["example"] = _example(parameter["schema"], components, parameter["name"])
    for status, response in operation.get("responses", {}).items():
        for media, content in response.get("content", {}).items():
            if status.startswith("2") and media == "application/json" and "example" not in content:
                content["example"] = _example(content.get("schema", {}), components)


def _example(schema: dict[str, Any], components: dict[str, Any], name: str = "", depth: int = 0) -> Any:
    """A value that the schema allows, telling where its name is known."""
    if "$ref" in schema:
        return _example(components[schema["$ref"].rpartition("/")[2]], components, name, depth + 1)
    for given in ("example", "default", "const"):
        if given in schema:
            return schema[given]
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        if depth > _MAX_DEPTH and {"type": "null"} in choices:
            return None
        return _example(choices[0], components, name, depth + 1)
    kind = schema.get("type")
    known = _EXAMPLES.get(name)
    match kind:
        case "object":
            inner = schema.get("properties", {})
            return {key: _example(part, components, key, depth + 1) for key, part in inner.items()}
        case "array":
            part = schema.get("items", {})
            return [] if depth > _MAX_DEPTH else [_example(part, components, name.removesuffix("s"), depth + 1)]
        case "integer":
            return known if isinstance(known, int) else max(1, int(schema.get("minimum", 1)))
        case "number":
            return known if isinstance(known, float) else 1.0
        case "boolean":
            return False
        case "string":
            if schema.get("format") == "date-time":
                return "2026-03-01T03:00:00Z"
            return known if isinstance(known, str) else "text"
        case _:
            return None
