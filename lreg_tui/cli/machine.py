"""The machine: doctor."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from platformdirs import user_cache_path

from engine.base import plugins
from engine.base.device import pick_device
from engine.base.errors import LregError, Problem, SettingsError
from engine.presets import catalog
from engine.presets.preset import load_preset
from engine.runs.store import RunStore
from lreg_tui import __version__
from lreg_tui.cli import output
from lreg_tui.cli.options import AsJson, DataDir, Device, Plugins, RunsDir, Sets, complete_preset, flag, option
from lreg_tui.text import present

if TYPE_CHECKING:
    import torch

LOW_SPACE = 2 * 2**30
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "safetensors", "textual", "rich", "typer")
DATASETS = {  # a file that each dataset has in the data folder
    "digits": "",
    "shakespeare-excerpt": "",
    "friedman": "",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fmnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
}
BY_HAND = {  # what is not downloaded, and what each may lie in
    "sst2": ("sst2/train.txt",),
    "tinyshakespeare": ("tinyshakespeare/input.txt",),
    "omniglot": ("omniglot-py.zip", "omniglot-py"),
    "tiny-imagenet": ("tiny-imagenet-200", "tiny-imagenet-200.zip"),
    "cifar100-60": ("cifar100-60.zip", "cifar100-60"),
}


@dataclass(frozen=True)
class MachineCheck:
    """One thing that was looked at. `problem`: something will not work as it is."""

    what: str
    found: str
    problem: bool = False


NO_GPU = MachineCheck("GPU", "none that CUDA can use; runs use the CPU", problem=True)
GPU = "Try kernels and CUDA graphs on the GPU anew, for their speed and their numbers: a report for an issue."


def doctor(
    plan: Annotated[
        str | None,
        option("--plan", "PRESET", "What a run of a preset will take in memory, and nothing else.", complete_preset),
    ] = None,
    sets: Sets = None,
    gpu: Annotated[bool, flag("--gpu", GPU)] = False,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """What is installed, and where data, runs and GPU are; or what a run will take in memory before it begins.

    A plan counts tensors, on the device that a run would take: Python and its libraries come on top, half a gigabyte.
    """
    if gpu and (plan is not None or sets):
        raise LregError("--gpu, --plan and --set exclude each other" if plan else "--set is for --plan PRESET")
    if gpu:
        _gpu(device, as_json)
        return
    if plan is not None:
        _plan(plan, sets or (), device, data_dir, as_json)
        return
    if sets or device:
        raise SettingsError([Problem("--set" if sets else "--device", "without a preset", "beside --plan PRESET")])
    store = RunStore(runs_dir)
    folders = [_folder("runs folder", store.root), _folder("cache folder", user_cache_path("lreg"))]
    folders.append(MachineCheck("runs", str(len(store.list()))))
    _show([*_software(), *_devices(), *_processor(), *_data(data_dir), *folders, *_plugins()], as_json)


def _show(findings: Iterable[MachineCheck], as_json: bool) -> None:
    """A table at the end, or a JSON line for each as soon as it is there."""
    table = output.grid(3)
    for finding in findings:
        if as_json:
            output.emit(asdict(finding))
        mark = present.text("problem", "bold red") if finding.problem else present.text("ok", "green")
        table.add_row(mark, present.text(finding.what, "bold"), present.text(finding.found))
    if not as_json:
        output.console().print(table)


def _gpu(device: str | None, as_json: bool) -> None:
    """Kernels and recordings on the GPU. Raises LregError where there is none."""
    where = pick_device(device or "auto")
    if where.type != "cuda":
        if as_json:
            output.emit(asdict(NO_GPU))
        raise LregError(f"--gpu: {where} is no GPU that CUDA can use" if device else f"--gpu: {NO_GPU.found}")
    from engine.bench.gpu import report

    def said() -> Iterator[MachineCheck]:
        for line in report(where):
            output.say(line[0])  # while the rest is still measured
            yield MachineCheck(*line)

    _show(said(), as_json)


def _plan(reference: str, sets: Sequence[str], device: str | None, data_dir: Path | None, as_json: bool) -> None:
    """The memory that a preset's meta-training takes, by part."""
    preset = load_preset(reference, sets)
    where = pick_device(device or "auto")
    from engine.jobs.from_preset import memory_plan
    from engine.meta_training.memory_plan import EVALUATION, PARTS, PASSING

    made, free = memory_plan(preset, device=where, data_dir=data_dir), _free_memory(where)
    if as_json:
        sums = {"training": made.training, "evaluation": made.evaluation, "total": made.total}
        output.emit({"preset": preset.name, "device": str(where), **asdict(made), **sums, "free": free})
        return
    console = output.console()
    side_by_side = f"{present.count(made.optimizees, 'optimizee')} of {made.parameters:,} parameters"
    console.print(present.text(f"{preset.name} on {where}: {made.task}, {side_by_side}, meta-gradient: {made.way}"))
    table = output.grid(3)
    for name, size in made.parts.items():
        words = PARTS[name] + (" (*)" if name in PASSING else " (**)" if name in EVALUATION else "")
        table.add_row(present.text(name.replace("_", " ")), present.text(present.size(size)), present.text(words))
    for name, size, words in (
        ("meta-training", made.training, "all but (**), and of (*), which pass one after another, the largest"),
        ("evaluation", made.evaluation, "parameters, optimizer state, data, and the larger of (**)"),
        ("peak", made.total, f"{present.size(free)} free{'' if made.total <= free else ': TOO LITTLE'}"),
    ):
        table.add_row(present.text(name, "bold"), present.text(present.size(size), "bold"), present.text(words))
    console.print(table)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _software() -> list[MachineCheck]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    findings = [
        MachineCheck("lreg", __version__),
        MachineCheck("python", f"{sys.version.split()[0]} ({sys.executable})"),
        MachineCheck("platform", platform.platform()),
    ]
    for package in PACKAGES:
        try:
            findings.append(MachineCheck(package, version(package)))
        except PackageNotFoundError:
            findings.append(MachineCheck(package, "not installed", problem=True))
    return findings


