"""What a hub has confirmed outlives it, whenever it is killed; `python -m tests.torture` does the same for longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests import torture
from tests.chance import seeds
from tests.conftest import Disk
from tests.log.image import Image
from tests.spec_decoder import Event
from tests.torture import Subscriber, Torture, holds, offset
from tests.web.client import Client, StreamEnded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", seeds(2, 10))
async def test_a_killed_hub_loses_nothing_and_repeats_nothing(tmp_path: Path, seed: int):
    result = await torture.run(tmp_path, seed)
    assert result.lives == torture.LIVES
    assert result.connections > len(torture.SUBSCRIPTIONS)


@pytest.mark.parametrize("seed", seeds(1, 4, first=100))
async def test_a_hub_that_is_stopped_under_load_ends_well_and_loses_nothing(tmp_path: Path, seed: int):
    async with torture.at(tmp_path, seed) as rack:
        result = await rack.run("stopped")
    assert result.lives == torture.LIVES


@pytest.mark.parametrize("seed", [1])
async def test_a_hub_whose_processes_hang_and_whose_children_outlive_it_loses_nothing(tmp_path: Path, seed: int):
    with torture.mounted(tmp_path) as image:
        result = await torture.run_worse(tmp_path, seed, image)
    assert result.lives == torture.LIVES


# ---- the process that reads ----


async def test_a_reader_killed_in_the_middle_of_long_replays_costs_a_client_nothing(tmp_path: Path):
    chance = random.Random(7)
    async with torture.at(tmp_path, 200) as rack:
        await rack.start()
        sent = [f"{number:05}" + "x" * 1_000 for number in range(12_000)]
        for start in range(0, len(sent), 500):
            drafts = [{"topic": "long", "data": text} for text in sent[start : start + 500]]
            assert (await rack.site.publish(drafts)).status == 201
        (first,) = (await rack.site.publish([{"topic": "other", "data": ""}])).json()
        subscriber = Subscriber(("long",), first["id"].rpartition("-")[0] + "-0")
        cut = 0
        while not (subscriber.heard and subscriber.heard[-1].data == sent[-1]):
            cut += await replay_and_kill_the_reader(rack, subscriber, kill=cut < 4, after=chance.randint(0, 1_500))
        assert cut == 4
        assert [event.data for event in subscriber.heard] == sent
        assert not subscriber.gaps


async def replay_and_kill_the_reader(rack: Torture, subscriber: Subscriber, *, kill: bool, after: int) -> bool:
    """Let *subscriber* resume, and *kill* the reader once *after* more were heard; tell whether the replay was cut."""
    # With little room on the way the hub can't be far ahead of its client.
    async with rack.connection(receive_buffer=16_384) as client:
        headers = {"Last-Event-ID": subscriber.cursor}
        await client.request("GET", "/notifications/subscribe?topic=long", headers=headers)
        assert await client.head() == 200
        goal = len(subscriber.heard) + after
        killed = False
        with contextlib.suppress(StreamEnded):
            while not (subscriber.heard and subscriber.heard[-1].data.startswith("11999")):
                subscriber.take(await client.event())
                subscriber.cursor = client.decoder.last_event_id or subscriber.cursor
                if kill and not killed and len(subscriber.heard) >= goal:
                    rack.kill_worker("reader")
                    killed = True
    return killed and not subscriber.heard[-1].data.startswith("11999")


# ---- a process that hangs ----


async def test_a_hub_whose_writer_hangs_says_so_and_goes_on_with_another_one(tmp_path: Path):
    async with torture.at(tmp_path, 500) as rack:
        await rack.start()
        first = (await rack.site.publish({"data": 1})).json()["id"]
        live = await rack.site.subscribe()
        rack.hang_worker("writer")
        hung = asyncio.create_task(publish_patiently(rack, {"data": 2, "key": "k"}))
        # Both within the limit: whoever asks is told, nobody is left waiting.
        async with asyncio.timeout(30):
            while (await rack.site.ask("GET", "/readyz")).status != 503:
                pass
            assert await hung == (503, True)
        async with asyncio.timeout(30):
            while (again := await rack.site.publish({"data": 2, "key": "k"})).status == 503:
                pass
        assert (await rack.site.ask("GET", "/readyz")).status == 200
        assert (await live.next()).data == "2"
        stream = await rack.site.subscribe(last_event_id=first)
        assert (await stream.next()).id == again.json()["id"]
        await rack.stop(tidy=False)
        with contextlib.closing(sqlite3.connect(tmp_path / "500.db")) as database:
            assert database.execute("SELECT count(*) FROM notification").fetchone() == (2,)


async def test_a_client_that_resumes_while_the_reader_hangs_is_told_to_come_back(tmp_path: Path):
    async with torture.at(tmp_path, 501) as rack:
        await rack.start()
        first = (await rack.site.publish([{"data": 1}, {"data": 2}])).json()[0]["id"]
        live = await rack.site.subscribe()
        rack.hang_worker("reader")
        stream = await rack.site.subscribe(last_event_id=first)
        assert (await rack.site.publish({"data": 3})).status == 201, "nothing that is written waits for it"
        assert (await live.next()).data == "3"
        assert (await next_patiently(stream, "hub.close")).json() == {"reason": "log_unavailable"}
        await until_ready(rack)
        again = await rack.site.subscribe(last_event_id=first)
        assert [(await again.next()).data for _ in range(2)] == ["2", "3"]


@pytest.mark.parametrize("pending", [False, True], ids=["idle", "with a publish on its way"])
async def test_a_hub_whose_processes_hang_ends_within_bounds(tmp_path: Path, pending: bool):
    async with torture.at(tmp_path, 502) as rack:
        await rack.start()
        await rack.site.publish({"data": 1})
        rack.hang_worker("writer")
        rack.hang_worker("reader")
        hung = asyncio.create_task(publish_patiently(rack, {"data": 2})) if pending else None
        await asyncio.sleep(0)
        await rack.stop(tidy=False)
        if hung is not None:
            hung.cancel()
            await asyncio.wait([hung])


async def test_a_disk_that_does_not_answer_is_noticed_and_does_not_keep_the_hub_from_ending(
    tmp_path: Path, image: Image
):
    async with torture.at(tmp_path, 503, image) as rack:
        await rack.start()
        first = (await rack.site.publish({"data": 1})).json()["id"]
        image.freeze()
        hung = asyncio.create_task(publish_patiently(rack, {"data": 2, "key": "k"}))
        async with asyncio.timeout(30):
            while (await rack.site.ask("GET", "/readyz")).status != 503:
                pass
        assert (await rack.site.publish({"data": 3})).status == 503, "nobody waits behind it"
        assert not hung.done(), "it may be a slow disk"
        rack.signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while not rack.over:  # noqa: ASYNC110 - what is looked at has no events to wait for
                await asyncio.sleep(0.01)
        image.thaw()
        with contextlib.suppress(aiohttp.ClientError):
            assert await hung == (503, True)
        await rack.aclose()
        await rack.start()
        again = (await rack.site.publish({"data": 2, "key": "k"})).json()["id"]
        stream = await rack.site.subscribe(last_event_id=first)
        assert (await stream.next()).id == again, "kept once, and never confirmed twice"
        await rack.stop()


async def publish_patiently(rack: Torture, draft: object) -> tuple[int, bool]:
    """Publish *draft*, whatever that takes; return the status, and whether there is a word on when to come back."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{rack.url}/notifications/publish", json=draft) as answer,
    ):
        return answer.status, "Retry-After" in answer.headers


