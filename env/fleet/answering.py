"""What a server answers: health, its models, a warm-up, progress, sleep. All over HTTP, none of it trusted."""

from __future__ import annotations

from typing import Any

import httpx

from env.fleet.errors import FleetError, ServerError
from env.fleet.launching import Launch

_PROGRESS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


class Answering:
    """One server's HTTP side."""

    def __init__(self, launch: Launch) -> None:
        headers = {} if launch.api_key is None else {"Authorization": f"Bearer {launch.api_key}"}
        self._model = launch.model
        self._pooling = launch.pooling
        # A proxy of the environment is for the world outside, not for a server of our own.
        self._client = httpx.AsyncClient(base_url=launch.base_url, headers=headers, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def healthy(self, timeout: float) -> bool:
        """Whether /health answers 200 in time."""
        try:
            return (await self._client.get("/health", timeout=timeout)).status_code == 200
        except httpx.HTTPError:
            return False

    async def warm_up(self, timeout: float) -> None:
        """Check that it serves our model and let it compile what sampling needs.

        Raises:
            ServerError: it serves something else, or refuses a plain request.
            httpx.HTTPError: it does not answer.
        """
        listed = await self._client.get("/v1/models", timeout=timeout)
        names = [entry.get("id") for entry in _json(listed).get("data", [])]
        if self._model not in names:
            raise ServerError(f"{self._client.base_url} serves {names or 'nothing'}, not {self._model!r}")
        await self._ask(timeout, n=2, max_tokens=8, temperature=1.0, seed=1, logprobs=1)

    async def probe(self, timeout: float) -> bool:
        """Whether a one-token request comes through in time."""
        try:
            await self._ask(timeout, max_tokens=1, temperature=0.0)
        except (httpx.HTTPError, FleetError):
            return False
        return True

    async def progress(self, timeout: float) -> float | None:
        """Tokens the engine has processed since its start, by its metrics; None where it has none."""
        try:
            reply = await self._client.get("/metrics", timeout=timeout)
        except httpx.HTTPError:
            return None
        values = [float(line.rsplit(" ", 1)[1]) for line in reply.text.splitlines() if line.startswith(_PROGRESS)]
        return sum(values) if reply.status_code == 200 and values else None

    async def sleep(self, timeout: float) -> None:
        """Give the memory back, weights kept in the machine's memory (level 1).

        Raises:
            ServerError: it cannot.
        """
        await self._post("/sleep", timeout, params={"level": "1"})

    async def wake(self, timeout: float) -> None:
        """Take the memory again.

        Raises:
            ServerError: it cannot.
        """
        await self._post("/wake_up", timeout)

    async def _ask(self, timeout: float, **sampling: Any) -> None:
        """A small request to the model; a verifier, which draws nothing, reads one token."""
        # A token id instead of text: every vocabulary has the first few, whatever it spells.
        if self._pooling:
            await self._post("/pooling", timeout, json={"model": self._model, "input": [1]})
        else:
            await self._post("/v1/completions", timeout, json={"model": self._model, "prompt": [1], **sampling})

    async def _post(self, path: str, timeout: float, **content: Any) -> None:
        try:
            reply = await self._client.post(path, timeout=timeout, **content)
        except httpx.HTTPError as error:
            if path not in ("/sleep", "/wake_up"):
                raise
            raise ServerError(f"{path}: {type(error).__name__}") from error
        if reply.status_code != 200:
            raise ServerError(f"{path} answered {reply.status_code}: {reply.text[:300]}")


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        value = reply.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
