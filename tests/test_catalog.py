"""The catalog is true, cheap, and no trouble: not where its cache is damaged, unwritable or shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base.errors import LregError
from engine.presets import catalog as catalogs
from engine.presets.catalog import Catalog

ROOT = Path(__file__).parent.parent
ASK = (
    "from pathlib import Path; from engine.presets import catalog\n"
    "catalog.user_cache_path = lambda name: Path({cache!r})\n"
    "found = catalog.load(); import sys\n"
    "print(len(found.penalties), 'torch' in sys.modules)"
)


@pytest.fixture(scope="module")
def built() -> Catalog:
    return catalogs.build()


@pytest.fixture
def cache(tmp_path, monkeypatch, built):
    """An empty cache folder; a process without torch, which forgets what it knew; a child that answers at once."""
    monkeypatch.setattr(catalogs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(catalogs, "_ask_child", lambda: built)
    monkeypatch.delitem(sys.modules, "torch")
    catalogs._installed.cache_clear()
    yield tmp_path / "cache" / "lreg"
    catalogs._installed.cache_clear()


def no_asking(monkeypatch):
    def fail():
        raise AssertionError("the cache should have answered")

    monkeypatch.setattr(catalogs, "_ask_child", fail)


def test_it_survives_json(built):
    assert Catalog.from_json(json.loads(json.dumps(built.to_json()))) == built


def test_what_picks_members(built):
    assert built.selectors("optimizer") == [("kind", "dm", built.learned_optimizers)]
    assert [(key, default) for key, default, _ in built.selectors("task")] == [
        ("dataset", "digits"),
        ("optimizee", "mlp"),
    ]
    assert built.selectors("meta") == [("estimator", "tbptt", built.estimators)]
    assert built.selectors("evaluation") == []


def test_it_is_built_once_and_then_read(cache, built, monkeypatch):
    assert catalogs.load() == built
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    no_asking(monkeypatch)
    assert catalogs.load() is catalogs.load()
    catalogs._installed.cache_clear()
    assert catalogs.load() == built


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", "null", "{}", '{"sections": 3}', "\udcff\udcfe", "[" * 5000])
def test_a_damaged_cache_is_built_again(cache, built, damage):
    catalogs.load()
    (file,) = cache.iterdir()
    for content in (damage.encode(errors="surrogateescape"), file.read_bytes()[:-100]):
        file.write_bytes(content)
        catalogs._installed.cache_clear()
        assert catalogs.load() == built
        assert Catalog.from_json(json.loads(file.read_text())) == built


def test_a_pipe_in_place_of_the_cache_is_not_waited_for(cache, built):
    catalogs.load()
    (file,) = cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    catalogs._installed.cache_clear()
    assert catalogs.load() == built
    assert Catalog.from_json(json.loads(file.read_text())) == built


def test_a_cache_that_cannot_be_written_costs_time_only(cache, built, tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    assert catalogs.load() == built


def test_a_full_disk_leaves_nothing_half_written(cache, built, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert catalogs.load() == built
    assert list(cache.iterdir()) == []


OWN_MEMBER = """
import torch
from engine import load_preset
from engine.penalties.base import PENALTIES, GeometricPenalty
from engine.presets import catalog

before = catalog.load()

@PENALTIES.register("of_a_script")
class OfAScript(GeometricPenalty):
    def at(self, loss, theta, value, gradient):
        return value, gradient

assert "of_a_script" not in before.penalties and "of_a_script" in catalog.load().penalties
assert "of_a_script" in load_preset("quickstart", ["penalty.of_a_script.weight=1"])["penalty"]
del PENALTIES._members["sam"]
"""


def test_what_a_script_registers_or_takes_away_counts_in_its_process_alone(tmp_path):
    """Whoever asks next, with the same cache, hears of what is installed: so a check and a run agree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for code, seen in ((OWN_MEMBER, ""), ("from engine.presets.catalog import load; print(*load().penalties)", "sam")):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "of_a_script" not in done.stdout and seen in done.stdout.split() + [""]


def test_files_that_change_while_they_are_listed_are_not_cached(cache, built, monkeypatch):
    names = iter("ab")
    monkeypatch.setattr(catalogs, "_fingerprint", lambda: next(names))
    assert catalogs.load() == built
    assert not cache.exists()


def test_any_change_of_an_engine_file_changes_the_fingerprint(tmp_path, monkeypatch):
    copy = tmp_path / "engine"
    shutil.copytree(ROOT / "engine", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(catalogs, "__file__", str(copy / "catalog.py"))
    seen = {catalogs._fingerprint()}
    file = copy / "penalties" / "sam.py"
    times = file.stat()
    file.write_text(file.read_text().replace("0.01", "0.02"))  # same size, and the same time
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    seen.add(catalogs._fingerprint())
    (copy / "penalties" / "new.py").write_text("")
    seen.add(catalogs._fingerprint())
    (copy / "penalties" / "new.py").rename(copy / "penalties" / "newer.py")
    seen.add(catalogs._fingerprint())
    assert len(seen) == 4
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert catalogs._fingerprint() not in seen
    monkeypatch.undo()
    monkeypatch.setattr(catalogs, "__file__", str(copy / "catalog.py"))
    (copy / ".#lock.py").symlink_to("nobody@nowhere")  # as an editor leaves it
    (copy / "notes.txt").write_text("")
    assert catalogs._fingerprint() in seen


def test_two_processes_without_torch_build_it_at_once(tmp_path):
    """In a folder whose files are called like modules: the child looks where its parent does, and nowhere else."""
    (tmp_path / "here").mkdir()
    for name in ("torch", "json", "engine", "sitecustomize"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "ask.py").write_text(ASK.format(cache=str(tmp_path / "cache")))
    runs = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "ask.py")],
            cwd=tmp_path / "here",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert (run.returncode, out) == (0, f"{len(catalogs.build().penalties)} False\n"), err
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".json"]


def test_a_child_that_fails_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so: \\x1b[31m not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LregError) as caught:
        catalogs._ask_child()
    message = str(caught.value)
    assert message.startswith("the engine cannot be loaded: ImportError: libcudart.so") and message.isprintable()


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [(-9, "", "", "exit code -9"), (0, "", "", "something else"), (0, "hello", "", "something else")],
)
def test_a_child_that_says_nothing_useful(monkeypatch, code, out, err, words):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code, out, err))
    with pytest.raises(LregError, match=words):
        catalogs._ask_child()


def test_a_child_may_chatter(monkeypatch, built):
    text = "a library says hello\n" + json.dumps(built.to_json()) + "\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, text, ""))
    assert catalogs._ask_child() == built


def test_only_a_few_cached_catalogs_are_kept(cache):
    cache.mkdir(parents=True)
    for number in range(20):
        old = cache / f"catalog-{number:016x}.json"
        old.write_text("{}")
        os.utime(old, (number, number))
    catalogs._installed.cache_clear()
    catalogs.load()
    kept = sorted(path.name for path in cache.glob("catalog-*.json"))
    assert len(kept) == catalogs.KEPT and f"catalog-{19:016x}.json" in kept and f"catalog-{0:016x}.json" not in kept
