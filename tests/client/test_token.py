"""The token of a client: where it is sent, when another one is asked for, and that it is shown nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import threading
import traceback
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from hub.client import AsyncHubClient, ClientError, HubClient, NotAllowed, NotAuthenticated, Unreachable
from hub.errors import InvalidInput
from tests.client.conftest import Connect
from tests.client.support import take, url_of
from tests.web.client import until
from tests.web.conftest import TLS, Serve
from tests.web.server import Server
from tests.web.test_rights import SECRET, token

RIGHTS = {"subscribe": ["a"], "publish": ["a"]}


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve(setup={"routes": None}, jwt_secret=SECRET, jwt_leeway=0, heartbeat=0.1)


async def test_a_token_says_who_publishes_and_listens(server: Server, connect: Connect) -> None:
    client = connect(server, token=token("tom", hub=RIGHTS))
    async with client.listen("a", "user/tom") as stream:
        await client.publish(1, topic="a")
        assert [each.data for each in await take(stream, 1)] == [1]
    with pytest.raises(NotAllowed) as refused:
        await client.publish(1, topic="b")
    assert (refused.value.status, refused.value.code, refused.value.topic) == (403, "forbidden", "b")
    with pytest.raises(NotAllowed):
        async with client.listen("b"):
            pass
    for without in (connect(server), connect(server, token=lambda: None)):
        with pytest.raises(NotAuthenticated) as unknown:
            await without.publish(1, topic="a")
        assert unknown.value.code == "unauthorized"
        with pytest.raises(NotAuthenticated):
            async with without.listen("a"):
                pass


async def test_a_token_is_asked_for_once_until_it_is_refused(server: Server, connect: Connect) -> None:
    old, new = token("tom", seconds=-100, hub=RIGHTS), token("tom", hub=RIGHTS)
    asked: list[str] = []

    async def get() -> str:
        asked.append("asked")
        await asyncio.sleep(0)
        return old if len(asked) == 1 else new

    client = connect(server, token=get)
    await asyncio.gather(*(client.publish(n, topic="a") for n in range(10)))
    assert len(asked) == 2, "ten refusals are one reason to ask again"


async def test_threads_ask_for_a_new_token_together(server: Server) -> None:
    old, new = token("tom", seconds=-100, hub=RIGHTS), token("tom", hub=RIGHTS)
    asked: list[int] = []

    def get() -> str:
        asked.append(threading.get_ident())
        return old if len(asked) == 1 else new

    with HubClient(url_of(server), token=get) as client:
        await asyncio.gather(*(asyncio.to_thread(client.publish, n, topic="a") for n in range(8)))
    assert len(asked) == 2


async def test_a_stream_outlives_its_token(server: Server, connect: Connect) -> None:
    given: list[str] = []

    def get() -> str:
        given.append(token("tom", seconds=6 if not given else 3_600, jti=f"j{len(given)}", hub=RIGHTS))
        return given[-1]

    client = connect(server, token=get)
    async with client.listen("a") as stream:
        server.send(1, topic="a")
        assert [each.data for each in await take(stream, 1)] == [1]
        going_on = asyncio.create_task(take(stream, 1))
        await until(lambda: len(given) == 2)
        server.send(2, topic="a")
        async with asyncio.timeout(30):
            assert [each.data for each in await going_on] == [2]


async def test_what_the_function_raises_reaches_the_caller(server: Server, connect: Connect) -> None:
    def get() -> str:
        raise LookupError("no key")

    client = connect(server, token=get)
    with pytest.raises(LookupError):
        await client.publish(1)
    with pytest.raises(LookupError):
        await anext(client.listen("a"))


@pytest.mark.parametrize("wrong", ["two words", "line\n", "", "é", "Bearer x", 7])
async def test_what_can_not_be_a_token_is_refused_and_not_shown(server: Server, wrong: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        HubClient(url_of(server), token=wrong)  # type: ignore[arg-type]
    assert str(refused.value) == "token: is not one word of letters, digits and -._~+/="
    with pytest.raises(InvalidInput):
        await AsyncHubClient(url_of(server), token=lambda: wrong).publish(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["", "hub", "ftp://hub", "http://", "http://hub:x", "http://me:secret@hub", "http://hub?q", "http://hub#f"]
)
def test_what_is_not_the_address_of_a_hub_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="url") as refused:
        HubClient(url)
    assert "secret" not in str(refused.value)


async def test_the_token_is_shown_nowhere(server: Server, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = token("tom", hub=RIGHTS)
    shown: list[str] = []

    def show(error: BaseException) -> None:
        shown.append("".join(traceback.format_exception(error)) + repr(error) + str(vars(error)))

    client = connect(server, token=secret)
    shown += [repr(client), str(client), repr(client.listen("a"))]
    nobody = connect("http://127.0.0.1:1", token=secret, patience=0)
    for call in (client.publish(1, topic="a"), client.publish(1, topic="b"), nobody.publish(1)):
        try:
            await call
        except ClientError as error:
            show(error)
    try:
        async with client.listen("b"):
            pass
    except ClientError as error:
        show(error)
    await asyncio.to_thread(_publish, url_of(server), secret)
    shown += [record.getMessage() for record in caplog.records]
    assert len(shown) > 5
    assert not [text for text in shown if secret in text or secret.split(".")[2] in text]


def _publish(url: str, secret: str) -> None:
    with HubClient(url, token=secret) as client:
        client.publish(1, topic="a")


async def test_the_environment_has_no_say(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    client = connect(server, token=token("tom", hub=RIGHTS))
    await client.publish(1, topic="a")


# ---- TLS, forks and event loops ----


async def test_certificates_are_checked(serve: Serve, tls: TLS, connect: Connect) -> None:
    server = await serve(tls=tls)
    url = url_of(server).replace("http://127.0.0.1", "https://localhost")
    client = connect(url, tls=tls[1])
    async with client.listen("a") as stream:
        await client.publish(1, topic="a")
        assert [each.data for each in await take(stream, 1)] == [1]
    with pytest.raises(Unreachable, match="certificate") as refused:
        await connect(url).publish(1)
    assert refused.value.lasting
    wait = asyncio.create_task(asyncio.to_thread(_listen_until_closed, url, tls))
    async with asyncio.timeout(60):
        assert await wait == []


def _listen_until_closed(url: str, tls: TLS) -> list[object]:
    with HubClient(url, tls=tls[1]) as client, client.listen("a") as stream:
        threading.Timer(0.1, stream.close).start()
        return list(stream)


def _in_child(client: HubClient, number: int) -> None:
    client.publish(number, topic="a")


@pytest.mark.slow
async def test_a_client_that_was_made_before_a_fork_works_in_all_processes(server: Server) -> None:
    received: list[int] = []
    server.hub.notifications.stream("a").subscribe(lambda each: received.append(each.data))
    with HubClient(url_of(server), token=token("tom", hub=RIGHTS)) as client:
        await asyncio.to_thread(client.publish, 0, topic="a")  # it has an open connection now
        held = client._lock.acquire()  # as another thread might, in the moment of the fork
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=_in_child, args=(client, number)) for number in (1, 2, 3)]
        try:
            for child in children:
                child.start()
        finally:
            client._lock.release()
        assert held
        for child in children:
            await asyncio.to_thread(child.join, 20)
        assert [child.exitcode for child in children] == [0, 0, 0]
        await asyncio.to_thread(client.publish, 4, topic="a")
    assert sorted(received) == [0, 1, 2, 3, 4]


async def test_one_asynchronous_client_serves_one_event_loop_after_the_other(server: Server) -> None:
    client = AsyncHubClient(url_of(server), token=token("tom", hub=RIGHTS))

    async def publish(number: int) -> None:
        await client.publish(number, topic="a")

    def work() -> None:
        for number in range(3):
            asyncio.run(publish(number))

    await asyncio.to_thread(work)
    await client.publish(3, topic="a")
    await client.aclose()


# ---- what does not answer ----


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The address of a server that takes requests and says nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if request.path.startswith("/dripping"):
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(b" ")
                    await asyncio.sleep(0.05)
        await asyncio.sleep(60)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("path", ["", "/dripping"])
async def test_what_does_not_answer_or_only_drips_is_given_up(silent: str, path: str) -> None:
    def work() -> None:
        with HubClient(silent + path, timeout=0.2, patience=0) as client:
            client.publish(1)

    with pytest.raises(Unreachable, match="it did not answer in time"):
        await asyncio.to_thread(work)
    async with AsyncHubClient(silent + path, timeout=0.2, patience=0) as client:
        with pytest.raises(Unreachable, match="it did not answer in time"):
            await client.publish(1)


async def test_a_silent_stream_is_opened_anew(silent: str) -> None:
    pauses: list[object] = []
    async with AsyncHubClient(silent, patience=0) as client:
        with pytest.raises(Unreachable, match="it did not answer in time"):
            await anext(client.listen("a", silence=0.1, watch=pauses.append))
    assert len(pauses) == 2
