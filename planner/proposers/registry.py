"""Opens a proposer by its name: those that ship with Apportion, and those that installed packages register."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from env.errors import ApportionError
from env.spec.study import BUILT_IN_PROPOSERS
from planner.proposers._base import Proposer
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.experience import PastTask
from planner.space import SearchSpace

if TYPE_CHECKING:
    from planner.proposers.agent.accounts import Accounts
    from planner.proposers.agent.settings import LlmSettings

GROUP = "apportion.proposers"
"""The entry-point group that packages register proposers in: ``name = "module:opener"``."""

RIVALS = "planner.proposers.rivals"

_OPENERS = {
    "auto": "planner.proposers.registry:_open_auto",
    "agent": "planner.proposers.registry:_open_agent",
    "insight": "planner.proposers.registry:_open_insight",
    "random": "planner.proposers.registry:_open_random",
    "grid": f"{RIVALS}.grid:GridProposer",
    "tpe": f"{RIVALS}.tpe:TpeProposer",
    "gp": f"{RIVALS}.gp:GpProposer",
    "evolution": f"{RIVALS}.evolution:EvolutionProposer",
    "llmselector": f"{RIVALS}.llmselector:LlmSelectorProposer",
    "zero_shot": f"{RIVALS}.zero_shot:ZeroShotProposer",
    "agenthpo": f"{RIVALS}.agenthpo:AgentHpoProposer",
    "mlcopilot": f"{RIVALS}.mlcopilot:MlCopilotProposer",
    "agenttts_paper": f"{RIVALS}.agenttts_paper:AgentTtsPaperProposer",
}
"""Where each built-in proposer is, imported only when it is asked for."""

_NO_LLM = frozenset({"insight", "random", "grid", "tpe", "gp", "evolution", "llmselector"})
_NEEDS = {"tpe": ("optuna", "bo"), "gp": ("optuna", "bo")}
"""Kind -> the package it cannot do without, and the extra that installs it."""

_METHODS = ("initial", "reflect", "propose", "close")


def no_experience() -> Sequence[PastTask]:
    """Nothing is known from earlier studies."""
    return ()


@dataclass(frozen=True)
class ProposerSetup:
    """Everything a proposer may need to be opened."""

    space: SearchSpace
    """The allocations it may suggest, and what each costs."""

    seed: int = 0
    """Of the study: equal histories and seeds give equal proposals."""

    batch: int = 4
    """Allocations the loop asks for in a round."""

    task: str = ""
    """What the pipeline is for, in its owner's words. Data, never an instruction to an LLM."""

    llm: LlmSettings | None = None
    """The LLM that is configured, if one is."""

    tokens_left: Callable[[], int] | None = None
    """Tokens the LLM may still use, asked before each call; None is no limit."""

    ablation: Ablation = NOTHING
    """Parts of the method to leave out, for the agent and the insight policy."""

    experience: Callable[[], Sequence[PastTask]] = no_experience
    """Earlier studies, for proposers that learn from them; called only by those, as it reads the archive."""

    accounts: Accounts | None = None
    """The budget of a proposer's LLM, in tokens and money, and its memory in the archive; without them `tokens_left` is
    its limit."""

    def wanted_llm(self, kind: str) -> LlmSettings:
        """The LLM, for a proposer that cannot do without one.

        Raises:
            ApportionError: none is configured.
        """
        if self.llm is None:
            raise ApportionError(
                f"proposer.kind is {kind} but no LLM is configured: set proposer.model (and base_url, api_key_env) or "
                "APPORTION_LLM_MODEL, APPORTION_LLM_BASE_URL and OPENAI_API_KEY"
            )
        return self.llm


Opener = Callable[[ProposerSetup], Proposer]
"""What an entry point names: a class or function that takes the setup and returns a proposer."""


def proposer_kinds() -> tuple[str, ...]:
    """Every name that a spec may ask for: the built-in ones, then the registered ones by name."""
    return (*BUILT_IN_PROPOSERS, *sorted(set(_registered()) - set(BUILT_IN_PROPOSERS)))


