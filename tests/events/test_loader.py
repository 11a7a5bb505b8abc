import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from hub.errors import InvalidListener, ShuttingDown
from hub.events.bus import EventBus
from hub.events.loader import Listeners, find_listeners

if TYPE_CHECKING:
    from hub.notifications import NotificationService


class Service:
    """Stands in for the notification service: remembers what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_notification(self, data: object) -> None:
        self.sent.append(data)


def bind(modules: Sequence[str], bus: EventBus, service: Service) -> Listeners:
    return Listeners(modules, bus, cast("NotificationService", service))


Write = Callable[[dict[str, str]], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write Python files that can be imported for the time of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(sources: dict[str, str]) -> None:
        for path, source in sources.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"from hub.events.event import on_event\n{source}", encoding="utf-8")

    yield write
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def listener(name: str, pattern: str = "**", bases: str = "") -> str:
    return f"""
class {name}({bases}):
    def __init__(self, notifications):
        self.notifications = notifications

    @on_event({pattern!r})
    def hear(self, event):
        self.notifications.send_notification(("{name}", event.name))
"""


def found(*modules: str) -> list[str]:
    return [cls.__name__ for cls in find_listeners(modules)]


# ---- finding ----


def test_a_module_offers_the_classes_that_it_defines_in_their_order(write: Write) -> None:
    write({"first.py": listener("Zoe") + listener("Adam"), "second.py": "from first import Zoe" + listener("Berta")})
    assert found("first") == ["Zoe", "Adam"]
    assert found("second") == ["Berta"]


def test_a_package_offers_what_it_imports_and_what_its_submodules_define(write: Write) -> None:
    write(
        {
            "elsewhere.py": listener("Imported"),
            "house/__init__.py": "from elsewhere import Imported",
            "house/__main__.py": "raise SystemExit('importing this runs it')",
            "house/b.py": "from elsewhere import Imported" + listener("B"),
            "house/a.py": listener("A"),
            "house/deep/__init__.py": "",
            "house/deep/c.py": listener("C"),
        }
    )
    assert found("house") == ["Imported", "A", "B", "C"]
    assert found("house.deep") == ["C"]


def test_a_class_is_found_once_however_many_modules_offer_it(write: Write) -> None:
    write({"house/__init__.py": "from house.a import A", "house/a.py": listener("A")})
    assert found("house.a", "house", "house.a") == ["A"]


def test_no_modules_have_no_listeners() -> None:
    assert found() == []


def test_abstract_and_private_classes_and_classes_without_marks_are_no_listeners(write: Write) -> None:
    write(
        {
            "bases.py": "import abc"
            + listener("_Private")
            + listener("Abstract", bases="abc.ABC")
            + "    @abc.abstractmethod\n    def greeting(self): ...\n"
            + "class Plain: ...\n"
            + "class Concrete(Abstract):\n    def greeting(self): ...\n"
        }
    )
    assert found("bases") == ["Concrete"]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise LookupError('half way')", "LookupError: half way"),
        ("class", "SyntaxError: invalid syntax"),
        (
            "class A:\n    @on_event('order..created')\n    def hear(self, event): ...",
            "InvalidEventName: .*empty segment",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_cause(write: Write, source: str, cause: str) -> None:
    write({"broken.py": source})
    with pytest.raises(InvalidListener, match=f"^listener broken: cannot be imported: {cause}") as caught:
        find_listeners(["broken"])
    assert caught.value.name == "broken"
    assert caught.value.__cause__ is not None


def test_a_module_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidListener, match="listener no_such_listeners: cannot be imported: ModuleNotFoundError"):
        find_listeners(["no_such_listeners"])


def test_a_broken_submodule_is_named_with_the_cause(write: Write) -> None:
    write({"house/__init__.py": "", "house/a.py": listener("A"), "house/broken.py": "1 / 0"})
    with pytest.raises(InvalidListener, match=r"listener house\.broken: cannot be imported: ZeroDivisionError"):
        find_listeners(["house"])


def test_a_module_without_listeners_is_refused(write: Write) -> None:
    write({"full.py": listener("A"), "bare.py": "class Plain: ..."})
    with pytest.raises(InvalidListener, match="listener bare: has no class"):
        find_listeners(["full", "bare"])


def test_a_mark_outside_a_class_is_refused_instead_of_being_deaf(write: Write) -> None:
    write({"loose.py": listener("A") + "@on_event('x')\ndef hear(event): ...\n"})
    with pytest.raises(InvalidListener, match=r"loose\.hear: is marked by @on_event but is not a method"):
        find_listeners(["loose"])


# ---- binding ----


async def test_listeners_hear_events_from_entry_to_exit(write: Write) -> None:
    write({"orders.py": listener("Orders", "order.*")})
    bus, service = EventBus(), Service()
    bus.open()
    found_only = bind(["orders"], bus, service)
    bus.emit("order.early")
    with found_only:
        bus.emit("order.created")
        bus.emit("user.registered")
    bus.emit("order.late")
    assert service.sent == [("Orders", "order.created")]


async def test_events_emitted_before_the_listeners_are_bound_reach_them(write: Write) -> None:
    write({"orders.py": listener("Orders")})
    bus, service = EventBus(), Service()
    bus.emit("order.created")
    with bind(["orders"], bus, service):
        bus.open()
    assert service.sent == [("Orders", "order.created")]


async def test_two_applications_construct_and_bind_their_own_listeners(write: Write) -> None:
    write({"orders.py": listener("Orders")})
    (one, first), (two, second) = (EventBus(), Service()), (EventBus(), Service())
    one.open()
    two.open()
    with bind(["orders"], one, first):
        with bind(["orders"], two, second):
            one.emit("only.one")
            two.emit("only.two")
        two.emit("nobody.left")
        one.emit("still.one")
    assert first.sent == [("Orders", "only.one"), ("Orders", "still.one")]
    assert second.sent == [("Orders", "only.two")]


async def test_every_kind_of_method_is_bound_with_its_priority_and_once(write: Write) -> None:
    write(
        {
            "kinds.py": """
