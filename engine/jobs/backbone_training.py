"""Training of a backbone: an ordinary classifier of the meta-training classes, judged by episodes of the others.

As Hu et al. 2020 (arXiv:2004.12696) have it: SGD with Nesterov momentum and weight decay, a linear warm-up, a tenth of
the learning rate after 50 of 120 epochs. Every random number follows from seed, epoch and batch, so that training goes
on from a checkpoint, at any batch, as if it had not stopped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from engine.base import seeds
from engine.base.errors import DataError, PresetError, Problem, RunError
from engine.base.files import lock
from engine.base.flat import prefixed, under
from engine.base.settings import show
from engine.presets.preset import Preset
from engine.tasks.backbones import kept
from engine.tasks.backbones.kept import BackboneFile
from engine.tasks.backbones.networks import BACKBONES, Backbone
from engine.tasks.datasets.base import DATASETS, crop_and_flip
from engine.tasks.datasets.few_shot import FewShotDataset
from engine.tasks.datasets.folder import data_folder
from engine.tasks.episodes import EpisodeTask, ImagesByClass, prototype_accuracy
from engine.tasks.optimizees.base import Optimizee
from engine.tasks.table import build_parts

WARM_UP = 1 / 24  # share of the epochs, from a learning rate of nearly 0; ours: the paper does not say how long
DECAYED_AFTER = 50 / 120  # share of the epochs
DECAY = 0.1
MOMENTUM = 0.9
JUDGEMENTS = 20  # by episodes, spread over the training
EPISODES = 200  # of the validation classes, always the same
CHECKPOINT = "-training.safetensors"
LOCK = "-training.lock"

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainingSettings:
    """How a backbone is trained."""

    epochs: int = 120
    seed: int = 0
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = 64


@dataclass(frozen=True, eq=False)
class BackboneData:
    """What a backbone is trained on, where it is kept, and the episodes that it is judged by."""

    dataset: FewShotDataset
    images: ImagesByClass
    file: BackboneFile
    values: Mapping[str, Any]  # the [task] table
    optimizee: Optimizee

    def episodes_on(self, features: Tensor) -> EpisodeTask:
        """The preset's task on features of all images, float32 [M, F]. Raises PresetError where it takes none."""
        data = ImagesByClass(features, self.images.splits)
        return self.dataset.task_on(data, self.values, self.optimizee, torch.float32)

    def to_input(self, images: Tensor) -> Tensor:
        return self.dataset.to_input(images, torch.float32)


def backbones_of(preset: Preset, data_dir: Path | None, device: torch.device) -> list[BackboneData]:
    """The backbones that a preset's tasks name, each once, with their images loaded.

    Raises PresetError where they name none, and DataError.
    """
    folder, named = data_folder(data_dir), dict[str, BackboneData]()
    for values in preset.fixed_tasks():
        if values.get("backbone", "none") == "none":
            continue
        dataset, optimizee, values = build_parts(values)
        assert isinstance(dataset, FewShotDataset)
        described, images = dataset.images(folder, device)
        backbone_file = described.backbone_file(images, folder)

        named.setdefault(backbone_file.name, BackboneData(described, images, backbone_file, values, optimizee))
    if not named:
        found = show(preset.tasks[0].get("backbone", "none")) if len(preset.tasks) == 1 else "none in any task"
        few_shot = ", ".join(name for name in DATASETS.names() if issubclass(DATASETS[name], FewShotDataset))
        allowed = f"{' or '.join(BACKBONES)}, with a dataset of episodes ({few_shot})"
        raise PresetError([Problem("task.backbone", found, allowed)], preset.source)
    return list(named.values())


def train(
    data: BackboneData, settings: TrainingSettings, is_stopped: Callable[[], bool], *, force: bool = False
) -> Iterator[Record]:
    """Train a backbone and keep it, from its checkpoint where there is one; yields a record after every epoch.

    Ends early, with a checkpoint, once `is_stopped` says so, which is asked at every batch. `force`: anew, whatever is
    there. Raises RunError where another process trains it, or where its checkpoint is of other settings.
    """
    try:
        held = lock(data.file.to_write(LOCK))
    except BlockingIOError:
        raise RunError(f"{data.file.name}: another process trains this backbone") from None
    with held:
        training = BackboneTraining(data, settings)
        if not force:
            training.take_up()
        yield from training.run(is_stopped)


