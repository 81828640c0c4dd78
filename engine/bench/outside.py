"""Outside tasks: a learned optimizer in plain PyTorch training loops, against tuned SGD, Adam and AdamW.

    python -m engine.bench.outside lreg:flat-1 --results results.jsonl

Six tasks that share nothing with meta-training but PyTorch: networks of their own, and data made on the spot, the same
on every machine. Each takes 1,000 steps. The learned optimizer is used as it is. SGD with momentum, Adam and AdamW
are tuned with seed 0: seven learning rates, and weight decay at the best of them and its neighbours. The setting with
the lowest loss there trains with all seeds, one for the training loss and one for the test loss. That is more than the
learned optimizer is given: the choice for the test loss is made on test data, and seed 0 counts again.

Every training is a line of the results file, and is not repeated while that is there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from engine.base.status import is_number

STEPS = 1000
SEEDS = (0, 1, 2)
DATA_SEED = 20261130
T_95 = 4.303  # Student's t of two degrees of freedom, 97.5%
ZERO = 1e-12  # below which two losses are the same
LEARNED = "learned"
NO_HORIZON = "learned, no horizon"

Split = tuple[Tensor, Tensor]
"""Inputs and targets, [N, ...]."""


@dataclass(frozen=True)
class OutsideTask:
    """Data, a network and a criterion."""

    name: str
    data: Callable[[Generator], tuple[Split, Split]]
    """Training and test examples, standardised."""
    network: Callable[[], nn.Module]
    criterion: Callable[[Tensor, Tensor], Tensor]
    batch_size: int


# -- data ------------------------------------------------------------------------------------------------------------


def _parted(x: Tensor, y: Tensor, test: int) -> tuple[Split, Split]:
    return (x[test:], y[test:]), (x[:test], y[:test])


def house_prices(generator: Generator) -> tuple[Split, Split]:
    """Regression on 16 numbers, half of them skewed: a smooth function with interactions, and a tenth of noise."""
    x = torch.randn(2500, 16, generator=generator)
    x[:, 8:] = x[:, 8:].exp()
    x = (x - x.mean(0)) / x.std(0)
    a, b = (torch.randn(16, 6, generator=generator) / 4 for _ in range(2))
    y = ((x @ a).sin() * (x @ b).tanh()).sum(-1, keepdim=True) + 0.5 * x[:, :1] * x[:, 8:9]
    y = (y - y.mean()) / y.std() + 0.1 * torch.randn(len(y), 1, generator=generator)
    return _parted(x, y, 500)


def clusters(generator: Generator) -> tuple[Split, Split]:
    """Ten classes of three Gaussian clusters each, in 24 dimensions, that overlap."""
    centres = 0.9 * torch.randn(30, 24, generator=generator)
    component = torch.randint(30, (2500,), generator=generator)
    x = centres[component] + torch.randn(2500, 24, generator=generator)
    return _parted((x - x.mean(0)) / x.std(0), component % 10, 500)


def shapes(generator: Generator) -> tuple[Split, Split]:
    """Grey pictures of 12x12 pixels with noise: disc, ring, square, frame, cross, bar, or two discs, anywhere."""
    count = 2000
    kind = torch.randint(7, (count,), generator=generator)
    centre = 4 + 4 * torch.rand(count, 2, 1, 1, generator=generator)
    radius = (2 + 2 * torch.rand(count, generator=generator))[:, None, None]
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij"))
    dy, dx = (grid - centre).unbind(1)
    circle, square = (dx**2 + dy**2).sqrt(), torch.maximum(dx.abs(), dy.abs())
    near = (circle - radius).abs()
    pair = torch.minimum((dx - 2.5).hypot(dy), (dx + 2.5).hypot(dy))
    cross = torch.minimum(dx.abs(), dy.abs()) + 9.0 * (square > radius)
    bar = dy.abs() + 9.0 * (dx.abs() > radius)
    depths = [circle - radius, near - 0.8, square - radius, (square - radius).abs() - 0.8]
    depths += [cross - 0.8, bar - 0.8, pair - 1.5]
    depth = torch.stack(depths, 1)[torch.arange(count), kind]
    pictures = torch.sigmoid(-3 * depth) * (0.5 + torch.rand(count, 1, 1, generator=generator))
    pictures = pictures + 0.15 * torch.randn(count, 12, 12, generator=generator)
    return _parted(((pictures - pictures.mean()) / pictures.std())[:, None], kind, 400)


def pictures_alone(generator: Generator) -> tuple[Split, Split]:
    (x, _), (x_test, _) = shapes(generator)
    return (x, x), (x_test, x_test)


def sentences(generator: Generator) -> tuple[Split, Split]:
    """A language of 12 letters in which the two last ones decide the next."""
    letters, length, count = 12, 24, 1500
    chances = (2.5 * torch.randn(letters, letters, letters, generator=generator)).softmax(-1)
    lines = [torch.randint(letters, (count,), generator=generator) for _ in range(2)]
    while len(lines) <= length:
        lines.append(torch.multinomial(chances[lines[-2], lines[-1]], 1, generator=generator)[:, 0])
    text = torch.stack(lines, 1)
    return _parted(text[:, :-1], text[:, 1:], 300)


# -- networks --------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class CausalAttention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.inputs(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class LanguageModel(nn.Module):
    """A language model of two blocks, normalised before each half."""

    def __init__(self, letters: int = 12, length: int = 24, width: int = 32) -> None:
        super().__init__()
        self.letter_embedding, self.place_embedding = nn.Embedding(letters, width), nn.Embedding(length, width)
        halves: list[nn.Module] = []
        for _ in range(2):
            halves.append(ResidualBlock(nn.LayerNorm(width), CausalAttention(width, 2)))
            wide = (nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            halves.append(ResidualBlock(nn.LayerNorm(width), *wide))
        self.body = nn.Sequential(*halves, nn.LayerNorm(width), nn.Linear(width, letters))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.letter_embedding(x) + self.place_embedding(torch.arange(x.shape[1])))


def regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def normalised_classifier() -> nn.Module:
    hidden = (nn.Sequential(nn.Linear(n, 64), nn.LayerNorm(64), nn.GELU()) for n in (24, 64, 64))
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def deep_classifier() -> nn.Module:
    hidden = (nn.Sequential(nn.Linear(n, 32), nn.ReLU()) for n in (144, 32, 32, 32, 32, 32))
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(32, 7))


def autoencoder() -> nn.Module:
    encoder = (nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 3))
    decoder = (nn.ConvTranspose2d(8, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU())
    return nn.Sequential(*encoder, *decoder, nn.ConvTranspose2d(8, 1, 2, 2))


def narrow_resnet() -> nn.Module:
    def convolution(inputs: int, stride: int) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(inputs, 8, 3, stride, padding=1), nn.BatchNorm2d(8)

    layers: list[nn.Module] = [*convolution(1, 2), nn.ReLU()]
    for _ in range(2):
        layers += [ResidualBlock(*convolution(8, 1), nn.ReLU(), *convolution(8, 1)), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 7))


def _per_letter(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


TASKS = (
    OutsideTask("tabular MLP", house_prices, regressor, F.mse_loss, 64),
    OutsideTask("MLP with LayerNorm", clusters, normalised_classifier, F.cross_entropy, 64),
    OutsideTask("deep MLP", shapes, deep_classifier, F.cross_entropy, 64),
    OutsideTask("conv autoencoder", pictures_alone, autoencoder, F.mse_loss, 32),
    OutsideTask("narrow ResNet", shapes, narrow_resnet, F.cross_entropy, 32),
    OutsideTask("small transformer", sentences, LanguageModel, _per_letter, 16),
)

# -- optimizers ------------------------------------------------------------------------------------------------------

GRIDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], Sequence[float], float]] = {
    "SGD-momentum": (torch.optim.SGD, {"momentum": 0.9}, (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0), 5e-4),
    "Adam": (torch.optim.Adam, {}, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), 5e-4),
    "AdamW": (torch.optim.AdamW, {}, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), 0.1),
}
"""By name: the class, what is fixed, the learning rates, and the weight decay where it is on."""

Setting = tuple[float, float]
"""Learning rate and weight decay."""


def baseline(name: str, setting: Setting, model: nn.Module) -> torch.optim.Optimizer:
    cls, fixed, _, _ = GRIDS[name]
    rate, decay = setting
    return cls(model.parameters(), lr=rate, weight_decay=decay, **fixed)  # type: ignore[call-arg]


# -- training --------------------------------------------------------------------------------------------------------


def train(
    task: OutsideTask, make: Callable[[nn.Module], torch.optim.Optimizer], seed: int, steps: int = STEPS
) -> dict[str, float]:
    """Losses over the whole training and test sets before and after: "start", "train", "test"; NaN once it broke."""
    (x, y), test = task.data(Generator().manual_seed(DATA_SEED))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.network()
    draws = Generator().manual_seed(seed)
    optimizer = make(model)
    start = _loss(task, model, (x, y))
    for _ in range(steps):
        batch = torch.randint(len(x), (task.batch_size,), generator=draws)
        loss = task.criterion(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not math.isfinite(loss.item()):
            return {"start": start, "train": math.nan, "test": math.nan}
    return {"start": start, "train": _loss(task, model, (x, y)), "test": _loss(task, model, test)}


@torch.no_grad()
def _loss(task: OutsideTask, model: nn.Module, examples: Split) -> float:
    model.eval()
    value = float(task.criterion(model(examples[0]), examples[1]))
    model.train()
    return value


class Results:
    """Trainings that were done, in a file: a line of JSON for each."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self._done: dict[str, dict[str, Any]] = {record["key"]: record for record in map(json.loads, lines)}

    def get(self, task: OutsideTask, label: str, seed: int, make: Callable[[nn.Module], Any]) -> dict[str, float]:
        key = f"{task.name}, {label}, seed {seed}"
        if key not in self._done:
            record = {"key": key, **train(task, make, seed)}
            self._done[key] = record
            if self._path:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
        return self._done[key]


