# SPDX-License-Identifier: Apache-2.0
"""Places to listen at.

Does:  socket files (stale, taken, foreign, their mode and end), ports, paths that are too long.
Place: tests/transport.
State: none.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.addresses import MAX_SOCKET_PATH
from nsm_sdk.core import Role, Running
from nsm_sdk.errors import AlreadyExists, InvalidRequest, NsmError, PermissionDenied
from nsm_sdk.transport import Dialer, listen
from tests.run import unique
from tests.transport.adapters import nothing, pair, role


async def answers(url: str) -> bool:
    dialer = Dialer(dial_timeout=0.5)
    async with Role("client", services=[dialer]).serving() as client:
        far = dialer(url).connection
        assert far is not None
        return await far.request(client.call(timeout=5), Request()) == Connection()


def stale(path: Path) -> None:
    """A socket file that nobody answers at."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(os.fspath(path))


async def refused(url: str) -> NsmError:
    made, _ = role()
    with pytest.raises(NsmError) as caught:
        async with made.serving(listen=[listen(url)]):
            pass
    assert caught.value.hint
    assert url in caught.value.message
    return caught.value


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_the_socket_file_is_private_and_goes_at_the_end(adapter: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "sock"
    async with pair(adapter, tmp_path, url=f"unix://{path}") as p:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await p.request() == Connection()
        assert os.listdir(path.parent) == ["sock"]
    assert os.listdir(path.parent) == []


async def test_the_mode_is_what_was_asked_for(tmp_path: Path) -> None:
    made, _ = role()
    path = tmp_path / "sock"
    mask = os.umask(0o022)
    os.umask(mask)
    async with made.serving(listen=[listen(f"unix://{path}", mode=0o666)]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert os.umask(mask) == mask


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_a_stale_socket_file_is_replaced(adapter: str, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    stale(path)
    async with pair(adapter, tmp_path, url=f"unix://{path}") as p:
        assert await p.request() == Connection()
    assert not path.exists()


async def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(os.fspath(path))
        other.listen(1)
        error = await refused(f"unix://{path}")
        assert isinstance(error, AlreadyExists)
        assert "address in use" in error.message
        assert path.is_socket()


async def test_a_socket_that_is_too_busy_to_answer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(os.fspath(path))
        other.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(os.fspath(path))
            assert "address in use" in (await refused(f"unix://{path}")).message
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_what_is_no_socket_is_never_removed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.mkdir() if kind == "folder" else path.write_text("data")
    error = await refused(f"unix://{path}")
    assert isinstance(error, AlreadyExists)
    assert path.exists()


async def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    assert isinstance(await refused(f"unix://{tmp_path}/file/sock"), InvalidRequest)


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_a_successor_keeps_its_socket_file(adapter: str, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    url = f"unix://{path}"
    async with pair(adapter, tmp_path, url=url) as p:
        os.unlink(path)
        async with pair(adapter, tmp_path, url=url):
            p.server.kill()
            await p.server.wait_ended()
            assert path.is_socket()
            assert await answers(url)
    assert not path.exists()


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_restarting_at_once_many_times(adapter: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/sock"
    for _ in range(10):
        async with pair(adapter, tmp_path, url=url) as p:
            assert await p.request() == Connection()
            p.server.kill()


@pytest.mark.parametrize("size", [MAX_SOCKET_PATH - 1, MAX_SOCKET_PATH])
@pytest.mark.parametrize("name", [1, 30])
@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_the_longest_paths_work(adapter: str, size: int, name: int, tmp_path: Path) -> None:
    room = size - len(os.fspath(tmp_path)) - name - 2
    if room < 1:
        pytest.skip("the temporary folder has a longer name than a socket may have")
    path = tmp_path / ("d" * room) / ("s" * name)
    assert len(os.fspath(path)) == size
    async with pair(adapter, tmp_path, url=f"unix://{path}") as p:
        assert await p.request() == Connection()
        assert os.listdir(path.parent) == [path.name]
    assert os.listdir(path.parent) == []


def test_a_longer_path_is_refused_before_anything_is_opened() -> None:
    url = "unix:///" + "x" * MAX_SOCKET_PATH
    with pytest.raises(InvalidRequest, match="108 bytes, but a unix socket path at most 107") as caught:
        listen(url)
    assert caught.value.hint
    with pytest.raises(InvalidRequest, match="at most 107"):
        Dialer()(url)


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_a_relative_path(adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with pair(adapter, tmp_path, url="unix:sock") as p:
        assert p.url == "unix://sock"
        assert await p.request() == Connection()


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_a_socket_without_a_file(adapter: str, tmp_path: Path) -> None:
    url = f"unix://@{unique('abstract')}"
    async with pair(adapter, tmp_path, url=url) as p:
        assert await p.request() == Connection()
        assert isinstance(await refused(url), AlreadyExists)


async def test_a_path_that_is_a_folder_by_its_look(tmp_path: Path) -> None:
    assert isinstance(await refused(f"unix://{tmp_path}/new/"), InvalidRequest)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("adapter", ["unix", "grpcio-unix"])
async def test_a_path_with_odd_characters(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path, url=f"unix://{tmp_path}/a%20b%25ü") as p:
        assert os.listdir(tmp_path) == ["a b%ü"]
        assert await p.request() == Connection()


async def test_a_port_in_use() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        error = await refused(f"tcp://127.0.0.1:{other.getsockname()[1]}")
    assert isinstance(error, AlreadyExists)
    assert "address in use" in error.message


@pytest.mark.parametrize("adapter", ["tcp", "grpcio-tcp"])
async def test_a_port_right_after_its_server_has_gone(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path) as p:
        url = p.url
        assert await p.request() == Connection()
    async with pair(adapter, tmp_path, url=url) as p:
        assert p.url == url
        assert await p.request() == Connection()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("adapter", ["tcp", "grpcio-tcp"])
async def test_port_0_is_answered_with_the_port_taken(adapter: str, host: str, tmp_path: Path) -> None:
    if host == "[::1]" and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    async with pair(adapter, tmp_path, url=f"tcp://{host}:0") as p:
        assert p.url.startswith(f"tcp://{host}:")
        assert not p.url.endswith(":0")
        assert await p.request() == Connection()


@pytest.mark.parametrize("adapter", ["tcp", "grpcio-tcp"])
async def test_loopback_is_not_widened(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path) as p:
        port = int(p.url.rpartition(":")[2])
        # 127.0.0.2 is this machine as well, and not what was asked for.
        with closing(socket.socket()) as caller:
            assert caller.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("adapter", ["tcp", "grpcio-tcp"])
async def test_every_address_of_the_machine(adapter: str, tmp_path: Path) -> None:
    async with pair(adapter, tmp_path, url="tcp://:0") as p:
        assert await p.request() == Connection()
        with closing(socket.socket()) as caller:
            assert caller.connect_ex(("127.0.0.2", int(p.url.rpartition(":")[2]))) == 0


async def test_an_address_of_somebody_else() -> None:
    assert isinstance(await refused("tcp://192.0.2.1:0"), InvalidRequest)


async def test_a_host_nobody_knows() -> None:
    assert "unknown host" in (await refused("tcp://no-such-host.invalid:0")).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen everywhere")
async def test_a_place_that_is_not_allowed() -> None:
    assert isinstance(await refused("unix:///proc/sock"), PermissionDenied)


async def test_a_listener_that_cannot_open_closes_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    made, _ = role(nothing)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AlreadyExists):
            async with made.serving(listen=[listen(f"unix://{path}"), listen("inproc://gone"), listen(taken)]):
                pass
    assert not path.exists()
    async with made.serving(listen=[listen("inproc://gone")]) as again:
        assert isinstance(again, Running)


def _has_ipv6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
