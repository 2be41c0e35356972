"""Writes a plan as one Python module that needs only `openai` and `langgraph`."""

from __future__ import annotations

import pprint
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from env.allocation import Allocation, StageSetting
from env.errors import TemplateError
from env.execution.environment import SAMPLING_KNOBS
from env.spec import StudySpec
from env.spec.pipeline import FleetModel, ModelSpec, OpenAIModel, TorchModel
from env.spec.stage import AfterParser, IdsParser, JsonParser, ParserSpec, RegexParser, StageSpec
from env.strategies import STRATEGIES as KNOWN
from env.strategies import StagePlan
from planner.export.strategies import PARSERS, SCORED, STRATEGIES
from planner.export.templates import NotStandalone, prompt_function
from planner.plans import PlanDocument, amount


@dataclass(frozen=True)
class _Stage:
    """One stage as the module has it."""

    spec: StageSpec
    setting: StageSetting
    remote: bool
    """It asks the plan endpoint, which runs the strategy."""


def plan_module(
    spec: StudySpec, document: PlanDocument, allocation: Allocation, ports: dict[str, int], plan: str, remote: bool
) -> str:
    """The source of the module.

    Args:
        spec: the study's.
        document: the plan's.
        allocation: what is written.
        ports: of the servers that serve.sh starts, by model.
        plan: the plan's id, which stages that ask the plan endpoint name.
        remote: whether stages that cannot be written here ask the plan endpoint; else they are refused.

    Raises:
        NotStandalone: a stage cannot be written, and may not ask the plan endpoint; the message names it and why.
    """
    stages = [_stage(spec, name, setting, remote) for name, setting in allocation.settings]
    parsers = dict.fromkeys(stage.spec.parser.kind for stage in stages)
    used = dict.fromkeys(s.setting.strategy for s in stages if not s.remote and s.setting.samples > 1)
    parts = [
        _head(document, plan),
        _servers(spec, stages, ports),
        *(_tidy(PARSERS[kind]) for kind in parsers),
        _tidy(_DRAWING),
        _tidy(_SCORING) if SCORED & used.keys() else "",
        *(_tidy(STRATEGIES[name]) for name in used),
        _tidy(_REMOTE) if any(stage.remote for stage in stages) else "",
        *(_stage_functions(stage, plan) for stage in stages),
        _graph(stages),
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _stage(spec: StudySpec, name: str, setting: StageSetting, remote: bool) -> _Stage:
    stage = spec.pipeline.stage(name)
    reason = _not_standalone(spec, stage, setting)
    if reason and not remote:
        raise NotStandalone(
            f"stage {name} cannot be written as plain Python: {reason}; let it ask the plan endpoint instead "
            "(--remote, or remote=true)"
        )
    return _Stage(stage, setting, bool(reason))


def _not_standalone(spec: StudySpec, stage: StageSpec, setting: StageSetting) -> str:
    """Why a stage's strategy cannot be in the module; empty where it can."""
    if not isinstance(spec.pipeline.models[setting.model], TorchModel | OpenAIModel | FleetModel):
        return f"model {setting.model} is replayed from recorded draws"
    model = spec.pipeline.models[setting.model]
    if isinstance(model, OpenAIModel | FleetModel) and model.api != "chat":
        return f"model {setting.model} is asked by another API than chat completions ({model.api})"
    if setting.samples == 1:
        return ""
    if setting.strategy not in STRATEGIES:
        return f"the strategy {setting.strategy}"
    if setting.strategy in SCORED:
        return _not_scored(stage, spec.pipeline.models[stage.verifier or ""])
    return ""


def _not_scored(stage: StageSpec, verifier: ModelSpec) -> str:
    if isinstance(verifier, TorchModel):
        return ""
    plain = isinstance(verifier, OpenAIModel | FleetModel) and verifier.api == "classify" and verifier.label is None
    if plain and getattr(verifier, "scores", "") == "probability":
        return ""
    return f"the verifier {stage.verifier}, which is not asked by /classify for one probability"


def _head(document: PlanDocument, plan: str) -> str:
    test = document.test_score
    score = (
        "its test score is not known"
        if test is None
        else (
            f"it scored {test.estimate:.3f} on {test.examples} sealed test examples (95% interval {test.low:.3f} to "
            f"{test.high:.3f})"
        )
    )
    lines = [
        f"Plan {plan} of study {document.provenance.study}, as Python on LangGraph.",
        "",
        f"Found by Apportion {document.provenance.apportion}: {score},",
        f"at a predicted {amount(document.predicted_cost, document.unit)} a query. Needs the packages openai and",
        "langgraph, and the model servers of SERVERS (serve.sh starts those of this machine).",
        "",
        '    python plan.py \'{"field": "value"}\'      # or: from plan import answer',
    ]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}\n"""\n\nfrom __future__ import annotations\n' + _tidy(_IMPORTS)


def _servers(spec: StudySpec, stages: list[_Stage], ports: dict[str, int]) -> str:
    names: dict[str, None] = {}
    for stage in stages:
        if stage.remote:
            continue
        names[stage.setting.model] = None
        if stage.setting.strategy in SCORED and stage.setting.samples > 1 and stage.spec.verifier:
            names[stage.spec.verifier] = None
    entries = {name: _server(name, spec.pipeline.models[name], ports) for name in names}
    return (
        "SERVERS: dict[str, dict[str, str]] = "
        + pprint.pformat(entries, sort_dicts=False, width=110)
        + '\n"""Where each model is asked: the URL (the variable PLAN_URL_<MODEL> comes first), its name there, and\n'
        + 'the variable that holds the key."""'
    )


