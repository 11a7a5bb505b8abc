"""`hub top`: watch the figures of a running hub in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
from typing import TYPE_CHECKING

from hub.access.bearer import Bearer, add_token
from hub.cli.target import TOKEN_HINT, Failed, add_target, in_one_line

if TYPE_CHECKING:
    from hub.cli.screen import Screen
    from hub.client.probe import Probe

EVERY = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    add_target(parser)
    add_token(parser)
    parser.add_argument("--every", type=_every, default=EVERY, metavar="SECONDS", help=f"how often to ask [{EVERY:g}]")
    parser.add_argument("--once", action="store_true", help="print the table once, after one such interval")


def _every(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 60:
        raise argparse.ArgumentTypeError("is not from 0.1 to 60")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Show the figures until interrupted.

    Raises:
        Failed: `rich` is missing, or the hub does not tell.
    """
    if importlib.util.find_spec("rich") is None:
        raise Failed("this needs one more package: pip install rich")
    with in_one_line():
        asyncio.run(_watch(args))
    return 0


async def _watch(args: argparse.Namespace) -> None:
    from hub.cli.screen import Keys, Screen  # noqa: PLC0415 - needs rich, which takes a while to import
    from hub.client.probe import Probe  # noqa: PLC0415

    once = args.once or not sys.stdout.isatty()
    async with Probe(args.url, Bearer(args.token_file).token()) as hub:
        screen = Screen(args.url)
        await _look(hub, screen)  # an error ends it here; later ones are shown, for the hub may come back
        if once:
            await asyncio.sleep(args.every)
            await _look(hub, screen)
            screen.print()
            return
        with Keys() as keys, screen.live() as live:
            while not await keys.quits(args.every):
                try:
                    await _look(hub, screen)
                except Failed as error:
                    screen.lost(str(error))
                live.update(screen.drawn(), refresh=True)


async def _look(hub: Probe, screen: Screen) -> None:
    """Ask for the figures, and give them to *screen*.

    Raises:
        Failed: there are none.
    """
    from hub.cli.screen import readable  # noqa: PLC0415

    with in_one_line():
        answer = await hub.ask("/notifications/stats")
    said = answer.json()
    if answer.status in {401, 403}:
        raise Failed(f"the figures are for administrators ({TOKEN_HINT})")
    if answer.status == 404:
        raise Failed("there are no figures at this address; name that for administration, if there is one: --url")
    if answer.status != 200 or not isinstance(said, dict) or "streams" not in said:
        raise Failed(f"what answers at {hub.url} with {answer.status} is not a hub")
    if not readable(said):
        raise Failed(f"the figures of {hub.url} can't be read: it is another version, or no hub")
    screen.show(said, asyncio.get_running_loop().time())
