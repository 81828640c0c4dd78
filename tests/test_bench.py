"""The bench: its reference is the same mathematics, its counts are the stated ones, nothing is left out silently."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from engine.base.errors import LregError
from engine.bench import busy, check, limits, memory, needs, scaling, works
from engine.bench import scene as scenes
from engine.bench.measure import Bench
from engine.bench.scene import RandomTask, Setup, network_of, scene
from engine.kernels.recompute import RecomputeTape

CPU = torch.device("cpu")
APART = (works.STEP, *works.PROBED)  # compared in other ways
SLOW = limits.Limits(flops_per_s=1e6, bytes_per_s=1e6)
FAST = limits.Limits(flops_per_s=1e15, bytes_per_s=1e15)


def small(piece: works.Workload, steps: int = 6):
    task = RandomTask("mlp", input_shape=(1, 4, 4), batch_size=8, device=CPU, dtype=torch.float64, hidden=[3])
    return scene(piece, task, steps)


class TestReference:
    @pytest.mark.parametrize(
        ("work", "optimizer"),
        [(work, name) for work, names in works.WORKS.items() if work not in APART for name in names],
    )
    def test_every_way_gives_its_numbers(self, work, optimizer, monkeypatch):
        """One optimizee at a time, by torch's own cells, against the engine's two optimizees side by side."""
        for way in ("auto", "rows", "plain", "recompute") if optimizer in works.NETWORKS else ("auto",):
            monkeypatch.setenv("LREG_KERNELS", way)
            assert check.largest_error(small(works.Workload(work, optimizer, "mlp", 2), 3)) < 1e-9, way

    @pytest.mark.parametrize("work", ["meta-train", "meta-train-smooth", "meta-train-sam"])
    def test_a_wrong_meta_gradient_is_found(self, work, monkeypatch):
        right = RecomputeTape.pull_back

        def wrong(self, slopes, side=None):
            found = right(self, slopes, side)
            return found if work == "meta-train-smooth" and side is None else {n: 1.001 * g for n, g in found.items()}

        monkeypatch.setenv("LREG_KERNELS", "recompute")
        monkeypatch.setattr(RecomputeTape, "pull_back", wrong)
        assert check.largest_error(small(works.Workload(work, "dm", "mlp", 1))) > 1e-5

    def test_the_smoothness_penalty_weighs_enough_to_be_checked(self):
        """With a wrong ascent alone, nothing else changed, the check must fail."""
        place = small(works.Workload("meta-train-smooth", "simple", "mlp", 1))
        fewer = {"smooth": dataclasses.replace(place.objective.update["smooth"], ascent_steps=9, step_size=0.01)}
        place = dataclasses.replace(place, objective=dataclasses.replace(place.objective, update=fewer))
        assert check.largest_error(place) > 1e-6


class TestLimits:
    def test_flops_are_those_stated(self):
        """LSTM 20 x 2 (dm): 2 (80 x 22 + 80 x 40 + 20) = 9,960 forward; the tanh RNN: 2 (20 + 400 + 20) = 880."""
        counted = {
            name: sum(limits.forward_flops(network_of(works.Workload("frozen", name, "mlp", 1))))
            for name in works.NETWORKS
        }
        assert counted == {"dm": 9960, "rnnprop": 2 * (40 + 80 * 40 + 80 * 40 + 20), "simple": 880}

    def test_training_takes_three_passes_and_an_ascent_step_two_of_the_inputs_part(self):
        network = network_of(works.piece("frozen/dm/mlp/1"))
        assert limits.flops(network, "meta-train") == limits.flops(network, "meta-train-sam") == 29880
        inputs = 2 * (80 * 2 + 80 * 20 + 20)
        assert limits.flops(network, "meta-train-smooth") == 29880 + 10 * 2 * inputs + 3 * inputs

    def test_the_slower_of_computing_and_copying_limits(self):
        both = limits.Limits(flops_per_s=10.0, bytes_per_s=100.0)
        assert both.seconds(20, 100) == 2 and both.seconds(20, 500) == 5

    def test_the_optimizees_have_their_stated_sizes(self):
        sizes = {name: RandomTask(name, device=CPU).parameters for name in works.OPTIMIZEES}
        assert sizes == {"mlp": 15910, "conv3": 20682, "resnet18": 11173962}


class TestPieces:
    def test_names_are_read_back(self):
        assert [works.piece(piece.name) for piece in works.everything()] == works.everything()
        assert len(works.everything()) == (8 * 6 + 3) * 3 * 3 + 3 * 3
        assert set(works.usual(on_gpu=False)) < set(works.usual(on_gpu=True)) < set(works.everything())

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("dm/mlp", ("WORK/OPTIMIZER/OPTIMIZEE/B",)),
            ("frosen/dm/mlp/1", ("meta-train-smooth", "did you mean frozen?")),
            ("frozen/lstm/mlp/1", ("dm, rnnprop, simple",)),
            ("frozen/dm/cnn/1", ("mlp, conv3, resnet18",)),
            ("frozen/dm/mlp/0", ("1 to 4096",)),
            ("frozen/dm/mlp/\u0661", ("1 to 4096",)),
            ("step/dm/mlp/2", ("meta-batch 1",)),
            ("\x1b[2J", ("allowed",)),
        ],
    )
    def test_a_wrong_name_says_what_is_allowed(self, text, words):
        with pytest.raises(LregError) as error:
            works.piece(text)
        assert all(word in str(error.value) for word in words) and str(error.value).isprintable()


@pytest.fixture(scope="module")
def usual():
    return Bench(CPU, FAST, quick=True).measure(works.piece("frozen/simple/mlp/1"))


class TestMeasure:
    def test_a_line_has_the_contracts_keys_and_adds_up(self):
        line = Bench(CPU, FAST, quick=True).measure(works.piece("meta-train/simple/mlp/1"))
        named = {"work": "meta-train", "optimizer": "simple", "optimizee": "mlp", "meta_batch": 1, "device": "cpu"}
        assert {key: line[key] for key in named} == named
        assert line["coordinates"] == 15910 and line["truncation"] == 20 and line["memory_bytes"] != 0
        assert line["max_error_float32"] <= line["error_bound_float32"] == 2e-3
        assert line["max_error"] <= line["error_bound"] and line["checked_in"] == "float64"
        assert line["ratio_to_eager"] == pytest.approx(line["eager_ms_per_inner_step"] / line["ms_per_inner_step"])
        assert line["coordinate_steps_per_s"] == pytest.approx(15910 * line["inner_steps_per_s"])
        assert 0 < line["share_of_limit"] < 1 and line["compile_s"] >= 0

    @pytest.mark.parametrize("optimizer", works.NETWORKS)
    def test_a_step_in_users_code_stands_beside_adams(self, optimizer, usual):
        line = Bench(CPU, FAST, quick=True).measure(works.piece(f"step/{optimizer}/mlp/1"))
        assert line.keys() - {"rounds"} >= usual.keys() - {"rounds", "optimizee_share"}
        assert line["work"] == "step" and line["coordinates"] == 15910
        assert line["ratio_to_adam"] == pytest.approx(line["ms_per_inner_step"] / line["adam_ms_per_inner_step"])
        assert line["max_error"] <= line["error_bound"] and line["max_error_float32"] <= line["error_bound_float32"]
        assert line["state_bytes_per_parameter"] == {"simple": 80, "dm": 320, "rnnprop": 328}[optimizer]

    @pytest.mark.parametrize("work", works.PROBED)
    def test_figures_of_the_landscape_are_a_work(self, work, monkeypatch):
        few = dataclasses.replace(scenes.PROBES, radii=(0.05,), examples=16, extended=False)
        monkeypatch.setattr(scenes, "PROBES", few)
        line = Bench(CPU, FAST, quick=True, by_name=True).measure(works.piece(f"{work}/lin/mlp/2"))
        assert line["ratio_to_eager"] is None and line["eager_skipped"] and line["max_error"] <= line["error_bound"]
        assert line["coordinate_steps_per_s"] == pytest.approx(2 * 15910 * 1e3 / line["ms_per_inner_step"])

    def test_a_wrong_eigenvalue_is_found(self, monkeypatch):
        monkeypatch.setattr("engine.probes.spectrum.FEWEST", 1)
        monkeypatch.setattr("engine.probes.spectrum._converged", lambda krylov: True)
        assert check.largest_error(small(works.Workload("probe", "lin", "mlp", 1))) > 1e-4

    def test_wrong_numbers_of_a_step_are_found(self, monkeypatch):
        monkeypatch.setattr("engine.export.torch_optim.gradients.LARGEST", {torch.float32: 0.1, torch.float64: 0.1})
        line = Bench(CPU, FAST, quick=True).measure(works.piece("step/rnnprop/mlp/1"))
        assert line["max_error"] > 1e-3

    def test_the_references_time_counts_once_for_every_optimizee(self, monkeypatch):
        """Every truncation takes a second by this clock, ours of three optimizees and the reference's of one."""

        def a_second(call, device):
            call()
            return 1.0

        monkeypatch.setattr("engine.bench.measure.timed", a_second)
        line = Bench(CPU, FAST, quick=True).measure(works.piece("frozen/simple/mlp/3"))
        assert line["ratio_to_eager"] == 3 and line["eager_ms_per_inner_step"] == 3e3 / 20

    def test_what_takes_minutes_is_left_out_with_its_reason_unless_asked_for(self):
        piece = works.piece("frozen/simple/mlp/1")
        line = Bench(CPU, SLOW, quick=True).measure(piece)
        assert "min on this device" in line["skipped"] and line["work"] == "frozen" and "ms_per_inner_step" not in line
        assert "skipped" not in Bench(CPU, SLOW, quick=True, by_name=True).measure(piece)

    def test_what_does_not_fit_is_left_out_with_its_reason(self, monkeypatch):
        monkeypatch.setattr(needs, "free_memory", lambda device: 1e6)
        line = Bench(CPU, FAST, quick=True, by_name=True).measure(works.piece("meta-train/dm/mlp/1"))
        assert "0.0 GB are free" in line["skipped"]

    def test_a_reference_that_does_not_fit_is_no_reason_to_leave_ours_out(self, monkeypatch):
        monkeypatch.setattr(needs.MemoryNeeds, "eager_problem", lambda self, free: "too large")
        line = Bench(CPU, FAST, quick=True).measure(works.piece("frozen/simple/mlp/1"))
        assert line["ratio_to_eager"] is None and line["eager_skipped"] == "too large" and line["ms_per_inner_step"] > 0


