"""Proposers by name: what ships, what an installed package registers, and what is said where that is at fault."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from env.errors import ApportionError
from env.spec import SpecError
from env.spec.study import BUILT_IN_PROPOSERS
from planner.archive import open_archive
from planner.check import validated_spec
from planner.history import History
from planner.proposers import ProposerSetup, open_proposer, proposer_kinds, registry
from planner.run import run_study
from planner.space import SearchSpace
from tests.proposer_cases import SPACES, setup
from tests.simulated import DiceBackends, simulated_spec

DOC = Path(__file__).parents[3] / "docs" / "proposers.md"
SPACE = SPACES["three stages"]

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution for one test: a module and its metadata, in a folder of its own on the path."""
    before = set(sys.modules)

    def add(distribution: str, entries: dict[str, str], module: str = "", source: str = "") -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
        if module:
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()

    yield add
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def from_the_doc(install: Install) -> None:
    """The example of docs/proposers.md, as it stands there."""
    text = DOC.read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", text, re.DOTALL))
    project = tomllib.loads(blocks["toml"])
    (module,) = project["tool"]["setuptools"]["py-modules"]
    install(project["project"]["name"], project["project"]["entry-points"][registry.GROUP], module, blocks["python"])


def spec_with(kind: str) -> dict[str, Any]:
    return {**simulated_spec().model_dump(mode="json"), "proposer": {"kind": kind, "batch": 3}}


def fault(kind: str) -> str:
    """What the check of a spec says of its proposer."""
    with pytest.raises(SpecError) as caught:
        validated_spec(spec_with(kind))
    (found,) = caught.value.faults
    assert found.path == "proposer.kind"
    return found.message


@pytest.mark.asyncio
async def test_a_study_runs_on_the_proposer_that_the_documentation_shows(install: Install, tmp_path: Path) -> None:
    from_the_doc(install)
    assert proposer_kinds()[-1] == "halving"
    spec = validated_spec(spec_with("halving"))
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        plan = await run_study(spec, archive, "s1", {}, DiceBackends())
        origins = [p.origin for p in archive.proposals.list("s1") if p.verdict == "accepted"]
        reasons = {p.reason for p in archive.proposals.list("s1")}
    assert plan.trials == 14
    assert plan.provenance.proposer == "halving"
    assert set(origins) == {"halving"}
    assert any("half its samples" in reason for reason in reasons)


def test_the_documentation_names_every_proposer() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert all(f"`{kind}`" in text for kind in BUILT_IN_PROPOSERS)


def test_a_proposer_of_another_package_is_imported_only_when_a_spec_asks_for_it(install: Install) -> None:
    install("loud", {"loud": "loud_module:open_it"}, "loud_module", "raise RuntimeError('imported')")
    assert "loud" in proposer_kinds()
    validated_spec(spec_with("random"))
    assert "loud_module" not in sys.modules
    assert "imported" in fault("loud")


def test_an_unknown_proposer_is_a_fault_that_lists_the_known_ones(install: Install) -> None:
    from_the_doc(install)
    message = fault("grit")
    assert "no proposer 'grit'" in message
    assert all(kind in message for kind in (*BUILT_IN_PROPOSERS, "halving"))


@pytest.mark.parametrize("kind", ["", "Random", "../etc", "a b", "x" * 65])
def test_what_can_be_no_name_is_a_fault_of_the_spec_itself(kind: str) -> None:
    assert "pattern" in fault(kind)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import there_is_no_such_module", "No module named 'there_is_no_such_module'"),
        ("x = 1", "AttributeError"),
        ("open_it = 3", "is a int, not a class or function"),
        ("def open_it(setup): raise ValueError('no licence')", "no licence"),
        ("def open_it(setup): return object()", "has no initial, reflect, propose, close, kind"),
    ],
    ids=["import", "attribute", "no callable", "raises", "no proposer"],
)
def test_a_broken_registration_is_refused_with_the_distributions_name(
    install: Install, source: str, words: str
) -> None:
    install("shaky-search", {"shaky": "shaky_module:open_it"}, "shaky_module", source)
    with pytest.raises(ApportionError, match=re.escape(words)) as caught:
        open_proposer("shaky", setup(SPACE))
    assert "shaky-search 1.0" in str(caught.value)


def test_a_name_that_is_built_in_cannot_be_taken(install: Install) -> None:
    install("impostor", {"random": "impostor_module:open_it"}, "impostor_module", "open_it = dict")
    assert proposer_kinds().count("random") == 1
    assert "impostor 1.0 registers a proposer 'random'" in fault("random")
    validated_spec(spec_with("grid"))


def test_a_name_that_two_distributions_claim_is_refused_with_both_names(install: Install) -> None:
    for name in ("left", "right"):
        install(f"{name}-search", {"twin": f"{name}_module:open_it"}, f"{name}_module", "open_it = dict")
    assert "left-search 1.0 and right-search 1.0 both register a proposer 'twin'" in fault("twin")


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_without_optuna_the_fault_names_the_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert fault(kind) == f"proposer '{kind}' needs optuna: pip install 'apportion[bo]'"


@pytest.mark.parametrize("kind", ["agent", "zero_shot", "agenthpo", "mlcopilot", "agenttts_paper"])
def test_a_proposer_that_needs_an_llm_is_not_opened_without_one(kind: str) -> None:
    with pytest.raises(ApportionError, match=f"kind is {kind} but no LLM is configured: set proposer.model"):
        open_proposer(kind, ProposerSetup(SPACE))


@pytest.mark.asyncio
async def test_auto_is_insight_without_an_llm_and_the_agent_with_one() -> None:
    assert open_proposer("auto", ProposerSetup(SPACE)).kind == "insight"
    assert open_proposer("auto", setup(SPACE, "http://127.0.0.1:9/v1")).kind == "agent"


@pytest.mark.asyncio
async def test_a_setup_needs_no_more_than_a_space() -> None:
    proposer = open_proposer("random", ProposerSetup(SearchSpace(simulated_spec())))
    assert len((await proposer.initial(History(0, ()))).proposals) == 4