async def next_patiently(client: Client, type: str) -> Event:
    """Return the next event, as late as it comes."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(TimeoutError):
                return await client.next(type)


async def until_ready(rack: Torture) -> None:
    async with asyncio.timeout(30):
        while (await rack.site.ask("GET", "/readyz")).status != 200:
            pass


# ---- a full disk ----


async def test_a_full_disk_refuses_for_a_while_and_nothing_is_lost(disk: Disk):
    async with torture.at(disk.path, 300) as rack, rack.traffic(tidy=False) as busy:
        await rack.confirm(100, busy)
        disk.fill()
        await holds(lambda: rack.refused >= 50, busy)
        await check_served_or_sent_away(rack)
        rack.kill_worker("writer")
        rack.kill_worker("reader")
        await holds(lambda: rack.refused >= 100, busy)
        await check_served_or_sent_away(rack)
        disk.grow(50)
        await rack.confirm(300, busy)
        await check_served_or_sent_away(rack)


async def check_served_or_sent_away(rack: Torture) -> None:
    """Check that a stream, and a resumed one, begins, or ends at once with a word on when to come back."""
    some = next(iter(rack.confirmed[0].values()))
    for headers in ({}, {"Last-Event-ID": some}):
        async with rack.connection() as client:
            await client.request("GET", "/notifications/subscribe?topic=**", headers=headers)
            assert await client.head() == 200
            try:
                event = await client.event()
            except StreamEnded:
                assert client.complete
            else:
                assert event.type in {"hub.open", "hub.close"}
            assert client.decoder.retry is not None


# ---- another file than it was ----


def truncate(path: Path, earlier: Path) -> None:
    os.truncate(path, 0)


def truncate_to_a_part(path: Path, earlier: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def remove(path: Path, earlier: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path, earlier: Path) -> None:
    path.unlink()
    shutil.copy(earlier, path)


def overwrite_with_an_earlier_copy(path: Path, earlier: Path) -> None:
    path.write_bytes(earlier.read_bytes())


@pytest.mark.parametrize(
    "change", [truncate, truncate_to_a_part, remove, replace_by_a_copy, overwrite_with_an_earlier_copy]
)
async def test_who_resumes_at_a_file_that_is_another_one_by_now_is_told_of_a_gap(
    tmp_path: Path, change: Callable[[Path, Path], None]
):
    async with torture.at(tmp_path, 400) as rack:
        path, earlier = tmp_path / "400.db", tmp_path / "earlier.db"
        await rack.start()
        (await rack.site.publish([{"data": number} for number in range(50)])).json()
        await rack.stop()
        shutil.copy(path, earlier)
        await rack.start()
        last = (await rack.site.publish([{"data": number} for number in range(50, 100)])).json()[-1]["id"]
        await rack.stop()
        change(path, earlier)
        await rack.start()
        # As many as there were: an id of the file that was would look like one of this one.
        new = (await rack.site.publish([{"data": f"new {number}"} for number in range(100)])).json()[-1]["id"]
        assert offset(new) >= offset(last)
        stream = await rack.site.subscribe(last_event_id=last)
        facts = stream.opened.json()
        assert (facts["recovered"], facts["reason"]) == (False, "epoch")
        assert (await stream.next("hub.gap")).json()["reason"] == "epoch"
        heard: list[Event] = [await stream.next()]
        while heard[-1].id != new:
            heard.append(await stream.next())
        assert [event.data for event in heard][-100:] == [f"new {number}" for number in range(100)]
        kept = 50 if change in {replace_by_a_copy, overwrite_with_an_earlier_copy} else 0
        assert [event.data for event in heard][:-100] == [f"{number}" for number in range(kept)]