def test_estimates_of_memory_grow_with_the_work():
    task = RandomTask("mlp", device=CPU)
    one = needs.pilot(task)

    def wanted(name: str) -> needs.MemoryNeeds:
        return needs.estimated(works.piece(name), task, FAST, one)

    base = wanted("meta-train/dm/mlp/1")
    assert wanted("meta-train/dm/mlp/8").seconds == pytest.approx(8 * base.seconds)
    assert wanted("meta-train/dm/mlp/8").memory > 4 * base.memory
    assert wanted("meta-train/dm/mlp/8").eager_memory == base.eager_memory  # one optimizee at a time
    assert wanted("meta-train-smooth/dm/mlp/1").memory > base.memory > wanted("frozen/dm/mlp/1").memory
    assert 128 * 784 * 4 <= one.batch_bytes and one.kept_bytes >= one.batch_bytes


@pytest.mark.skipif(memory.peak_bytes(lambda: None, CPU) is None, reason="peak memory cannot be told here")
def test_peak_memory_is_that_of_the_call():
    mebibytes = 2**20
    taken = memory.peak_bytes(lambda: torch.ones(16 * mebibytes), CPU)  # float32, freed at once
    again = memory.peak_bytes(lambda: None, CPU)
    assert taken is not None and again is not None
    assert 60 * mebibytes < taken < 100 * mebibytes and again < 20 * mebibytes


