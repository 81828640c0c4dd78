"""Checkpoints are the old one or the new one, and a damaged one is one clear line."""

from __future__ import annotations

import math
import resource
import subprocess
import sys

import pytest
import torch

from engine.base.errors import RunError
from engine.runs import checkpoint

TENSORS = {
    "phi": torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7,
    "generator": torch.Generator().manual_seed(3).get_state(),
    "count": torch.tensor(5),
    "empty": torch.empty(0, 4),
    "alive": torch.tensor([True, False]),
}
VALUES = {"step": 2**60, "best": math.inf, "third": 1 / 3, "nested": {"list": [1, 2.5, None, "ü"]}}


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path):
    shared = torch.arange(10.0)
    tensors = {**TENSORS, "part": shared[2:5], "other": shared, "transposed": torch.arange(6.0).reshape(2, 3).T}
    checkpoint.save(tmp_path / "checkpoint", "last", tensors, VALUES)
    found, values = checkpoint.load(tmp_path / "checkpoint", "last")
    assert values == VALUES and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert (tmp_path / "checkpoint" / "last.json").read_text().count("Infinity") == 0


def test_the_readable_copy_is_not_what_is_loaded(tmp_path):
    checkpoint.save(tmp_path, "last", TENSORS, VALUES)
    (tmp_path / "last.json").write_text("damaged")
    assert checkpoint.load(tmp_path, "last")[1] == VALUES


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_clear_line(tmp_path, kept):
    checkpoint.save(tmp_path, "last", TENSORS, VALUES)
    path = tmp_path / "last.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(
        RunError, match=r"last\.safetensors: damaged checkpoint .*; start again with: lreg run"
    ) as error:
        checkpoint.load(tmp_path, "last")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 64, b"garbage" * 100])
def test_garbage_is_one_clear_line(tmp_path, data):
    (tmp_path / "last.safetensors").write_bytes(data)
    with pytest.raises(RunError, match="damaged checkpoint"):
        checkpoint.load(tmp_path, "last")


def test_a_strangers_safetensors_file_is_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "best.safetensors")
    with pytest.raises(RunError, match="damaged checkpoint"):
        checkpoint.load(tmp_path, "best")


def test_a_missing_checkpoint_is_named(tmp_path):
    assert not checkpoint.exists(tmp_path, "best")
    with pytest.raises(RunError, match=r"best\.safetensors: no such checkpoint"):
        checkpoint.load(tmp_path, "best")


FILL = """
import resource, sys, torch
from pathlib import Path
from engine.runs import checkpoint
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(folder, "last", {"phi": torch.ones(100_000)}, {"step": 2})
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits")
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    checkpoint.save(tmp_path, "last", {"phi": torch.zeros(3)}, {"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    child = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True)
    assert child.stdout.strip() == "File too large", child.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
