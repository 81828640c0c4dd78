"""What the console remembers from one time to the next: theme, layout, filter. A file in the user's state folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.base.files import read_json, write_atomic

MOST_VIEWS = 100  # that are remembered


@dataclass(frozen=True)
class Session:
    """`views` holds what single screens want to find again, by name; what was changed last stands last."""

    theme: str = "lreg-dark"
    views: Mapping[str, Any] = field(default_factory=dict)

    def with_view(self, name: str, **values: Any) -> Session:
        """A copy in which a screen's values are changed."""
        other_views = [(key, view) for key, view in self.views.items() if key != name]
        return replace(self, views={**dict(other_views[1 - MOST_VIEWS :]), name: {**self.view(name), **values}})

    def view(self, name: str) -> Mapping[str, Any]:
        view = self.views.get(name)
        return view if isinstance(view, dict) else {}


def path() -> Path:
    from platformdirs import user_state_path

    return user_state_path("lreg") / "console.json"


def load(where: Path | None = None) -> Session:
    """The session as it was left; the default where there is none, or a damaged one."""
    stored = read_json(where or path())
    kinds = {item.name: type(getattr(Session(), item.name)) for item in fields(Session)}
    return Session(**{key: stored[key] for key, kind in kinds.items() if isinstance(stored.get(key), kind)})


def save(session: Session, where: Path | None = None) -> None:
    """Keep it. A state folder that cannot be written costs the memory, nothing else."""
    target = where or path()
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, json.dumps(asdict(session), indent=1) + "\n", durable=False)
