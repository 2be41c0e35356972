"""Which LLM the agent talks to: from the study's spec, else from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from env.costs.money import read_prices
from env.egress import Egress, EgressError, current
from env.errors import ApportionError
from env.spec.architecture import Price
from env.spec.study import ProposerSpec
from env.tasks.data import confined

MODEL_VARIABLE = "APPORTION_LLM_MODEL"
BASE_URL_VARIABLE = "APPORTION_LLM_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
PRICE_VARIABLE = "APPORTION_LLM_PRICE"
"""Input, output and perhaps cached input, in US dollars for a million tokens: ``1.1,4.4,0.55``."""

NO_KEY = "not-needed"
"""Sent to servers that want no key; the protocol's client insists on one."""


@dataclass(frozen=True)
class LlmSettings:
    """One LLM behind an OpenAI-compatible server, and how patient to be with it."""

    model: str
    base_url: str | None = None
    """None is OpenAI's own."""

    api_key: str = field(default=NO_KEY, repr=False)
    timeout_s: float = 60.0
    """Of one attempt, from sending the request to the last byte of the answer."""

    max_retries: int = 2
    """After timeouts, lost connections, 429 and 5xx."""

    max_completion_tokens: int = 4096
    temperature: float | None = None
    """Sent only where set; reasoning models refuse it."""

    max_prompt_chars: int = 60_000
    """Hard limit on the prompt, whatever the history; about a quarter as many tokens."""

    backoff_s: float = 0.5
    """Wait before the first retry, doubled each time; a server's Retry-After comes first."""

    reasoning_effort: str | None = None
    """Sent only where set."""

    tools: bool = True
    """Offered where the server takes them."""

    max_tool_calls: int = 6
    """In one round."""

    price: Price | None = None
    """None: what the LLM costs is not known, and no money is counted."""

    egress: Egress | None = field(default=None, compare=False, repr=False)
    """Which addresses may be reached; any where None, as for a URL that the operator states."""

    def dollars(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
        """What a call costs; thinking is billed as completion, and counted there by the servers that think."""
        if self.price is None:
            return None
        cached = self.price.input if self.price.cached_input is None else self.price.cached_input
        seen = min(cached_tokens, prompt_tokens)
        paid = (prompt_tokens - seen) * self.price.input + seen * cached + completion_tokens * self.price.output
        return paid / 1e6


def resolve_llm(spec: ProposerSpec, environ: Mapping[str, str]) -> LlmSettings | None:
    """The agent's LLM, or None where none is configured.

    The spec's fields come first, then APPORTION_LLM_MODEL and APPORTION_LLM_BASE_URL. The key is the value of the
    variable that `api_key_env` names, or of OPENAI_API_KEY where it names none. Without a base URL OpenAI's own is
    meant, which needs a key; any other server is asked without one where there is none.

    Raises:
        EgressError: the spec names a variable whose value it may not have sent.
        ApportionError: APPORTION_LLM_BASE_URL is not an http(s) URL, APPORTION_LLM_PRICE no price, or the price table
            cannot be read.
    """
    model = spec.model or environ.get(MODEL_VARIABLE, "").strip()
    base_url = spec.base_url or environ.get(BASE_URL_VARIABLE, "").strip() or None
    key = _key(spec, environ)
    if not model or (base_url is None and not key):
        return None
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ApportionError(f"{BASE_URL_VARIABLE} must start with http:// or https://, e.g. http://127.0.0.1:8000/v1")
    return LlmSettings(
        model,
        base_url,
        key or NO_KEY,
        spec.timeout_s,
        max_completion_tokens=spec.max_completion_tokens,
        max_prompt_chars=spec.max_prompt_chars,
        reasoning_effort=spec.reasoning_effort,
        tools=spec.tools and spec.max_tool_calls > 0,
        max_tool_calls=spec.max_tool_calls,
        egress=None if spec.base_url is None else current(),
        price=spec.price or _listed_price(spec.prices, model) or _stated_price(environ.get(PRICE_VARIABLE, "")),
    )


def _key(spec: ProposerSpec, environ: Mapping[str, str]) -> str:
    """The LLM's key. To a server that the spec names, the operator's own key is sent only where he allows it."""
    variable = spec.api_key_env or KEY_VARIABLE
    if spec.base_url is not None or spec.api_key_env is not None:
        try:
            current().check_key(variable, spec.base_url)
        except EgressError:
            if spec.api_key_env is not None:
                raise
            return ""
    return environ.get(variable, "").strip()


def _stated_price(text: str) -> Price | None:
    if not text.strip():
        return None
    try:
        figures = [float(part) for part in text.split(",")]
        fields = dict(zip(("input", "output", "cached_input"), figures, strict=False))
        if len(figures) not in (2, 3):
            raise ValueError("two or three figures are wanted")
        return Price.model_validate(fields)
    except ValueError as error:
        raise ApportionError(
            f"{PRICE_VARIABLE} must be dollars for a million tokens as input,output or input,output,cached input, for "
            f"instance 1.1,4.4,0.55; it is {text[:60]!r}"
        ) from error


def _listed_price(table: str | None, model: str) -> Price | None:
    return None if table is None else read_prices(confined(table)).get(model)
