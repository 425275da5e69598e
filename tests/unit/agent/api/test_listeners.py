"""The API's sockets: who may connect, what is in the way, and how it ends."""

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.access.rights import OF_APP, Right
from agent.api import server as api_serving
from agent.api.listeners import (
    Listeners,
    load_or_make_token,
    open_door,
    open_tcp_socket,
    open_unix_socket,
)
from agent.api.route_rights import RIGHTS
from agent.api.routes import ROUTES
from agent.config.paths import Paths
from agent.config.settings import ApiSettings
from agent.exits import BAD_CONFIG, NO, AgentError
from agent.identity.identity import found
from agent.readiness import Stage
from edge_apps.client import AgentUnreachable, ApiError, Client
from tests.support.fake_agent import FakeAgent, Served, serving
from tests.support.patience import GIVE_UP_S

FOR_APPS = frozenset[Right]().union(*OF_APP.values())
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("directory_mode", "socket_mode"),
    [(0o700, 0o600), (0o750, 0o660), (0o755, 0o600), (0o711, 0o600)],
)
def test_socket_is_as_open_as_its_directory(
    tmp_path: Path, directory_mode: int, socket_mode: int
) -> None:
    tmp_path.chmod(directory_mode)
    with open_unix_socket(tmp_path / "s"):
        assert mode(tmp_path / "s") == socket_mode


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    open_unix_socket(path).close()
    assert path.exists()
    with open_unix_socket(path), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    with open_unix_socket(tmp_path / "s"):
        with pytest.raises(AgentError, match="already answers"):
            open_unix_socket(tmp_path / "s")
        assert (tmp_path / "s").exists()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AgentError, match="not a socket"):
        open_unix_socket(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="107 bytes") as caught:
        open_unix_socket(tmp_path / ("x" * 100) / "s")
    assert caught.value.status == BAD_CONFIG
    assert "--dir" in caught.value.hint


def test_an_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AgentError, match=r"\[api\] listen") as caught:
            open_tcp_socket("127.0.0.1", port)
    assert caught.value.status == BAD_CONFIG, "starting again would not mend it"


def test_an_address_that_may_come() -> None:
    with pytest.raises(AgentError, match=r"\[api\] listen") as caught:
        open_tcp_socket("192.0.2.77", 7748)
    assert caught.value.status == NO, "its interface may come up: the service tries again"


def test_listening_to_the_network_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with open_tcp_socket("0.0.0.0", free_port()):
        assert "without TLS" in caplog.text
    caplog.clear()
    with open_tcp_socket("127.0.0.1", free_port()):
        assert caplog.text == ""


def test_a_socket_that_is_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logout takes the runtime directory along, and the next login brings it back."""
    monkeypatch.setattr("agent.api.listeners.LOOK_S", 0.01)
    paths = Paths(tmp_path / "covey.toml", tmp_path / "data", tmp_path / "user" / "covey")
    paths.create()

    async def story() -> None:
        listeners = Listeners(FakeAgent().services(), paths, ApiSettings())
        await listeners.open()
        staying = asyncio.create_task(listeners.stay())
        client = Client(paths.socket, timeout_s=GIVE_UP_S)
        assert await asyncio.to_thread(client.get, "/api/v1/status")
        shutil.rmtree(paths.runtime.parent)
        paths.runtime.parent.touch()  # no directory can be made there
        await asyncio.sleep(0.05)
        assert not paths.socket.exists()
        paths.runtime.parent.unlink()
        async with asyncio.timeout(GIVE_UP_S):
            while not paths.socket.exists():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        assert await asyncio.to_thread(client.get, "/api/v1/status")
        paths.app_door.unlink()
        async with asyncio.timeout(GIVE_UP_S):
            while not paths.app_door.exists():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        assert await asyncio.to_thread(client.get, "/api/v1/status"), "the other is still there"
        paths.socket.unlink()
        other = open_unix_socket(paths.socket)
        await listeners.close()
        assert paths.socket.exists(), "that of another is not ours to remove"
        other.close()
        staying.cancel()

    asyncio.run(story())


# ---- the apps' door -----------------------------------------------------------------------------


def asked(served: Served, method: str, path: str, key: str) -> int:
    """Return the HTTP status that whoever has this key gets at the apps' door."""
    client = Client(served.paths.app_door, timeout_s=GIVE_UP_S, token=key)
    try:
        return client.request(method, path, json={}).status
    except ApiError as error:
        return error.status