def _server(name: str, model: ModelSpec, ports: dict[str, int]) -> dict[str, str]:
    if isinstance(model, OpenAIModel):
        return {"url": model.base_url, "model": model.model, "key": model.api_key_env or ""}
    served = model.model if isinstance(model, FleetModel) else name
    return {"url": f"http://127.0.0.1:{ports[name]}/v1", "model": served, "key": ""}


def _stage_functions(stage: _Stage, plan: str) -> str:
    spec, setting = stage.spec, stage.setting
    parts, calls = [], []
    for number, message in enumerate(spec.prompt):
        alone = sum(other.role == message.role for other in spec.prompt) == 1
        name = f"prompt_{spec.name}_{message.role}" + ("" if alone else f"_{number}")
        try:
            parts.append(prompt_function(name, message.template))
        except (NotStandalone, TemplateError) as error:
            raise NotStandalone(f"stage {spec.name}: the {message.role} prompt uses {error}") from None
        calls.append(f'{{"role": "{message.role}", "content": {name}(v)}}')
    knobs = {k: value for k, value in setting.knobs if "." not in k and k not in SAMPLING_KNOBS}
    parts.append(f"def parse_{spec.name}(text: str) -> Any:\n    return {_parser_call(spec.parser)}\n")
    empty = "[]" if spec.parser.kind == "ids" else '""'
    merged = f"v = {{**v, **{knobs!r}}}\n    " if knobs else ""
    listed = ",\n        ".join(calls)
    body = _remote_body(stage, plan) if stage.remote else _local_body(stage)
    parts.append(
        f"def stage_{spec.name}(state: State) -> State:\n"
        f'    """{setting.model}, {setting.strategy}, {setting.samples} '
        f'{"sample" if setting.samples == 1 else "samples"}."""\n'
        f'    v = {{**state["input"], **state["seen"]}}\n    {merged}'
        f"messages = [\n        {listed},\n    ]\n"
        f"{body}"
        f"    answer = None if chosen is None else json.loads(chosen)\n"
        f'    seen = {{**state["seen"], "{spec.name}": {empty} if answer is None else answer}}\n'
        f'    return {{**state, "seen": seen, "answer": answer}}\n'
    )
    return "\n\n\n".join(part.strip("\n") for part in parts)


def _local_body(stage: _Stage) -> str:
    spec, setting = stage.spec, stage.setting

    def chosen(name: str, otherwise: Any) -> Any:
        value = setting.knob(name)
        return otherwise if value is None else value

    sampling = {
        "temperature": float(chosen("temperature", spec.temperature)),
        "top_p": float(chosen("top_p", spec.top_p)),
        "max_tokens": int(chosen("max_tokens", spec.max_tokens)),
        "stop": list(spec.stop),
    }
    lines = [
        f'    replies = draw("{setting.model}", messages, {setting.samples}, state["seed"], {sampling!r})',
        f"    answers = [canonical(parse_{spec.name}(reply.text)) for reply in replies]",
    ]
    if setting.samples == 1:
        lines.append("    chosen = answers[0]")
    elif setting.strategy in SCORED:
        lines.append(f'    scores = [score("{spec.verifier}", messages, reply.text) for reply in replies]')
        lines.append(f"    chosen = {setting.strategy}(answers, scores)")
    elif setting.strategy == "likeliest":
        per_token = StagePlan(spec, setting).whole(KNOWN["likeliest"], "per_token")
        value = "reply.logprob / max(1, reply.tokens)" if per_token else "reply.logprob"
        lines.append(f"    chosen = likeliest(answers, [{value} for reply in replies])")
    else:
        lines.append(f"    chosen = {setting.strategy}(answers)")
    return "\n".join(lines) + "\n"


def _remote_body(stage: _Stage, plan: str) -> str:
    name = stage.spec.name
    return f'    chosen = canonical(parse_{name}(ask_plan("stage:{plan}/{name}", messages, state["seed"])))\n'


def _parser_call(parser: ParserSpec) -> str:
    match parser:
        case AfterParser():
            return f"read_after(text, {parser.marker!r}, {parser.join!r})"
        case IdsParser():
            return f"read_ids(text, {parser.prefix!r})"
        case RegexParser():
            return f"read_regex(text, {parser.pattern!r})"
        case JsonParser():
            return f"read_json(text, {parser.field!r})"
        case _:
            return "read_text(text)"