def may_ask_llm(kind: str) -> bool:
    """Whether a proposer is given the configured LLM; one that others registered always is."""
    return kind not in _NO_LLM


def proposer_problem(kind: str) -> str:
    """Why a proposer of this kind cannot be opened here; empty where it can. Imports it."""
    try:
        _opener(kind)
    except ApportionError as error:
        return str(error)
    return ""


def open_proposer(kind: str, setup: ProposerSetup) -> Proposer:
    """Open a proposer.

    Args:
        kind: a built-in name, or one that an installed package registers under `GROUP`.
        setup: what it may need.

    Raises:
        ApportionError: no such proposer, a package or an LLM it needs is missing, or its registration is at fault; the
            message names the distribution.
    """
    opener, source = _opener(kind)
    try:
        proposer = opener(setup)
    except ApportionError:
        raise
    except Exception as error:
        raise ApportionError(f"{source} could not be opened: {type(error).__name__}: {error}") from error
    missing = [name for name in _METHODS if not callable(getattr(proposer, name, None))]
    if not isinstance(getattr(proposer, "kind", None), str):
        missing.append("kind")
    if missing:
        raise ApportionError(f"{source} is no proposer: it has no {', '.join(missing)} (see docs/proposers.md)")
    return proposer


def _opener(kind: str) -> tuple[Opener, str]:
    """What opens a kind, and words for messages that say where it comes from."""
    entry = _entry(kind)
    source = f"proposer {kind!r}" if entry.dist is None else f"proposer {kind!r} of {_distribution(entry)}"
    try:
        opener: Any = entry.load()
    except Exception as error:
        raise ApportionError(f"{source} ({entry.value}) cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(opener):
        raise ApportionError(f"{source}: {entry.value} is a {type(opener).__name__}, not a class or function")
    return opener, source


def _entry(kind: str) -> EntryPoint:
    """The one entry point that a name stands for.

    Raises:
        ApportionError: there is none, or more than one claims the name.
    """
    claims = _registered().get(kind, [])
    if kind in BUILT_IN_PROPOSERS:
        if claims:
            raise ApportionError(
                f"{_distribution(claims[0])} registers a proposer {kind!r}, a name that is built in and cannot be "
                "overridden; rename its entry point, or uninstall it"
            )
        package, extra = _NEEDS.get(kind, ("", ""))
        if package and find_spec(package) is None:
            raise ApportionError(f"proposer {kind!r} needs {package}: pip install 'apportion[{extra}]'")
        return EntryPoint(kind, _OPENERS[kind], GROUP)
    if not claims:
        raise ApportionError(f"no proposer {kind!r}; there are {', '.join(proposer_kinds())}")
    if len(claims) > 1:
        owners = " and ".join(sorted(_distribution(entry) for entry in claims))
        raise ApportionError(f"{owners} both register a proposer {kind!r}; uninstall one of them")
    return claims[0]


def _registered() -> dict[str, list[EntryPoint]]:
    """Entry points by name; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _distribution(entry: EntryPoint) -> str:
    return "an unnamed distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


# How the proposers that are no rivals are opened; imported late, as the rest is.


def _open_auto(setup: ProposerSetup) -> Proposer:
    return _open_insight(setup) if setup.llm is None else _open_agent(setup)


def _open_agent(setup: ProposerSetup) -> Proposer:
    from planner.proposers.agent import AgentProposer

    return AgentProposer(
        setup.space,
        setup.wanted_llm("agent"),
        setup.task,
        setup.seed,
        setup.tokens_left,
        policy=_open_insight(setup),
        accounts=setup.accounts,
        ablation=setup.ablation,
    )


def _open_insight(setup: ProposerSetup) -> Proposer:
    from planner.proposers.insight import InsightProposer

    return InsightProposer(setup.space, setup.seed, setup.batch, ablation=setup.ablation)


def _open_random(setup: ProposerSetup) -> Proposer:
    from planner.proposers.random_proposer import RandomProposer

    return RandomProposer(setup.space, setup.seed, setup.batch)