def outcomes(
    task: OutsideTask, learned: dict[str, Callable[[nn.Module], Any]], results: Results, identity: str
) -> Iterator[tuple[str, str, list[dict[str, float]]]]:
    """For each optimizer and each of "train" and "test": the trainings of all seeds, the baselines' at their best."""
    for name, make in learned.items():
        runs = [results.get(task, f"{name} {identity}", seed, make) for seed in SEEDS]
        yield name, "train", runs
        yield name, "test", runs
    for name in GRIDS:
        tried = tuned(task, name, results)
        for figure in ("train", "test"):
            best = _best(tried, figure)
            yield name, figure, [results.get(task, _text(name, best), s, _maker(name, best)) for s in SEEDS]


def tuned(task: OutsideTask, name: str, results: Results) -> dict[Setting, dict[str, float]]:
    """A baseline's trainings with seed 0: all rates, and weight decay near the best of them."""
    _, _, rates, decay = GRIDS[name]

    def trained(settings: Iterable[Setting]) -> dict[Setting, dict[str, float]]:
        return {setting: results.get(task, _text(name, setting), 0, _maker(name, setting)) for setting in settings}

    tried = trained((rate, 0.0) for rate in rates)
    indices = {rates.index(_best(tried, figure)[0]) for figure in ("train", "test")}
    near = {index + move for index in indices for move in (-1, 0, 1)}
    return tried | trained((rate, decay) for index, rate in enumerate(rates) if index in near)


