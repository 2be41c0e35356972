"""What may be reached: kinds of addresses, ways to disguise one, redirects, names that change, keys."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import httpx2
import pytest

from env.backends.openai_transport import open_http_client
from env.egress import (
    OPERATOR,
    AsyncGuardedTransport,
    Egress,
    EgressError,
    GuardedTransport,
    checked_url,
    kind_of,
    obeying,
)
from env.errors import ApportionError
from env.spec import StudySpec
from env.spec.check import check_study
from env.spec.study import ProposerSpec
from planner.proposers.agent.settings import NO_KEY, resolve_llm
from planner.schedules.webhooks import check_url, deliver
from tests.api.service import tiny_spec

STRICT = Egress.strict()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("93.184.216.34", "public"),
        ("2606:2800:220:1::1", "public"),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("198.18.0.1", "private"),
        ("169.254.169.254", "never"),
        ("169.254.0.9", "never"),
        ("fe80::1", "never"),
        ("fd00:ec2::254", "never"),
        ("100.100.100.200", "never"),
        ("168.63.129.16", "never"),
        ("::ffff:169.254.169.254", "never"),
        ("224.0.0.1", "never"),
        ("ff02::1", "never"),
        ("255.255.255.255", "never"),
        ("0.1.2.3", "never"),
    ],
)
def test_every_address_is_of_a_kind(address: str, kind: str) -> None:
    assert kind_of(ipaddress.ip_address(address)) == kind


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/v1",
        "http://localhost:8000/v1",
        "http://LOCALHOST./v1",
        "http://127.1/v1",
        "http://2130706433/v1",
        "http://0x7f000001/v1",
        "http://0/v1",
        "http://[::1]/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://10.0.0.1/v1",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/v1",
        "ftp://93.184.216.34/",
        "file:///etc/passwd",
        "http:///v1",
        "http://93.184.216.34:port/v1",
        "http://user:secret@93.184.216.34/v1",
        "http://93.184.216.34@127.0.0.1/v1",
    ],
)
def test_what_others_send_may_not_lead_inside_however_it_is_written(url: str) -> None:
    with pytest.raises(EgressError) as caught:
        STRICT.checked_url(url)
    assert "secret" not in str(caught.value)


def test_public_servers_and_names_that_do_not_resolve_pass() -> None:
    assert STRICT.checked_url("https://93.184.216.34/v1") == "https://93.184.216.34/v1"
    assert STRICT.checked_url("https://nowhere.invalid/v1")


def test_the_operators_own_commands_reach_all_but_metadata() -> None:
    for url in ("http://127.0.0.1:1/v1", "http://10.0.0.1/v1", "http://[fd12::1]/v1"):
        OPERATOR.checked_url(url)
    with pytest.raises(EgressError):
        OPERATOR.checked_url("http://169.254.169.254/v1")


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "10.0.0.1", "models.internal", ".internal"])
def test_the_operator_may_allow_networks_addresses_and_names(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_as(monkeypatch, "10.0.0.1")
    with pytest.raises(EgressError, match="APPORTION_ALLOWED_TARGETS"):
        STRICT.checked_url("http://models.internal/v1")
    Egress.strict([entry]).checked_url("http://models.internal/v1")
    resolve_as(monkeypatch, "10.0.0.1", "192.168.0.1")
    with pytest.raises(EgressError):
        Egress.strict([entry]).checked_url("http://other.example/v1")


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "http://x", "", "a:b"])
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="no host name, IP address or network"):
        Egress.strict([entry])


def test_one_inner_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_as(monkeypatch, "93.184.216.34", "127.0.0.1")
    with pytest.raises(EgressError):
        STRICT.checked_url("http://mixed.example/v1")


class Asked(BaseHTTPRequestHandler):
    """Notes what it is asked; /away leads to /inside on another loopback address."""

    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:{self.server.server_address[1]}/inside")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """A server on every loopback address: its port, and the paths it was asked for."""
    paths: list[str] = []
    handler = type("Handler", (Asked,), {"paths": paths})
    with ThreadingHTTPServer(("0.0.0.0", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1], paths
        running.shutdown()


def resolve_as(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name leads to these addresses."""
    original = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0))) for address in addresses]
        return original(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def resolve_in_turn(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """A name leads to the first address once, then to the next (DNS rebinding); what is left of them."""
    left = list(addresses)

    def answer(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return left


def fetch(url: str, policy: Egress | None, streams: bool = False) -> int:
    async def ask() -> int:
        async with open_http_client(url, 1, 5.0, policy, streams) as client:
            return (await client.get(url)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("streams", [False, True])
def test_a_models_server_that_redirects_inside_is_not_followed(server: tuple[int, list[str]], streams: bool) -> None:
    port, paths = server
    policy = Egress.strict(["127.0.0.1"])
    with pytest.raises(httpx2.ConnectError, match=r"127\.0\.0\.2 is at a loopback address"):
        fetch(f"http://127.0.0.1:{port}/away", policy, streams)
    assert paths == ["/away"]
    assert fetch(f"http://127.0.0.1:{port}/away", None, streams) == 200, "the operator's own server is followed"


@pytest.mark.parametrize("streams", [False, True])
def test_a_name_that_changes_between_check_and_connection_gets_no_request(
    server: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    port, paths = server
    resolve_in_turn(monkeypatch, "93.184.216.34", "127.0.0.1")
    with pytest.raises(httpx2.ConnectError, match="loopback"):
        fetch(f"http://rebound.example:{port}/secret", STRICT, streams)
    assert paths == []


def test_a_webhooks_transport_connects_to_the_address_it_checked(
    server: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, paths = server
    # checked, checked again and pinned: the third answer is never asked for.
    left = resolve_in_turn(monkeypatch, "127.0.0.1", "127.0.0.1", "127.0.0.3")
    with httpx.Client(transport=GuardedTransport(Egress.strict(["127.0.0.1"]))) as client:
        answer = client.get(f"http://hook.example:{port}/hook")
        assert answer.status_code == 200
        assert str(answer.request.url) == f"http://hook.example:{port}/hook"
    assert (paths, left) == (["/hook"], ["127.0.0.3"])


def test_the_asynchronous_transport_pins_too(server: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, paths = server
    left = resolve_in_turn(monkeypatch, "127.0.0.1", "127.0.0.1", "127.0.0.3")

    async def ask(policy: Egress) -> int:
        async with httpx.AsyncClient(transport=AsyncGuardedTransport(policy)) as client:
            return (await client.get(f"http://hook.example:{port}/hook")).status_code

    assert asyncio.run(ask(Egress.strict(["127.0.0.1"]))) == 200
    assert (paths, left) == (["/hook"], ["127.0.0.3"])
    with pytest.raises(EgressError):
        asyncio.run(ask(Egress.strict(["127.0.0.1"])))


def test_a_schedules_webhook_goes_where_the_operator_allows(
    server: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = server
    url = f"http://127.0.0.1:{port}/hook"

    def delivered() -> str:
        return asyncio.run(deliver(url, "HOOK", "run", "{}", {"HOOK": "s3cret"})).error

    assert "loopback address" in delivered(), "on this machine too: a webhook is stored and called by itself"
    with pytest.raises(ApportionError, match="APPORTION_ALLOWED_TARGETS"):
        check_url(url)
    monkeypatch.setenv("APPORTION_WEBHOOK_HOSTS", "hooks.example, 127.0.0.1")
    assert delivered() == "the receiver answered 501"
    monkeypatch.delenv("APPORTION_WEBHOOK_HOSTS")
    with obeying(Egress.strict(["127.0.0.0/8"])):
        assert delivered() == "the receiver answered 501"


def test_a_webhook_is_not_redirected_inside(server: tuple[int, list[str]]) -> None:
    port, paths = server
    transport = GuardedTransport(Egress.strict(["127.0.0.1"]))
    with httpx.Client(transport=transport, follow_redirects=True) as client, pytest.raises(EgressError):
        client.get(f"http://127.0.0.1:{port}/away")
    assert paths == ["/away"]


def test_a_webhooks_transport_goes_by_the_policy_of_the_process(server: tuple[int, list[str]]) -> None:
    port, paths = server
    with httpx.Client(transport=GuardedTransport()) as client:
        with obeying(STRICT), pytest.raises(EgressError):
            client.get(f"http://127.0.0.1:{port}/")
        assert client.get(f"http://127.0.0.1:{port}/").status_code == 200
    assert paths == ["/"]


def spec_with(**model: object) -> StudySpec:
    raw = tiny_spec()
    raw["pipeline"]["models"]["tiny"] = {"backend": "openai", "model": "m", "parameters": 1e9, **model}
    return StudySpec.model_validate(raw)


def faults(spec: StudySpec) -> dict[str, str]:
    return {fault.path: fault.message for fault in check_study(spec) if "checkpoint" not in fault.path}


def test_a_spec_is_refused_where_its_server_or_its_key_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "s3cr3t")
    inside = spec_with(base_url="http://10.0.0.1/v1")
    greedy = spec_with(base_url="http://93.184.216.34/v1", api_key_env="CLOUD_SECRET")
    with obeying(STRICT):
        assert list(faults(inside)) == ["pipeline.models.tiny.base_url"]
        assert list(faults(greedy)) == ["pipeline.models.tiny.api_key_env"]
        with pytest.raises(EgressError):
            checked_url("http://10.0.0.1/v1")
    with obeying(Egress.strict(keys=["CLOUD_SECRET@93.184.216.34"])):
        assert faults(greedy) == {}
        elsewhere = spec_with(base_url="http://93.184.216.35/v1", api_key_env="CLOUD_SECRET")
        assert list(faults(elsewhere)) == ["pipeline.models.tiny.api_key_env"]
    assert faults(inside) == faults(greedy) == {}, "the operator's own commands may"


def test_the_agents_llm_of_a_spec_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tiny_spec(proposer={"kind": "agent", "model": "m", "base_url": "http://10.0.0.1/v1", "api_key_env": "SECRET"})
    with obeying(STRICT):
        assert set(faults(StudySpec.model_validate(raw))) >= {"proposer.base_url", "proposer.api_key_env"}


def test_the_operators_own_key_goes_to_no_server_that_a_spec_names() -> None:
    environ = {"OPENAI_API_KEY": "sk-own", "APPORTION_LLM_MODEL": "m", "APPORTION_LLM_BASE_URL": "http://127.0.0.1/v1"}

    def key(**fields: Any) -> str:
        found = resolve_llm(ProposerSpec(**fields), environ)
        assert found is not None
        return found.api_key

    with obeying(STRICT):
        assert key() == "sk-own"
        assert key(base_url="http://93.184.216.34/v1") == NO_KEY
        with pytest.raises(EgressError):
            key(base_url="http://93.184.216.34/v1", api_key_env="OPENAI_API_KEY")
    with obeying(Egress.strict(keys=["OPENAI_API_KEY@93.184.216.34"])):
        assert key(base_url="http://93.184.216.34/v1") == "sk-own"
    assert key(base_url="http://93.184.216.34/v1") == "sk-own"