class TestBusy:
    def test_threads_in_each_others_way_are_told(self):
        found = busy.Busyness(cores=2, threads=2, taken=0.1, gain=0.25)
        assert found.fewer_are_faster and "OMP_NUM_THREADS=1" in found.problem and "4.0 times" in found.problem

    def test_other_processes_are_told(self):
        assert "1.0 of 2 cores" in busy.Busyness(cores=2, threads=1, taken=1.0, gain=1.0).problem

    def test_a_free_machine_is_none_of_both(self):
        found = busy.Busyness(cores=2, threads=2, taken=0.05, gain=1.8)
        assert not found.problem and "1.8 times as fast" in found.summary

    def test_a_look_leaves_the_threads_as_they_were(self):
        before = torch.get_num_threads()
        found = busy.look()
        assert torch.get_num_threads() == before == found.threads
        assert found.gain > 0 and 0 <= found.taken <= found.cores


def test_scaling_grows_one_thing_at_a_time(monkeypatch):
    for name, values in {"WIDTHS": (1, 2), "META_BATCHES": (1, 2), "TRUNCATIONS": (2, 4), "UNROLLS": (40, 60)}.items():
        monkeypatch.setattr(scaling, name, values)
    monkeypatch.setattr(scaling, "POPULATIONS", (2, 4))
    monkeypatch.setattr(scaling, "WIDTH", 2)
    rows = list(scaling.growth(CPU, quick=True))
    keys = ("coordinates", "meta_batch", "truncation", "unroll", "population")
    assert [(row["scaling"], *(row[key] for key in keys)) for row in rows] == [
        ("coordinates", 805, 1, 20, 20, 1),
        ("coordinates", 1600, 1, 20, 20, 1),
        ("meta-batch", 1600, 1, 20, 20, 1),
        ("meta-batch", 3200, 2, 20, 20, 1),
        ("truncation", 1600, 1, 2, 2, 1),
        ("truncation", 1600, 1, 4, 4, 1),
        ("unroll", 1600, 1, 20, 40, 1),
        ("unroll", 1600, 1, 20, 60, 1),
        ("population", 1600, 1, 20, 20, 2),
        ("population", 1600, 1, 20, 20, 4),
    ]
    for row in rows:
        each = 1e6 * row["ms"] / (row["coordinates"] * row["population"] * row["unroll"])
        assert row["ns_per_coordinate_step"] == pytest.approx(each)


