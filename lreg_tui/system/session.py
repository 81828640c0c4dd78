"""What the console remembers from one time to the next: theme, layout, filter. A file in the user's state folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.base.files import read_json, write_atomic

MOST_STORES = 100  # that are remembered


@dataclass(frozen=True)
class Session:
    """`views` holds what single screens want to find again, by screen name; `stores` what only fits the runs that it
    was chosen for, by run store and screen name, the newest store last.
    """

    theme: str = "lreg-dark"
    views: Mapping[str, Any] = field(default_factory=dict)
    stores: Mapping[str, Any] = field(default_factory=dict)

    def with_view(self, screen: str, **values: Any) -> Session:
        """A copy in which a screen's values are changed."""
        known = self.views.get(screen)
        return replace(self, views={**self.views, screen: {**(known if isinstance(known, dict) else {}), **values}})

    def view(self, screen: str) -> Mapping[str, Any]:
        found = self.views.get(screen)
        return found if isinstance(found, dict) else {}

    def with_view_of(self, store: Path, screen: str, **values: Any) -> Session:
        """A copy in which a screen's values are changed for one run store."""
        others = {key: known for key, known in self.stores.items() if key != str(store)}
        few = dict(list(others.items())[1 - MOST_STORES :])
        known = self.stores.get(str(store))
        views = known if isinstance(known, dict) else {}
        return replace(self, stores={**few, str(store): {**views, screen: {**self.view_of(store, screen), **values}}})

    def view_of(self, store: Path, screen: str) -> Mapping[str, Any]:
        views = self.stores.get(str(store))
        found = views.get(screen) if isinstance(views, dict) else None
        return found if isinstance(found, dict) else {}


def path() -> Path:
    from platformdirs import user_state_path

    return user_state_path("lreg") / "console.json"


def load(where: Path | None = None) -> Session:
    """The session as it was left; the default where there is none, or a damaged one."""
    found = read_json(where or path())
    kinds = {item.name: type(getattr(Session(), item.name)) for item in fields(Session)}
    return Session(**{key: found[key] for key, kind in kinds.items() if isinstance(found.get(key), kind)})


def save(session: Session, where: Path | None = None) -> None:
    """Keep it. A state folder that cannot be written costs the memory, nothing else."""
    target = where or path()
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, json.dumps(asdict(session), indent=1) + "\n", durable=False)
