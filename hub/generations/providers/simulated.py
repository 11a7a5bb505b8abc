"""A provider without a model: the same prompt gets the same text, at a given speed and with given failures.

The text can be read, in English or in Chinese as the question is, and says that it is simulated.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from hub.generations.providers.provider import Delta, Prompt, ProviderError

_ENGLISH = (
    ("This answer is simulated: no model was asked.",),
    (
        "A browser opens one HTTP request, and the server never finishes the answer.",
        "Whenever something happens, it writes a few lines of text into it.",
        "The browser reads them as they arrive, and calls the handler of the page.",
    ),
    (
        "Each notification has an id, which is its place in the log of the hub.",
        "When a connection is lost, the browser connects again and sends the last id that it has seen.",
        "The hub then sends what came after it, once and in order, and goes on with what is new.",
    ),
    (
        "What is no longer kept can't be sent again.",
        "The hub says so with an event of its own, so that a page knows that it has to load its data anew.",
    ),
    (
        "An answer like this one grows in the hub, and not in the connection.",
        "Reload the page in the middle of a sentence, or open it in a second tab: the text goes on.",
        "It stops when it is complete, or when somebody presses the button for it.",
    ),
    (
        "A slow reader has a limit of its own.",
        "When too much waits for it, the hub closes that connection, and nobody else has to wait.",
        "The reader comes back with its last id and loses nothing.",
    ),
    (
        "Topics say what a notification is about, and patterns ask for many of them at once.",
        "A page follows as many as it needs on one connection, and may change them while it is open.",
    ),
    (
        "Server-Sent Events are plain text over plain HTTP.",
        "Proxies, logs and curl understand them, and a browser needs no library to read them.",
    ),
)
_CHINESE = (
    ("这是模拟的回答，没有询问任何模型。",),
    (
        "浏览器发出一个 HTTP 请求，而服务器一直不结束它的响应。",
        "每当有事情发生，服务器就向响应里写入几行文本。",
        "浏览器在文本到达时读取它，并调用页面的处理函数。",
    ),
    (
        "每条通知都有一个编号，也就是它在日志中的位置。",
        "连接断开以后，浏览器会重新连接，并带上最后收到的编号。",
        "服务器随后补发之后的通知，每条一次，按顺序，再继续发送新的通知。",
    ),
    (
        "已经不再保留的内容无法补发。",
        "服务器会用一个专门的事件说明这一点，页面因此知道需要重新加载数据。",
    ),
    (
        "这样的回答在服务器里生成，而不是在连接里生成。",
        "在句子中间刷新页面，或者在第二个标签页中打开它，文字都会继续。",
        "回答完整时它就结束，也可以随时按下按钮停止它。",
    ),
    (
        "每个缓慢的读者都有自己的上限。",
        "等待发送的内容太多时，服务器只关闭这一个连接，其他人不必等待。",
        "这个读者带着最后的编号回来，什么也不会丢失。",
    ),
    (
        "主题说明一条通知与什么有关，通配符可以一次订阅许多主题。",
        "一个页面在一个连接上订阅它需要的全部主题，并且可以随时更改。",
    ),
    (
        "服务器推送事件是普通 HTTP 上的普通文本。",
        "代理、日志和 curl 都能理解它，浏览器也不需要任何库来读取它。",
    ),
)
"""A sentence that says what this is, and paragraphs that can stand in any order."""
_WORDS = re.compile(r"\S+\s*|\s+")
_CHARACTERS = re.compile(r"\s+|[a-zA-Z-]+\s*|[^a-zA-Z\s][，。：？！、]?\s*")
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, kw_only=True)
class SimulatedProvider:
    """A provider that makes up answers; their text depends only on the prompt and the *seed*.

    Attributes:
        seed: another seed gives another text.
        tokens: minimum number of pieces of an answer.
        first: seconds until the first piece.
        rate: pieces a second, above 0.
        jitter: maximum random change of the time between two pieces, as a share of it, 0 to 1.
        fail_after: number of pieces after which the provider fails; None: never.
        hang_after: number of pieces after which it sends nothing more and does not end; None: never.
        disconnect_after: number of pieces after which the connection to it breaks; None: never.
    """

    seed: int = 0
    tokens: int = 60
    first: float = 0.3
    rate: float = 40.0
    jitter: float = 0.25
    fail_after: int | None = None
    hang_after: int | None = None
    disconnect_after: int | None = None

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Yield the answer to *prompt*, piece by piece, then the finish reason and the usage."""
        asked = prompt.question
        chance = random.Random(f"{self.seed}:{asked}")
        pieces = self._pieces(asked, chance)
        await asyncio.sleep(self.first)
        for number, piece in enumerate(pieces):
            await self._fail_if_due(number)
            if number:
                await asyncio.sleep((1 + self.jitter * chance.uniform(-1, 1)) / self.rate)
            yield Delta(piece)
        await self._fail_if_due(len(pieces))
        words = len(asked.split())
        yield Delta(
            finish_reason="stop",
            usage={"prompt_tokens": words, "completion_tokens": len(pieces), "total_tokens": words + len(pieces)},
        )

    def _pieces(self, asked: str, chance: random.Random) -> list[str]:
        chinese = _HAN.search(asked) is not None
        said, text, parts, space = (
            ("您问的是：", _CHINESE, _CHARACTERS, "") if chinese else ("You asked: ", _ENGLISH, _WORDS, " ")
        )
        pieces = _WORDS.findall(f"{said}{asked[:200]}\n\n") if asked else []
        sentences = _sentences(text, chance)
        while len(pieces) < self.tokens:
            pieces += parts.findall(next(sentences) + space)
        return pieces

    async def _fail_if_due(self, said: int) -> None:
        if said == self.fail_after:
            raise ProviderError("provider_failed", "the provider failed")
        if said == self.disconnect_after:
            raise ProviderError("provider_disconnected", "the connection to the provider broke")
        if said == self.hang_after:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Do nothing: there is no resource to release."""


def _sentences(text: tuple[tuple[str, ...], ...], chance: random.Random) -> Iterator[str]:
    """Yield the first sentence of *text*, then its paragraphs in any order, again and again."""
    first, *paragraphs = text
    yield from first
    while True:
        for paragraph in chance.sample(paragraphs, len(paragraphs)):
            yield from ("\n\n" + each if each is paragraph[0] else each for each in paragraph)