def test_what_would_not_fit_is_left_out_of_scaling(monkeypatch):
    monkeypatch.setattr(scaling, "sizes", lambda: [scaling.Size("coordinates", value, width=1) for value in (1, 10**9)])
    monkeypatch.setattr(scaling, "peak_bytes", lambda call, device: call() or 2**20)
    rows = list(scaling.growth(CPU, quick=True))
    assert "ms" in rows[0] and "GB of memory" in rows[1]["skipped"]


def test_a_gradient_that_is_no_number_is_an_error_wherever_it_stands():
    assert math.isnan(check.largest([1e-16, math.nan, 1e-3]))
    assert check.largest([1e-16, 1e-3]) == 1e-3


def test_wrong_numbers_in_single_precision_alone_are_found(monkeypatch):
    """The kernels' float and double forms are compiled apart, and the float one is what is timed."""
    plain = Setup.meta_gradient

    def twice_in_float32(place):
        found = plain(place)
        return {name: 2 * tensor if tensor.dtype == torch.float32 else tensor for name, tensor in found.items()}

    monkeypatch.setattr(Setup, "meta_gradient", twice_in_float32)
    found = check.agreement(works.piece("meta-train/simple/mlp/1"), CPU)
    assert found["max_error"] < found["error_bound"] and found["max_error_float32"] > 0.5