def _best(tried: dict[Setting, dict[str, float]], figure: str) -> Setting:
    return min(tried, key=lambda setting: _or_worst(tried[setting][figure]))


def _maker(name: str, setting: Setting) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: baseline(name, setting, model)


def _text(name: str, setting: Setting) -> str:
    name = "Adam" if name == "AdamW" and not setting[1] else name  # the same without weight decay
    return f"{name} lr {setting[0]:g} decay {setting[1]:g}"


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else math.inf


# -- the table -------------------------------------------------------------------------------------------------------


def cell(runs: Sequence[dict[str, float]], figure: str) -> str:
    """Mean and half of its 95% interval over the seeds; how many diverged, if any: not finite, or above the start."""
    broken = sum(not run[figure] <= run["start"] for run in runs) if figure == "train" else 0
    values = [run[figure] for run in runs if math.isfinite(run[figure])]
    if len(values) < len(runs) or broken:
        return f"diverged {max(broken, len(runs) - len(values))}/{len(runs)}"
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:.3g} ± {T_95 * spread / math.sqrt(len(values)):.1g}"


def mean_of(runs: Sequence[dict[str, float]], figure: str) -> float:
    values = [run[figure] for run in runs]
    return sum(values) / len(values) if all(map(is_number, values)) else math.inf


def table(rows: dict[str, dict[tuple[str, str], list[dict[str, float]]]], figure: str) -> str:
    """Markdown: a row for each task, a column for each optimizer; the lowest mean in bold."""
    names = list(dict.fromkeys(name for row in rows.values() for name, _ in row))
    lines = [f"| {figure} loss | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for task, row in rows.items():
        lowest = min(mean_of(row[name, figure], figure) for name in names)
        cells = []
        for name in names:
            text = cell(row[name, figure], figure)
            cells.append(f"**{text}**" if mean_of(row[name, figure], figure) <= lowest + ZERO else text)
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    import hashlib

    from engine.export.torch_optim import load_optimizer

    parser = argparse.ArgumentParser(prog="python -m engine.bench.outside", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("optimizer", help="what load_optimizer takes: lreg:NAME, a run, or an exported file")
    parser.add_argument("--results", type=Path, help="file of trainings, which is gone on with")
    parser.add_argument("--no-baselines", action="store_true", help="the learned optimizer alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def load(model: nn.Module, horizon: int | None) -> torch.optim.Optimizer:
        return load_optimizer(options.optimizer, model.named_parameters(), horizon=horizon)

    makers = {LEARNED: lambda model: load(model, STEPS), NO_HORIZON: lambda model: load(model, None)}
    state = load(nn.Linear(1, 1), None).param_groups[0]["learned_optimizer"]
    identity = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    if options.no_baselines:
        GRIDS.clear()
    rows: dict[str, dict[tuple[str, str], list[dict[str, float]]]] = {}
    results = Results(options.results)
    for task in TASKS:
        rows[task.name] = {(name, figure): runs for name, figure, runs in outcomes(task, makers, results, identity)}
        print(f"{task.name}: done", flush=True)
    for figure in ("train", "test"):
        print(f"\n{table(rows, figure)}")
    names = {name for row in rows.values() for name, _ in row if name in GRIDS}
    for name in sorted(names):
        for figure in ("train", "test"):
            both = [
                (mean_of(row[LEARNED, figure], figure), mean_of(row[name, figure], figure)) for row in rows.values()
            ]
            won = sum(learned <= other for learned, other in both)
            print(f"{figure} loss at or below {name}'s on {won} of {len(rows)}")


if __name__ == "__main__":
    main()