def _devices() -> list[MachineCheck]:
    try:
        import torch
    except Exception as error:  # whatever a broken installation raises is what is to be told
        return [MachineCheck("torch", f"cannot be imported: {error}", problem=True)]
    from engine import kernels
    from engine.bench import busy
    from engine.kernels import trial

    way, look = kernels.describe(torch.device("cpu")), busy.look()  # which compiles the kernels at first use
    findings = [
        MachineCheck("threads", f"{torch.get_num_threads()} CPU threads used by torch"),
        MachineCheck("CPU kernels", way, problem="because" in way),
        MachineCheck("speed", f"{look.summary} (lreg bench measures more)", problem=look.fewer_are_faster),
    ]
    if not torch.cuda.is_available():
        return [*findings, replace(NO_GPU, problem=False)]
    for index in range(torch.cuda.device_count()):
        name, (free, total) = torch.cuda.get_device_properties(index).name, torch.cuda.mem_get_info(index)
        memory = f"{present.size(free)} of {present.size(total)} free"
        findings.append(MachineCheck(f"cuda:{index}", f"{name}, {memory}, CUDA {torch.version.cuda}"))
    verdicts = [(cached.subject.text, cached.verdict.text) for cached in trial.verdicts() if cached.verdict is not None]
    return findings + [MachineCheck("trial", f"{subject}: {verdict}") for subject, verdict in verdicts]


def _processor() -> list[MachineCheck]:
    import psutil

    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    return [
        MachineCheck("CPU", f"{cores} cores, load {load:.1f}{' (busy)' if load > cores else ''}"),
        MachineCheck("memory", f"{present.size(memory.available)} of {present.size(memory.total)} free"),
    ]


def _data(data_dir: Path | None) -> list[MachineCheck]:
    configured = data_dir or os.environ.get("LREG_DATA_DIR")
    folder = Path(configured).expanduser() if configured else user_cache_path("lreg") / "data"
    stored = [name for name, file in DATASETS.items() if not file or (folder / file).exists()]
    missing = [name for name in DATASETS if name not in stored]
    note = f"; downloaded when used: {', '.join(missing)}" if missing else ""
    stored += [name for name, files in BY_HAND.items() if any((folder / file).exists() for file in files)]
    wrong = bool(configured) and not folder.is_dir()
    return [
        MachineCheck("data folder", f"{folder}{' (no such folder)' if wrong else ''}", problem=wrong),
        MachineCheck("datasets", ", ".join(stored) + note),
    ]


def _folder(name: str, path: Path) -> MachineCheck:
    """Can a file be written there, and is there room? What is missing is judged by the folder it would be made in."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".lreg-doctor-"):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return MachineCheck(name, f"{path} cannot be written: {error.strerror}", problem=True)
    low = free < LOW_SPACE
    note = "" if existing == path else ", not there yet"
    return MachineCheck(name, f"{path}{note}, {present.size(free)} free{' (little)' if low else ''}", problem=low)


def _plugins() -> list[MachineCheck]:
    """Those in use, with the beginning of their hash, after trying whether they can be loaded."""
    findings = []
    for plugin in plugins.in_use():
        try:
            plugin.load()
            findings.append(MachineCheck("plug-in", f"{plugin.name} ({plugin.origin}), sha256 {plugin.sha256()[:12]}"))
        except LregError as error:
            findings.append(MachineCheck("plug-in", str(error), problem=True))
    if findings and not any(finding.problem for finding in findings):
        members = [f"{family}: {', '.join(names)}" for family, names in catalog.added().items()]
        findings.append(MachineCheck("of plug-ins", "; ".join(members) or "no members"))
    return findings
