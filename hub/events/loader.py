"""The loader of listeners: classes found by module name and bound to the event bus of one application."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from reactivex.disposable import CompositeDisposable

from hub.errors import InvalidListener
from hub.events.bus import EventBus
from hub.events.event import Hearing, hearing_of, qualified_name

if TYPE_CHECKING:
    from hub.notifications import NotificationService

logger = logging.getLogger(__name__)


class Listeners:
    """The listener objects of one application: constructed and bound on entry, unbound on exit.

    Two applications share only the classes, not the objects, so each one handles its own events only.
    """

    def __init__(self, modules: Iterable[str], bus: EventBus, notifications: NotificationService) -> None:
        """Find the listener classes of *modules*.

        Raises:
            InvalidListener: a module cannot be imported, has no listener class, or marks a plain function.
        """
        self._classes = find_listeners(modules)
        self._bus, self._notifications = bus, notifications
        self._bindings = CompositeDisposable()

    def __enter__(self) -> Listeners:
        """Construct each class with the notification service, then bind the marked methods of all objects.

        Raises:
            InvalidListener: a class cannot be constructed; nothing was bound.
        """
        self._bindings = CompositeDisposable()
        for listener in [self._construct(cls) for cls in self._classes]:
            for name, hearing in marked_methods(type(listener)):
                self._bindings.add(
                    self._bus.on(
                        hearing.patterns, getattr(listener, name), priority=hearing.priority, once=hearing.once
                    )
                )
                logger.debug("%s.%s hears %s", qualified_name(type(listener)), name, ", ".join(hearing.patterns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bindings.dispose()

    def _construct(self, cls: Callable[[NotificationService], object]) -> object:
        try:
            return cls(self._notifications)
        except Exception as error:
            raise InvalidListener(qualified_name(cls), f"cannot be constructed: {_in_words(error)}") from error


def find_listeners(modules: Iterable[str]) -> list[type]:
    """Import *modules* and return their listener classes, each once, in the order in which they are found.

    A listener class has methods marked with `on_event`, is not abstract, and its name has no leading underscore.
    Of a module, the classes that it defines count. Of a package, those that it defines or imports into its namespace
    count, then those of its submodules, by name, at any depth.

    Raises:
        InvalidListener: a module cannot be imported, has no listener class, or marks a plain function.
    """
    found: dict[type, None] = {}
    for name in modules:
        classes = [cls for module in _with_submodules(_import(name)) for cls in _offered(module)]
        if not classes:
            raise InvalidListener(name, "has no class with a method marked by @on_event")
        found.update(dict.fromkeys(classes))
    return list(found)


def marked_methods(cls: type) -> Iterator[tuple[str, Hearing]]:
    """Yield the names and marks of the methods of *cls* marked with `on_event`, in the order of definition.

    Inherited methods come first. A method that overrides a marked one is a handler only if it is marked itself.
    """
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        hearing = hearing_of(inspect.getattr_static(cls, name))
        if hearing is not None:
            yield name, hearing


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InvalidListener(name, f"cannot be imported: {_in_words(error)}") from error


def _with_submodules(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for info in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        if not info.name.endswith(".__main__"):  # importing it would run the program
            yield from _with_submodules(_import(info.name))


def _offered(module: ModuleType) -> Iterator[type]:
    """Yield the listener classes of *module*; of a package, also those that it imports from elsewhere."""
    for value in vars(module).values():
        if isinstance(value, type):
            if (value.__module__ == module.__name__ or hasattr(module, "__path__")) and _is_listener(value):
                yield value
        elif inspect.isfunction(value) and value.__module__ == module.__name__ and hearing_of(value):
            raise InvalidListener(qualified_name(value), "is marked by @on_event but is not a method of a class")


def _is_listener(cls: type) -> bool:
    return not (cls.__name__.startswith("_") or inspect.isabstract(cls)) and any(marked_methods(cls))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
