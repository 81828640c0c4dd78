"""What imports what: the command line starts without torch, the engine knows no terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

import engine

LIGHT = ("base.errors", "base.settings", "base.registry", "base.seeds", "base.files", "base.status", "base.control")
LIGHT += ("base.device", "presets.catalog", "presets.preset", "runs.reader", "runs.provenance", "runs.writer")
LIGHT += ("runs.store", "runs.results", "distributed.parallel", "evaluation.scale", "evaluation.transfer_plan")
LIGHT += (
    "comparison",
    "export",
    "jobs.meta_training_job",
    "jobs.transfer_job",
    "jobs.spawn",
    "jobs.job_runner",
    "worker",
)
LIGHT += ("study.plan.document", "study.plan.state", "study.report.report", "study.schedule.loop")


def loaded_after(statement: str) -> set[str]:
    """The top-level modules in a fresh interpreter after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import engine, lreg_tui, lreg_tui.app",
        "import lreg_tui.cli.app",
        "import " + ", ".join(f"engine.{module}" for module in LIGHT),
    ],
)
def test_starts_without_torch(statement):
    assert not loaded_after(statement) & {"torch", "torchvision", "scipy", "numpy"}


def test_the_engine_knows_no_terminal():
    everything = "import pkgutil, importlib, engine\n" + (
        "for module in pkgutil.walk_packages(engine.__path__, 'engine.'):\n    importlib.import_module(module.name)"
    )
    assert not loaded_after(everything) & {"textual", "rich", "typer", "lreg_tui"}


def test_what_the_engine_offers_is_listed_for_completion():
    assert {"load_optimizer", "meta_train", "penalties"} <= set(dir(engine))
