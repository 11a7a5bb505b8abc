"""The scripts that run in Redis: what they do is one step there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from hub.redis_link import ASK_SECONDS, RedisConnection


class Script:
    """A script, sent as a whole only to a server that does not have it.

    Args:
        name: the file.
        package: where it is.
    """

    def __init__(self, name: str, package: str = "hub.log.redis") -> None:
        self.text = (files(package) / name).read_bytes()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    async def run(
        self,
        connection: RedisConnection,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *,
        seconds: float = ASK_SECONDS,
        then: Sequence[Any] = (),
    ) -> list[Any]:
        """Return the answer, and that to the command *then*, if there is one; this may be an error.

        Raises:
            RedisError, OSError: as `RedisConnection.calls`, and if the script failed.
        """
        call = (len(keys), *keys, *arguments)
        more = [then] if then else []
        answers = await connection.calls([("EVALSHA", self.digest, *call), *more], seconds=seconds)
        if isinstance(answers[0], NoScriptError):
            answers = await connection.calls([("EVAL", self.text, *call), *more], seconds=seconds)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers


APPEND, READ = Script("append.lua"), Script("read.lua")
