"""The search loop as a LangGraph graph: initialise, execute, reflect, propose (and review), conclude."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from env.spans import span
from planner.loop.conclude import conclude
from planner.loop.context import StudyContext
from planner.loop.phases import MAX_ATTEMPTS, Phases
from planner.loop.steps import Steps


class LoopState(TypedDict):
    """All the graph carries: the archive has the rest."""

    round: int
    attempt: int
    ran: int
    """Trials of the last execution."""

    left: int
    """Trials the search budget still allows."""

    accepted: int
    wanted: int
    usable: bool
    quiet: int
    """Rounds in a row that began with too little to gain."""

    converged: bool


def build_graph(context: StudyContext, steps: Steps) -> Any:
    """The compiled graph of one study; every node runs one named step."""
    phases = Phases(context)

    async def initialise(state: LoopState) -> dict[str, Any]:
        accepted = await steps.run("initialise", phases.initialise)
        return {"accepted": accepted}

    async def execute(state: LoopState) -> dict[str, Any]:
        ran = await steps.run(f"execute-{state['round']}", phases.execute, state["round"])
        return {"ran": ran}

    async def reflect(state: LoopState) -> dict[str, Any]:
        left = await steps.run(f"reflect-{state['round']}", phases.reflect, state["round"])
        return {"round": state["round"] + 1, "attempt": 0, "left": left}

    async def propose(state: LoopState) -> dict[str, Any]:
        name = f"propose-{state['round']}-{state['attempt']}"
        result = await steps.run(name, phases.propose, state["round"], state["attempt"], state["quiet"])
        # A proposer that gave nothing at all is not asked twice: the insight policy fills in at once.
        following = state["attempt"] + 1 if result["usable"] else max(MAX_ATTEMPTS, state["attempt"] + 1)
        return {**result, "attempt": following}

    async def finish(state: LoopState) -> dict[str, Any]:
        await steps.run("conclude", conclude, context)
        return {}

    def after_execute(state: LoopState) -> str:
        return "reflect" if state["ran"] else "conclude"

    def after_reflect(state: LoopState) -> str:
        # From the step's recorded result, never from the archive: a replay after a crash must take the same way.
        return "propose" if state["left"] > 0 else "conclude"

    def after_propose(state: LoopState) -> str:
        if state["converged"]:
            return "conclude"
        if state["accepted"] >= state["wanted"] or state["attempt"] > MAX_ATTEMPTS:
            return "execute" if state["accepted"] else "conclude"
        return "propose"

    graph = StateGraph(LoopState)
    graph.add_node("initialise", initialise)
    graph.add_node("execute", execute)
    graph.add_node("reflect", reflect)
    graph.add_node("propose", propose)
    graph.add_node("conclude", finish)
    graph.add_edge(START, "initialise")
    graph.add_edge("initialise", "execute")
    graph.add_conditional_edges("execute", after_execute, ["reflect", "conclude"])
    graph.add_conditional_edges("reflect", after_reflect, ["propose", "conclude"])
    graph.add_conditional_edges("propose", after_propose, ["propose", "execute", "conclude"])
    graph.add_edge("conclude", END)
    return graph.compile()


async def run_loop(context: StudyContext, steps: Steps) -> None:
    """Run a study's loop to its end."""
    rounds = context.spec.budget.search.trials + 2
    start = LoopState(round=0, attempt=0, ran=0, left=0, accepted=0, wanted=0, usable=True, quiet=0, converged=False)
    with span("study", study=context.study_id, name=context.spec.name):
        await build_graph(context, steps).ainvoke(start, {"recursion_limit": 10 * rounds + 20})