def test_apps_show_their_key(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.agent.app_keys = {"k1": "scale"}
        assert asked(served, "GET", "/api/v1/members", "k1") == 200
        for wrong in ("", "k2", "Bearer", "k1x"):
            assert asked(served, "GET", "/api/v1/members", wrong) == 401
        assert Client(served.paths.socket, timeout_s=GIVE_UP_S).get("/api/v1/members")


def test_apps_do_what_apps_do(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.agent.app_keys = {"k1": "scale"}
        for method, path in ROUTES:
            filled = path.replace("{name}", "x").replace(":path", "")
            filled = filled.replace(":key}", "}").replace("{name}", "apps/scale/x")
            filled = filled.replace("control/{key}", "control/apps/scale/x")
            if filled in ("/api/v1/control", "/api/v1/locks", "/api/v1/changes"):
                filled += "?prefix=apps/scale/"
            status = asked(served, method, filled, "k1")
            assert (status == 403) == (RIGHTS[method, path] not in FOR_APPS), (method, path, status)
    kept_from_apps = {path.split("/")[3] for method, path in ROUTES if path.count("/") > 2
                      and RIGHTS[method, path] not in FOR_APPS}  # fmt: skip
    assert kept_from_apps >= {
        "access", "apps", "config", "doctor", "init", "join", "keys", "leave", "settings", "sleep",
        "tokens", "wake",
    }  # fmt: skip


def test_the_door_is_as_open_as_apps_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for are_apart, directory, door in ((False, 0o700, 0o600), (True, 0o711, 0o666)):
        path = tmp_path / str(are_apart) / "apps" / "apps.sock"
        path.parent.parent.mkdir(mode=0o700)
        monkeypatch.setattr("agent.api.listeners.may_be_apart", lambda each=are_apart: each)
        open_door(path).close()
        assert stat.S_IMODE(path.parent.stat().st_mode) == directory
        assert stat.S_IMODE(path.stat().st_mode) == door
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == directory


# ---- TCP ----------------------------------------------------------------------------------------


def get(
    port: int, authorization: str | None, path: str = "/api/v1/members"
) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
    headers = {"Authorization": authorization} if authorization is not None else {}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("WWW-Authenticate")


def test_tcp_wants_the_token(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        token = served.paths.api_token.read_text().strip()
        assert mode(served.paths.api_token) == 0o600
        assert get(port, f"Bearer {token}") == (200, None)
        assert get(port, f"bearer {token}") == get(port, f"BEARER  {token} ") == (200, None)
        for wrong in (None, "", token, f"Bearer {token}x", f"bearer{token}", "Bearer \xff"):
            assert get(port, wrong) == (401, "Bearer")
        assert Client(served.paths.socket).get("/healthz")["ready"]
        assert served.agent.metrics.counts()["api_errors/unauthorized"] == 6


def test_the_token_for_metrics_opens_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        token = served.paths.metrics_token.read_text().strip()
        assert mode(served.paths.metrics_token) == 0o600
        assert get(port, f"Bearer {token}", "/metrics") == (200, None)
        for path in ("/api/v1/members", "/healthz", "/api/v1/kv/metrics"):
            assert get(port, f"Bearer {token}", path) == (403, None)
        for path in ("/metrics/", "/metrics/../healthz", "/%6detrics/"):
            assert get(port, f"Bearer {token}", path) == (404, None)
        for wrong in (f"Bearer {token}x", "Bearer ", "Basic Og=="):
            assert get(port, wrong, "/metrics") == (401, "Bearer")
        assert served.agent.metrics.counts()["api_errors/not-permitted"] == 3


def test_token_stays_the_same(tmp_path: Path) -> None:
    token = load_or_make_token(tmp_path / "token")
    assert load_or_make_token(tmp_path / "token") == token
    assert len(token) > 40


def test_token_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    load_or_make_token(tmp_path / "token")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(AgentError, match="everybody may read"):
        load_or_make_token(tmp_path / "token")


def test_empty_token_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o600)
    with pytest.raises(AgentError, match="empty"):
        load_or_make_token(tmp_path / "token")


def test_who_says_nothing_holds_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token, and without a request, anybody could take all the agent's descriptors."""
    monkeypatch.setattr(api_serving, "CONNECTIONS_MAX", 5)
    monkeypatch.setattr(api_serving, "REQUEST_S", 2.0)
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        token = served.paths.api_token.read_text().strip()
        assert get(port, f"Bearer {token}") == (200, None)
        beginnings = (b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"", b"", b"", b"")
        opened = [socket.create_connection(("127.0.0.1", port), GIVE_UP_S) for _ in beginnings]
        for each, beginning in zip(opened, beginnings, strict=True):
            each.sendall(beginning)
        assert Client(served.paths.socket).get("/healthz")["ready"], "that socket has its own"
        for each in opened:
            with each, contextlib.suppress(ConnectionResetError):
                while each.recv(65536):
                    pass
        with socket.create_connection(("127.0.0.1", port), GIVE_UP_S) as second:
            second.sendall(ASKED[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode())
            while b"ready" not in second.recv(65536):
                pass
            second.sendall(b"G")  # and its next request never ends
            assert second.recv(65536) == b""
        assert get(port, f"Bearer {token}") == (200, None), "there is room again"
        counts = served.agent.metrics.counts()
        assert counts["api_connections/too_many"] == 2
        assert counts["api_connections/too_slow"] == 6


# ---- TLS ----------------------------------------------------------------------------------------


def get_by_tls(port: int, context: ssl.SSLContext, name: str, token: str) -> int:
    """Return the status that a client gets who knows the agent by this name."""
    connected = socket.create_connection(("127.0.0.1", port), GIVE_UP_S)
    with connected, context.wrap_socket(connected, server_hostname=name) as secured:
        secured.sendall(ASKED[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode())
        return int(secured.recv(65536).split(b" ")[1])


def test_with_tls_the_api_shows_the_node_s_certificate_and_speaks_nothing_else(
    tmp_path: Path,
) -> None:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}", tls=True)) as served:
        identity = found(tmp_path / "identity", "barn", "pi-1")
        served.agent.identity = identity  # type: ignore[assignment]
        token = served.paths.api_token.read_text().strip()
        ours = ssl.create_default_context(cadata=identity.trust.bundle)
        assert get_by_tls(port, ours, "pi-1", token) == 200
        assert get_by_tls(port, ours, "pi-1", token + "x") == 401
        for context, name in ((ours, "pi-2"), (ours, "127.0.0.1"), (None, "pi-1")):
            with pytest.raises(ssl.SSLCertVerificationError):
                get_by_tls(port, context or ssl.create_default_context(), name, token)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            get(port, f"Bearer {token}")
        assert Client(served.paths.socket).get("/healthz")["ready"], "no TLS on a Unix socket"
        issued = identity.certificate_file.read_bytes()
        other = found(tmp_path / "other", "barn", "pi-1")
        served.agent.identity = other  # type: ignore[assignment]
        renewed = ssl.create_default_context(cadata=other.trust.bundle)
        assert get_by_tls(port, renewed, "pi-1", token) == 200, "it is shown from then on"
        assert issued != other.certificate_file.read_bytes()


def test_an_agent_without_a_certificate_serves_nobody_in_the_clear_instead(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}", tls=True)) as served:
        served.agent.stage = Stage.WAITING
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            get(port, f"Bearer {served.paths.api_token.read_text().strip()}")
        assert served.agent.metrics.counts()["api_connections/handshake_failed"] == 1


def test_handshakes_that_do_not_end_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_serving, "HANDSHAKES_MAX", 3)
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}", tls=True)) as served:
        identity = found(tmp_path / "identity", "barn", "pi-1")
        served.agent.identity = identity  # type: ignore[assignment]
        token = served.paths.api_token.read_text().strip()
        ours = ssl.create_default_context(cadata=identity.trust.bundle)
        silent = [socket.create_connection(("127.0.0.1", port), GIVE_UP_S) for _ in range(5)]
        assert get_by_tls(port, ours, "pi-1", token) == 200
        for each in silent[:2]:
            assert each.recv(1) == b"", "the oldest gave way"
        assert served.agent.metrics.counts()["api_connections/too_many"] == 3
        for each in silent:
            each.close()


# ---- the end ------------------------------------------------------------------------------------


def test_closing_ends_open_streams_and_removes_the_socket(tmp_path: Path) -> None:
    ended: list[Any] = []

    def watch(path: Path) -> None:
        stream = Client(path).stream("/api/v1/watch", query={"prefix": ""})
        begun.set()
        ended.extend(stream)
        ended.append("end")

    begun = threading.Event()
    with serving(tmp_path) as served:
        watcher = threading.Thread(target=watch, args=[served.paths.socket], daemon=True)
        watcher.start()
        begun.wait(GIVE_UP_S)
        served.call(_until_watched(served))
    watcher.join(GIVE_UP_S)
    assert ended == ["end"], "the stream ended in order, not by a broken connection"
    assert not served.paths.socket.exists()
    with pytest.raises(AgentUnreachable):
        Client(served.paths.socket).get("/healthz")


async def _until_watched(served: Served) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while not served.agent.kv.watches_open:  # noqa: ASYNC110  a plain number
            await asyncio.sleep(0.01)


def test_signals_stay_with_the_agent(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with serving(tmp_path):
        assert signal.getsignal(signal.SIGTERM) is before


def test_garbage_harms_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        for garbage in (
            b"\x00" * 100,
            os.urandom(5000),
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9999,
            b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        ):
            with socket.socket(socket.AF_UNIX) as peer:  # fmt: skip
                peer.connect(str(served.paths.socket))
                try:
                    peer.sendall(garbage)
                    peer.shutdown(socket.SHUT_WR)
                    peer.settimeout(GIVE_UP_S)
                    while peer.recv(4096):
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert Client(served.paths.socket).get("/healthz")["ready"]
        malformed = served.agent.metrics.counts()["api_connections/malformed"]
        assert malformed in (3, 4), "what comes by chance may be the beginning of something"
