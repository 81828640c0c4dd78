"""Keeping a study: what its report is made of, in the files that a run store has, written into a folder of its own.

What tells of a machine is left out: hosts, processes, commands, folders. Of the learned optimizers only winners stay.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import RunError
from engine.base.files import read_limited, strict, write_atomic
from engine.base.status import LIVE
from engine.runs.evaluations import read_facts
from engine.runs.kinds import STUDY, TRANSFER
from engine.runs.provenance import machine_of, system_of
from engine.runs.reader import KEPT_TRANSFERS, RunReader
from engine.study.plan.kept import (
    LARGEST,
    MANIFEST,
    added_files,
    command,
    digest_of,
    is_kept,
    log_in_short,
    study_in,
    without_places,
)
from engine.study.plan.plan import StudyPlan
from engine.study.plan.state import TRIALS, plan_of, trials_of
from engine.study.report.evidence import Evidence, gather
from engine.study.report.report import Draw, write_report

FACTS = ("id", "name", "kind", "created", "seed", "device", "parent", "versions", "git")
STATUS = ("state", "step", "total", "device", "heartbeat")
EVALUATED = ("evaluated_steps", "validation_loss", "validation_mean_loss")  # in the records of evaluations
CURVE = ("t", "step", "meta_loss")  # of the others, for the figure of meta-training
Files = Iterator[tuple[str, str | bytes]]
"""Paths in the kept store, and what is there."""


def keep(folder: Path, target: Path, draw: Draw | None = None) -> Path:
    """Keep the study in a folder in `target`, which is made whole or not at all; returns the path of its report there.

    What is there already is replaced where it is the same study, kept before. Raises RunError where it is something
    else, where something of the study is still at work, or where nothing can be written.
    """
    plan, target = plan_of(folder), Path(os.path.abspath(target))
    study = gather(plan, folder)
    _check_at_rest(study)
    _check_free(target, plan)
    new, old = (target.with_name(f".{target.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        try:
            _write(new, study)
            report = write_report(plan, new / STUDY.home / folder.name, draw)
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{error.filename or target}: {error.strerror or error}; nothing was kept") from None
    return target / report.relative_to(new)


def _check_at_rest(study: Evidence) -> None:
    readers = [RunReader(study.folder), *(piece.run for piece in study.seen.pieces if piece.state != "missing")]
    if busy := next((reader.id for reader in readers if reader.state in (*LIVE, "crashed")), ""):
        raise RunError(f"study {study.folder.name}: {busy} has not come to rest; finish or stop the study first")


def _check_free(target: Path, plan: StudyPlan) -> None:
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    if not is_kept(target):
        raise RunError(f"{target}: not empty, and no kept study")
    if (before := plan_of(study_in(target).path).name) != plan.name:
        raise RunError(f"{target}: another study is kept there: {before}")
    if added := added_files(target):
        raise RunError(f"{target}: {added[0]} was added to what is kept there, and would be lost")


def _write(store: Path, study: Evidence) -> None:
    store.mkdir(parents=True)
    digests = {}
    for name, content in _files(study):
        data = content.encode() if isinstance(content, str) else content
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(store / name, data, durable=False)
        digests[name] = digest_of(data)
    write_atomic(store / MANIFEST, _json({"files": digests}))


def _files(study: Evidence) -> Files:
    yield from _in(f"{STUDY.home}/{study.folder.name}", _study(study))
    reported = {run.reader.id for arm in (*study.arms.values(), *study.others.values()) for run in arm.runs}
    winning = {run.reader.id for arm in study.arms.values() for run in arm.runs}
    for run in (cell.run for cell in study.seen.cells if cell.state != "missing"):
        yield from _in(run.id, _run(run, is_shown=run.id in reported, is_winner=run.id in winning))
    for job in (job.run for job in study.seen.transfers if job.state != "missing"):
        yield from _in(f"{TRANSFER.home}/{job.id}", _common(job))


def _in(folder: str, files: Files) -> Files:
    return ((f"{folder}/{name}", content) for name, content in files)


def _study(study: Evidence) -> Files:
    reader = RunReader(study.folder)
    yield "study.json", study.plan.dumps()
    if study.plan.search is not None:
        yield TRIALS, _json(trials_of(study.folder))
    yield from _common(reader, argv=command(study.plan.name, reader.facts))


def _common(reader: RunReader, **facts: Any) -> Files:
    told, status = reader.facts, reader.recorded_status()
    record = {key: told[key] for key in FACTS if key in told}
    plugins = [plugin for plugin in told.get("plugins") or () if isinstance(plugin, dict)]
    record["plugins"] = [{key: without_places(str(value)) for key, value in plugin.items()} for plugin in plugins]
    yield "run.json", _json(record | {"platform": system_of(told), "cpu": machine_of(told)} | facts)
    values = {key: getattr(status, key) for key in STATUS} | {"message": without_places(status.message)}
    yield "status.json", _json(values | {"latest": reader.figures()})
    yield "log.txt", log_in_short(reader.path)


def _run(run: RunReader, is_shown: bool, is_winner: bool) -> Files:
    yield from _common(run)
    yield "preset.toml", read_limited(run.path / "preset.toml", below=run.path)
    yield "metrics.jsonl", "".join(f"{_line(record)}\n" for record in _records(run, is_shown))
    if (run.path / "metrics.json").is_file():
        yield "metrics.json", read_limited(run.path / "metrics.json", below=run.path)
    if is_shown and (transfers := run.transfers()):
        lines = [_line({"name": name, **_evaluation(facts)}) for name, facts in sorted(transfers.items())]
        text = "".join(f"{line}\n" for line in lines)
        yield KEPT_TRANSFERS, gzip.compress(text.encode(), mtime=0)  # the same bytes each time
    if is_winner and (checkpoint := run.checkpoints().get("best")):
        yield "checkpoint/best.safetensors", read_limited(checkpoint, LARGEST, run.path)


def _records(run: RunReader, is_shown: bool) -> Iterator[Mapping[str, Any]]:
    """What was evaluated, whole; of the other meta-steps, where the run is shown, the curve."""
    for record in RunReader(run.path).records():
        if any(name in record for name in EVALUATED):
            yield record
        elif is_shown and "meta_loss" in record:
            yield {key: record[key] for key in CURVE if key in record}


def _evaluation(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the learning curves of the reference's scales and decays, which nothing draws."""
    read = read_facts(facts)
    if read is None or (read.scale, read.weight_decay, read.sam) == (1.0, 0.0, 0.0):
        return facts
    if not isinstance(seeds := facts.get("seeds"), list):
        return facts
    without = [{key: seed[key] for key in seed if key != "curve"} if isinstance(seed, dict) else seed for seed in seeds]
    return {**facts, "seeds": without}


def _json(value: Any) -> str:
    return json.dumps(strict(value), indent=1) + "\n"


def _line(value: Any) -> str:
    return json.dumps(strict(value), separators=(",", ":"))
