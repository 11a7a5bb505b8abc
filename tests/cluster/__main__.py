"""Every fault once under full load, on each kind of server, then rounds of random ones; each says how it went.

python -m tests.cluster [ROUNDS] [SEED] [FAULT ...]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

from tests.cluster.faults import FAULTS, NETWORK, RANDOM, Fault, suffer
from tests.cluster.network import possible
from tests.cluster.traffic import FULL, Load
from tests.redis_server import ALL_KINDS, WHEELS, executable, installed

FEWER = Load(publishers=10, rate=100.0, readers=60)
FIRST_SEED = 1


def main(arguments: Sequence[str]) -> int:
    """Run all, or the faults with these names; the first that breaks its promise ends it."""
    rounds, seed = (int(each or default) for each, default in zip([*arguments, "", ""], (50, FIRST_SEED), strict=False))
    kinds = [kind for kind in ALL_KINDS if installed(kind)]
    for kind in ALL_KINDS:
        if kind in kinds:
            say(f"{kind}: {version(kind)}")
        else:
            say(f"{kind}: left out, {WHEELS[kind]} is not installed")
    for kind in kinds:
        for name in arguments[2:] or FAULTS:
            if name == NETWORK and not possible():
                say(f"{kind}, {name}: left out, this user may not make a network namespace here")
            else:
                run(name, FAULTS[name], seed, FULL, kind)
    for number in range(seed, seed + rounds):
        run(f"random faults {number}", RANDOM, number, FEWER, kinds[number % len(kinds)])
    return 0


def version(kind: str) -> str:
    """Return what a server of *kind* says it is."""
    said = subprocess.run([executable(kind), "--version"], capture_output=True, text=True, check=True)
    return " ".join(said.stdout.split()[:3])


def run(name: str, fault: Fault, seed: int, load: Load, kind: str) -> None:
    """Let *fault* happen, and say how it went."""
    name = f"{kind}, {name}"
    try:
        outcome = asyncio.run(suffer(fault, seed, load, kind))
    except BaseException:
        say(f"{name}: failed with seed {seed}")
        raise
    say(f"{name}: {outcome}")


def say(line: str) -> None:
    """Print *line* at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
