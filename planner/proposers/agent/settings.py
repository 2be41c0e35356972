"""Which LLM the agent talks to: from the study's spec, else from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from env.errors import ApportionError
from env.spec.study import ProposerSpec

MODEL_VARIABLE = "APPORTION_LLM_MODEL"
BASE_URL_VARIABLE = "APPORTION_LLM_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"

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


def resolve_llm(spec: ProposerSpec, environ: Mapping[str, str]) -> LlmSettings | None:
    """The agent's LLM, or None where none is configured.

    The spec's fields come first, then APPORTION_LLM_MODEL and APPORTION_LLM_BASE_URL. The key is the value of the
    variable that `api_key_env` names, or of OPENAI_API_KEY where it names none. Without a base URL OpenAI's own is
    meant, which needs a key; any other server is asked without one where there is none.

    Raises:
        ApportionError: APPORTION_LLM_BASE_URL is not an http(s) URL.
    """
    model = spec.model or environ.get(MODEL_VARIABLE, "").strip()
    base_url = spec.base_url or environ.get(BASE_URL_VARIABLE, "").strip() or None
    key = environ.get(spec.api_key_env or KEY_VARIABLE, "").strip()
    if not model or (base_url is None and not key):
        return None
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ApportionError(f"{BASE_URL_VARIABLE} must start with http:// or https://, e.g. http://127.0.0.1:8000/v1")
    return LlmSettings(model, base_url, key or NO_KEY, spec.timeout_s)