class BackboneTraining:
    """A classifier under training: a backbone and a linear layer on its features."""

    def __init__(self, data: BackboneData, settings: TrainingSettings) -> None:
        self.data, self.settings = data, settings
        images = data.images
        classes = list(images.splits["train"].values())
        self.device = images.images.device
        self.positions = torch.cat(classes)
        self.labels = torch.cat([torch.full((len(rows),), label) for label, rows in enumerate(classes)])
        self.batch_size = min(settings.batch_size, len(self.positions))
        self.batches = len(self.positions) // self.batch_size  # the rest of an epoch is left out
        self.network, self.head = self._fresh(tuple(images.images.shape[1:]), len(classes))
        self.features = torch.zeros(len(images.images), self.network.features, device=self.device)
        self.episodes = data.episodes_on(self.features).held_out("validation").of(range(EPISODES))
        self.parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(
            self.parameters, settings.learning_rate, MOMENTUM, weight_decay=settings.weight_decay, nesterov=True
        )
        self.step = 0  # batches taken
        self.loss_sum, self.right = 0.0, 0  # of this epoch
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_accuracy = 0, -math.inf

    def _fresh(self, input_shape: tuple[int, ...], classes: int) -> tuple[Backbone, nn.Linear]:
        """Both with parameters of the seed alone, as torch draws them; the global generator is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeds.derive(self.settings.seed, "backbone"))
            network = BACKBONES[self.data.dataset.backbone](input_shape)
            head = nn.Linear(network.features, classes)
        return network.to(self.device), head.to(self.device)

    def run(self, is_stopped: Callable[[], bool]) -> Iterator[Record]:
        """Train to the end, or until it is stopped: then a checkpoint is written."""
        began = time.monotonic()
        every = max(1, self.settings.epochs // JUDGEMENTS)
        while self.step < self.settings.epochs * self.batches:
            if is_stopped():
                self._save_checkpoint()
                return
            self._take_step()
            if self.step % self.batches:
                continue
            epoch = self.step // self.batches
            record = {"epoch": epoch, "epochs": self.settings.epochs, **self._of_epoch()}
            if epoch % every == 0 or epoch == self.settings.epochs:
                record |= self._judge(epoch)
                self._save_checkpoint()
            yield {**record, "seconds": time.monotonic() - began}
        self._keep()

    def _take_step(self) -> None:
        epoch, batch = divmod(self.step, self.batches)
        chosen = self._order(epoch)[batch * self.batch_size :][: self.batch_size]
        images = self.data.images.images[self.positions[chosen].to(self.device)]
        if images.shape[1] == 3:
            generator = Generator().manual_seed(seeds.derive(self.settings.seed, "augmentation", self.step))
            images = crop_and_flip(images, torch.rand(len(images), 3, generator=generator).to(self.device))
        labels = self.labels[chosen].to(self.device)
        self.network.train()
        outputs = self.head(self.network(self.data.to_input(images)))
        loss = F.cross_entropy(outputs, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = self.learning_rate()
        self.optimizer.step()
        self.step += 1
        self.loss_sum += float(loss.detach())
        self.right += int((outputs.argmax(1) == labels).sum())

    def _order(self, epoch: int) -> Tensor:
        """The order of the images in an epoch."""
        generator = Generator().manual_seed(seeds.derive(self.settings.seed, "order", epoch))
        return torch.randperm(len(self.positions), generator=generator)

    def learning_rate(self) -> float:
        """That of the next step."""
        total = self.settings.epochs * self.batches
        factor = min(1.0, (self.step + 1) / max(1, WARM_UP * total))
        return self.settings.learning_rate * factor * (DECAY if self.step >= DECAYED_AFTER * total else 1.0)

    def _of_epoch(self) -> Record:
        seen = self.batches * self.batch_size
        record = {"train_loss": self.loss_sum / self.batches, "train_accuracy": self.right / seen}
        self.loss_sum, self.right = 0.0, 0
        return {**record, "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _judge(self, epoch: int) -> Record:
        """Accuracy of prototypes on episodes of the validation classes; the best network so far is kept in memory."""
        images = self.data.images
        held_out = torch.cat(list(images.splits["validation"].values())).to(self.device)
        features = kept.features_of(self.network, images.images[held_out], self.data.to_input)
        self.features[held_out] = torch.cat(list(features))
        accuracies = prototype_accuracy(self.episodes).tolist()
        accuracy = statistics.fmean(accuracies)
        if accuracy > self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, accuracy
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        return {"validation_accuracy": accuracy, "best_epoch": self.best_epoch}

    def _facts(self) -> Record:
        settings = dataclasses.asdict(self.settings)
        return {"settings": settings, "best_epoch": self.best_epoch, "validation_accuracy": self.best_accuracy}

    def _keep(self) -> None:
        """Write the best network where it is looked for; the checkpoint has done its work."""
        kept.save(self.data.file.to_write(), self.best, {**self._facts(), "episodes": EPISODES})
        checkpoint = self.data.file.find(CHECKPOINT)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

    def _save_checkpoint(self) -> None:
        momenta = {str(index): self.optimizer.state[p]["momentum_buffer"] for index, p in enumerate(self._moved())}
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("head", self.head.state_dict()),
            **prefixed("momentum", momenta),
            **prefixed("best", self.best),
        }
        counts = {"step": self.step, "loss_sum": self.loss_sum, "right": self.right}
        kept.save(self.data.file.to_write(CHECKPOINT), tensors, {**self._facts(), **counts})

    def _moved(self) -> list[Tensor]:
        """The parameters that the optimizer has a momentum of: all, once a step was taken."""
        return [p for p in self.parameters if self.optimizer.state[p]]

    def take_up(self) -> None:
        """Go on from the checkpoint, where there is one. Raises DataError for another's."""
        path = self.data.file.find(CHECKPOINT)
        if path is None:
            return
        tensors, facts = kept.load(path)
        if facts.get("settings") != dataclasses.asdict(self.settings):
            was = json.dumps(facts.get("settings"))
            raise RunError(f"{path}: was begun with other settings, {was}: repeat these, or --force to begin anew")
        try:
            self.network.load_state_dict(under("network", tensors))
            self.head.load_state_dict(under("head", tensors))
            momenta = under("momentum", tensors)
            for index, parameter in enumerate(self.parameters):
                if str(index) in momenta:
                    self.optimizer.state[parameter]["momentum_buffer"] = momenta[str(index)].to(self.device)
            self.best = {name: tensor.to(self.device) for name, tensor in under("best", tensors).items()}
            self.best_epoch, self.best_accuracy = int(facts["best_epoch"]), float(facts["validation_accuracy"])
            self.step, self.loss_sum, self.right = int(facts["step"]), float(facts["loss_sum"]), int(facts["right"])
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}): --force begins anew".replace("\n", " ")) from None


def kept_facts(backbone_file: BackboneFile) -> Mapping[str, Any] | None:
    """What is known of the backbone that is kept; None where none is."""
    path = backbone_file.find()
    return None if path is None else kept.load(path)[1]
