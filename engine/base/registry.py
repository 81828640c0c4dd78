"""Registry: name -> class. Members are found by importing every file of a folder and the plug-ins on the first look-up.

So a new penalty, learned optimizer, optimizee or dataset is one new file with one registered class.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from engine.base import plugins
from engine.base.arguments import plain
from engine.base.errors import Problem, SettingsError
from engine.base.settings import Setting, check_table, did_you_mean, schema_of, show

T = TypeVar("T")
Member = TypeVar("Member", bound=type)


_registrations = 0


def registered() -> int:
    """How many classes this process has registered so far: what was listed before the last of them is out of date."""
    return _registrations


class Registry(Generic[T]):
    """The members of one family (`concept`, as in "penalty"), classes of `base`, one file each, in `package`."""

    def __init__(self, concept: str, package: str, base: type = object) -> None:
        self.concept = concept
        self.base = base
        self.package = package
        self._members: dict[str, type[T]] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[Member], Member]:
        """Class decorator: make the class a frozen dataclass of its settings and know it by `name`."""

        def decorate(cls: Member) -> Member:
            if not isinstance(cls, type) or not issubclass(cls, self.base):
                raise TypeError(f"{name!r} is registered as {self.concept}, and is no class of {self.base.__name__}")
            if cls.__module__.partition(".")[0] != self.package.partition(".")[0]:
                self._load_own()  # first: a name that is taken is the mistake of the one from outside
            cls = cast(Member, dataclass(frozen=True, kw_only=True, eq=False)(cls))
            prior = self._members.get(name, cls)
            if (prior.__module__, prior.__qualname__) != (cls.__module__, cls.__qualname__):  # equal: loaded again
                raise ValueError(f"two {self.concept} classes are registered as {name!r}")
            cls.name = name  # type: ignore[attr-defined]
            self._members[name] = cls
            global _registrations
            _registrations += 1
            return cls

        return decorate

    def names(self) -> tuple[str, ...]:
        self._load()
        return tuple(sorted(self._members))

    def schemas(self) -> dict[str, tuple[Setting, ...]]:
        return {name: schema_of(self._members[name]) for name in self.names()}

    def __getitem__(self, name: str) -> type[T]:
        self._load()
        if not isinstance(name, str) or name not in self._members:
            names = self.names()
            hint = did_you_mean(name, names) if isinstance(name, str) else ""
            problem = Problem(self.concept, show(name), "one of: " + ", ".join(names), hint)
            raise SettingsError([problem])
        return self._members[name]

    def create(self, name: str, **settings: Any) -> T:
        """Build a member from settings by name; numbers of numpy and torch count as Python's.

        Raises SettingsError that lists every unknown or unfit setting.
        """
        cls = self[name]
        values, problems = check_table({key: plain(value) for key, value in settings.items()}, schema_of(cls), name)
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    def _load(self) -> None:
        self._load_own()
        plugins.load()

    def _load_own(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True  # members that register meanwhile are of the package
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._is_loaded = False
            raise
