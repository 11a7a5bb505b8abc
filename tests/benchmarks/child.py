"""A measurement in a process of its own: the task goes in as JSON, the answer comes out as JSON.

So each begins with a clean heap, on the core it belongs to, and ends when its time is up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from tests.benchmarks.cores import pin
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.place import ROOT

PATIENCE = 120.0

Answer = dict[str, Any]


def environ() -> dict[str, str]:
    """Return the environment for a process of ours: no settings of the hub but those it is given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    return {**inherited, "PYTHONPATH": str(ROOT)}


def ask(module: str, task: dict[str, Any], *, core: int | None = None, patience: float = PATIENCE) -> Answer:
    """Let *module* of this package do *task*, on *core*, and return its answer.

    Raises:
        CannotMeasure: it failed, or took longer than *patience* seconds.
    """
    with begun(module, task, core=core) as finish:
        return finish(patience)


@contextmanager
def begun(module: str, task: dict[str, Any], *, core: int | None = None) -> Iterator[Callable[[float], Answer]]:
    """Let *module* begin with *task*; the block gets a call that waits for the answer. It ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{module}"],
        cwd=ROOT,
        env=environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(pin, core),  # noqa: PLW1509 - this process has one thread
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task))
    process.stdin.close()
    process.stdin = None  # or `communicate` would flush it

    def finish(patience: float) -> Answer:
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"{module} was not done after {patience:g} s") from None
        if process.returncode:
            last = (err.strip().splitlines() or ["it ended without a word"])[-1]
            raise CannotMeasure(f"{module}: {last.rpartition('CannotMeasure: ')[2]}")
        answer: Answer = json.loads(out)
        return answer

    try:
        yield finish
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
        if process.poll() is None:
            process.kill()
            process.communicate()


def answer(do: Callable[[Any], Answer]) -> None:
    """Be such a process: read the task, *do* it, write the answer."""
    task = json.load(sys.stdin)
    sys.stdout.write(json.dumps(do(task)))
