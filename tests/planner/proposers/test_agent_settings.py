"""Where the agent's LLM comes from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from env.errors import ApportionError
from env.spec.architecture import Price
from env.spec.study import ProposerSpec
from planner.proposers.agent import LlmSettings, resolve_llm

ENVIRON = {
    "APPORTION_LLM_MODEL": "from-environ",
    "APPORTION_LLM_BASE_URL": "http://environ:1/v1",
    "OPENAI_API_KEY": "sk-environ",
    "MY_KEY": "sk-mine",
}


def test_the_environment_is_used_where_the_spec_says_nothing() -> None:
    expected = LlmSettings("from-environ", "http://environ:1/v1", "sk-environ", 60.0, 2, 4096)
    assert resolve_llm(ProposerSpec(), ENVIRON) == expected


def test_the_spec_comes_first() -> None:
    spec = ProposerSpec(model="own", base_url="https://own/v1", api_key_env="MY_KEY", timeout_s=5)
    assert resolve_llm(spec, ENVIRON) == LlmSettings("own", "https://own/v1", "sk-mine", 5.0)


@pytest.mark.parametrize(
    ("spec", "environ"),
    [
        (ProposerSpec(), {}),
        (ProposerSpec(), {"OPENAI_API_KEY": "sk-a"}),
        (ProposerSpec(base_url="http://here/v1"), {}),
        (ProposerSpec(model="o3-mini"), {}),
        (ProposerSpec(model="o3-mini", api_key_env="MY_KEY"), {"OPENAI_API_KEY": "sk-a"}),
        (ProposerSpec(), {"APPORTION_LLM_MODEL": " ", "OPENAI_API_KEY": "sk-a"}),
    ],
)
def test_there_is_no_llm_without_a_model_or_without_a_key_for_openai(
    spec: ProposerSpec, environ: dict[str, str]
) -> None:
    assert resolve_llm(spec, environ) is None


def test_openai_itself_needs_no_url_and_other_servers_no_key() -> None:
    assert resolve_llm(ProposerSpec(model="o3-mini"), {"OPENAI_API_KEY": "sk-a"}) == LlmSettings(
        "o3-mini", None, "sk-a", 60.0
    )
    local = resolve_llm(ProposerSpec(model="qwen", base_url="http://here/v1"), {})
    assert local is not None
    assert local.api_key == "not-needed"


def test_a_base_url_that_is_none_is_refused_by_the_name_of_its_variable() -> None:
    with pytest.raises(ApportionError, match="APPORTION_LLM_BASE_URL"):
        resolve_llm(ProposerSpec(), {**ENVIRON, "APPORTION_LLM_BASE_URL": "here:8000"})


def test_the_key_is_not_in_the_representation() -> None:
    assert "sk-environ" not in repr(resolve_llm(ProposerSpec(), ENVIRON))


def test_importing_the_agent_does_not_import_the_client_library() -> None:
    code = "import sys, planner.proposers.agent; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limits_and_price_come_from_the_spec() -> None:
    spec = ProposerSpec(
        model="o3-mini",
        price={"input": 1.1, "output": 4.4, "cached_input": 0.55},  # type: ignore[arg-type]
        max_prompt_chars=20_000,
        max_completion_tokens=16_000,
        reasoning_effort="high",
        max_tool_calls=0,
    )
    llm = resolve_llm(spec, {"OPENAI_API_KEY": "sk-a"})
    assert llm is not None
    assert (llm.max_prompt_chars, llm.max_completion_tokens, llm.reasoning_effort) == (20_000, 16_000, "high")
    assert llm.tools is False
    assert llm.dollars(1_000_000, 500_000, cached_tokens=400_000) == pytest.approx(0.6 * 1.1 + 0.4 * 0.55 + 0.5 * 4.4)


def test_a_price_from_the_environment_holds_where_the_spec_states_none() -> None:
    priced = resolve_llm(ProposerSpec(), {**ENVIRON, "APPORTION_LLM_PRICE": "1.1, 4.4"})
    assert priced is not None
    assert priced.dollars(1_000_000, 1_000_000) == pytest.approx(5.5)
    own = resolve_llm(ProposerSpec(price=Price(input=2, output=3)), {**ENVIRON, "APPORTION_LLM_PRICE": "1,4"})
    assert own is not None
    assert own.dollars(1_000_000, 1_000_000) == pytest.approx(5)
    unknown = resolve_llm(ProposerSpec(), ENVIRON)
    assert unknown is not None
    assert unknown.dollars(10, 10) is None
    for wrong in ("cheap", "1", "1,2,3,4", "-1,2", "nan,1"):
        with pytest.raises(ApportionError, match="APPORTION_LLM_PRICE"):
            resolve_llm(ProposerSpec(), {**ENVIRON, "APPORTION_LLM_PRICE": wrong})
