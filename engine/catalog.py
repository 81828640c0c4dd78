"""Catalog: every setting of every section and member, as plain data.

Settings are declared beside the mathematics, in files that import torch, which takes seconds. The catalog lists them once
(in a child process where this one has no torch) and answers from a cache afterwards, so that checking a preset, shell
completion and the console never wait for torch. The cache is keyed by the engine's files, so it cannot be stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from engine.errors import LregError
from engine.settings import Setting

Schema = tuple[Setting, ...]


@dataclass(frozen=True)
class Catalog:
    """Schemas by section ("task", "optimizer", "meta", "evaluation") and by member of each family."""

    sections: dict[str, Schema]
    datasets: dict[str, Schema]
    optimizees: dict[str, Schema]
    learned_optimizers: dict[str, Schema]
    penalties: dict[str, Schema]

    def to_json(self) -> dict[str, Any]:
        return {
            family: {name: [item.to_json() for item in schema] for name, schema in schemas.items()}
            for family, schemas in vars(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Catalog:
        return cls(
            **{
                family: {name: tuple(Setting.from_json(item) for item in schema) for name, schema in schemas.items()}
                for family, schemas in values.items()
            }
        )


def build() -> Catalog:
    """List every setting by importing the engine; takes seconds when torch is not loaded yet."""
    from engine.datasets.base import DATASETS
    from engine.evaluation import EvaluationSettings
    from engine.learned_optimizers.base import LEARNED_OPTIMIZERS
    from engine.meta import MetaSettings
    from engine.optimizees.base import OPTIMIZEES
    from engine.penalties.base import PENALTIES
    from engine.settings import schema_of
    from engine.tasks import TaskSettings

    sections = {"task": TaskSettings, "meta": MetaSettings, "evaluation": EvaluationSettings}
    return Catalog(
        sections={name: schema_of(cls) for name, cls in sections.items()},
        datasets=DATASETS.schemas(),
        optimizees=OPTIMIZEES.schemas(),
        learned_optimizers=LEARNED_OPTIMIZERS.schemas(),
        penalties=PENALTIES.schemas(),
    )


@cache
def load() -> Catalog:
    """The catalog, the cheapest way: cached on disk, else built here if torch is loaded, else by a child process."""
    path = user_cache_path("lreg") / f"catalog-{_fingerprint()}.json"
    try:
        return Catalog.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # absent, or damaged: built again below
    text = json.dumps(build().to_json()) if "torch" in sys.modules else _ask_child()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return Catalog.from_json(json.loads(text))


def _ask_child() -> str:
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.run(
        [sys.executable, "-m", "engine.catalog"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    if child.returncode != 0:
        raise LregError(f"the engine cannot be loaded: {child.stderr.strip().splitlines()[-1:] or child.returncode}")
    return child.stdout


def _fingerprint() -> str:
    """Changes whenever a file of the engine does."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        status = path.stat()
        digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(build().to_json()))