class Kinds:
    def __init__(self, notifications):
        self.send = Kinds.send = notifications.send_notification

    @on_event("x")
    def plain(self, event): self.send("plain")

    @on_event("x", priority=2, once=True)
    def first(self, event): self.send("first")

    @on_event("x", "y", priority=1)
    async def later(self, event): self.send(f"later {event.name}")

    @on_event("x")
    @classmethod
    def of_class(cls, event): cls.send("class")

    @staticmethod
    @on_event("x")
    def static(event): Kinds.send("static")
"""
        }
    )
    bus, service = EventBus(), Service()
    bus.open()
    with bind(["kinds"], bus, service):
        await bus.publish("x")
        assert service.sent == ["first", "plain", "class", "static", "later x"]
        service.sent.clear()
        await bus.publish("y")
        await bus.publish("x")
        assert service.sent == ["later y", "plain", "class", "static", "later x"]


async def test_inherited_marks_count_unless_the_method_is_overridden_without_one(write: Write) -> None:
    write(
        {
            "family.py": listener("_Base", "x")
            + "class Heir(_Base): ...\n"
            + "class Rebel(_Base):\n    def hear(self, event): raise AssertionError\n"
            + "    @on_event('x')\n    def listen(self, event): self.notifications.send_notification('own')\n"
        }
    )
    bus, service = EventBus(), Service()
    bus.open()
    with bind(["family"], bus, service):
        await bus.publish("x")
    assert service.sent == [("_Base", "x"), "own"]


@pytest.mark.parametrize(
    ("head", "cause"),
    [
        ("def __init__(self): ...", "TypeError"),
        ("def __init__(self, notifications): raise LookupError('no database')", "LookupError: no database"),
    ],
)
async def test_a_class_that_cannot_be_constructed_is_named_and_nothing_is_bound(
    write: Write, head: str, cause: str
) -> None:
    write(
        {
            "sound.py": listener("Sound"),
            "broken.py": f"class Broken:\n    {head}\n    @on_event('x')\n    def hear(self, event): ...\n",
        }
    )
    bus, service = EventBus(), Service()
    bus.open()
    with pytest.raises(InvalidListener, match=rf"^listener broken\.Broken: cannot be constructed: {cause}"):
        bind(["sound", "broken"], bus, service).__enter__()
    bus.emit("x")
    assert service.sent == []


async def test_a_failing_listener_is_logged_by_its_qualified_name(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write({"orders.py": listener("Orders").replace("event.name", "event.payload['id']")})
    bus = EventBus()
    bus.open()
    with bind(["orders"], bus, Service()):
        bus.emit("order.created", {})
    assert "handler orders.Orders.hear failed at event order.created" in caplog.text


async def test_binding_to_a_closed_bus_is_refused(write: Write) -> None:
    write({"orders.py": listener("Orders")})
    bus = EventBus()
    await bus.aclose()
    with pytest.raises(ShuttingDown):
        bind(["orders"], bus, Service()).__enter__()