def _graph(stages: list[_Stage]) -> str:
    names = [stage.spec.name for stage in stages]
    nodes = "\n".join(f'    builder.add_node("{name}_stage", stage_{name})' for name in names)
    ends = ["START", *(f'"{name}_stage"' for name in names), "END"]
    edges = "\n".join(f"    builder.add_edge({one}, {other})" for one, other in pairwise(ends))
    return _tidy(_GRAPH).replace("    # nodes", nodes).replace("    # edges", edges)


def _tidy(source: str) -> str:
    return source.strip("\n") + "\n"


_IMPORTS = """
import hashlib
import json
import os
import re
import secrets
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from openai import OpenAI
"""

_DRAWING = '''
@dataclass
class Reply:
    """One reply of a model."""

    text: str
    logprob: float
    tokens: int


class State(TypedDict):
    """What goes from stage to stage."""

    input: dict[str, Any]
    seen: dict[str, Any]
    answer: Any
    seed: int


@cache
def client(model: str) -> OpenAI:
    """The client of a model's server."""
    server = SERVERS[model]
    variable = "PLAN_URL_" + re.sub(r"\\W", "_", model).upper()
    key = os.environ.get(server["key"], "") if server["key"] else ""
    return OpenAI(base_url=os.environ.get(variable, server["url"]), api_key=key or "none")


def canonical(answer: Any) -> str | None:
    """One text per answer, so that equal answers are the same vote."""
    if answer is None:
        return None
    return json.dumps(answer, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def first_seed(messages: list[dict[str, str]], sampling: dict[str, Any], seed: int) -> int:
    """The seed of a prompt's first reply: different prompts draw different replies, the same ones draw them again."""
    asked = [[message["role"], message["content"]] for message in messages]
    how = [sampling["temperature"], sampling["top_p"], sampling["max_tokens"], sampling["stop"], seed]
    digest = hashlib.sha256(json.dumps([asked, how], ensure_ascii=False, separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**31 - 2**20)


def draw(model: str, messages: list[dict[str, str]], samples: int, seed: int, sampling: dict[str, Any]) -> list[Reply]:
    """Draw replies; a server that gives fewer than asked is asked again for the rest."""
    first = first_seed(messages, sampling, seed)
    replies: list[Reply] = []
    wanted = 1 if sampling["temperature"] == 0 else samples
    while len(replies) < wanted:
        reply = client(model).chat.completions.create(
            model=SERVERS[model]["model"],
            messages=messages,
            temperature=sampling["temperature"],
            top_p=sampling["top_p"],
            max_tokens=sampling["max_tokens"],
            stop=sampling["stop"] or None,
            seed=first + len(replies),
            n=wanted - len(replies),
            logprobs=True,
        )
        if not reply.choices:
            raise RuntimeError(f"{model} gave no reply")
        for choice in reply.choices[: wanted - len(replies)]:
            listed = (choice.logprobs.content or []) if choice.logprobs else []
            logprob = sum(token.logprob for token in listed) if listed else float("nan")
            replies.append(Reply(choice.message.content or "", logprob, len(listed)))
    return replies * samples if wanted < samples else replies
'''

_SCORING = '''
def score(model: str, messages: list[dict[str, str]], reply: str) -> float:
    """The verifier's probability that a reply is right (vLLM's /classify, one label)."""
    conversation = [*messages, {"role": "assistant", "content": reply}]
    url = str(client(model).base_url).rstrip("/").removesuffix("/v1") + "/classify"
    body = {"model": SERVERS[model]["model"], "messages": conversation, "use_activation": True}
    found: Any = client(model).post(url, body=body, cast_to=object)
    return float(found["data"][0]["probs"][0])
'''

_REMOTE = '''
@cache
def plan_endpoint() -> OpenAI:
    """The service that serves the plan; it runs the stages whose strategy is not written here."""
    return OpenAI(
        base_url=os.environ.get("APPORTION_BASE_URL", "http://127.0.0.1:8321/v1"),
        api_key=os.environ.get("APPORTION_TOKEN") or "none",
    )


def ask_plan(model: str, messages: list[dict[str, str]], seed: int) -> str:
    """A stage's reply."""
    reply = plan_endpoint().chat.completions.create(model=model, messages=messages, seed=seed)
    return reply.choices[0].message.content or ""
'''

_GRAPH = '''
def build() -> Any:
    """The pipeline as a compiled graph."""
    builder = StateGraph(State)
    # nodes
    # edges
    return builder.compile()


def answer(fields: dict[str, Any], seed: int | None = None) -> Any:
    """Answer one query.

    Args:
        fields: what the prompts name.
        seed: the same one gives the same answer, where the servers honour seeds; None draws anew.
    """
    start: State = {"input": fields, "seen": {}, "answer": None, "seed": secrets.randbits(62) if seed is None else seed}
    return build().invoke(start)["answer"]


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)))
'''
