"""Datasets: what the embedded one holds, what happens without the files of the others, and how images become inputs."""

import hashlib
import os
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.base.errors import DataError
from engine.tasks.datasets import digits, files
from engine.tasks.datasets.base import DATASETS, PADDING, RawData, crop_and_flip
from engine.tasks.datasets.folder import data_folder

DOWNLOADED = ("cifar10", "cifar100", "fmnist", "mnist")
FIRST_FILE = {
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
    "fmnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
}
LAST_FILE = {
    "cifar10": "cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-python/meta",
    "fmnist": "FashionMNIST/raw/t10k-labels-idx1-ubyte",
    "mnist": "MNIST/raw/t10k-labels-idx1-ubyte",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may reach the network. The failing download is noisy, as torchvision's is."""

    def unreachable(*arguments, **settings):
        print("Downloading")
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.fixture(scope="module")
def digits_data() -> RawData:
    return DATASETS.create("digits").read(Path("nowhere"))


def standardised(name: str, data: RawData) -> torch.Tensor:
    return DATASETS.create(name).to_input(data.train_inputs, torch.float64)


def test_digits_holds_the_1797_digits_of_the_uci_test_set(digits_data):
    train_inputs, train_targets, test_inputs, test_targets = digits_data
    assert train_inputs.shape == (1500, 1, 8, 8) and test_inputs.shape == (297, 1, 8, 8)
    assert train_inputs.dtype == torch.uint8 and train_targets.dtype == torch.int64
    labels = torch.cat([train_targets, test_targets])
    # counts by scikit-learn's load_digits
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert int(train_inputs.max()) == 16 and int(torch.cat([train_inputs, test_inputs]).long().sum()) == 561718


def test_digits_are_shuffled_the_same_way_every_time(digits_data):
    again = DATASETS.create("digits").read(Path("elsewhere"))
    assert all(torch.equal(a, b) for a, b in zip(digits_data, again, strict=True))
    assert digits_data.test_targets[:12].tolist() == [3, 9, 1, 4, 6, 1, 5, 9, 6, 2, 7, 5]  # results depend on it
    assert torch.bincount(digits_data.test_targets, minlength=10).min() > 15


@pytest.mark.parametrize("content", [b"", b"broken"])
def test_a_damaged_digits_file_is_a_clear_error(content, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.csv.gz")
    digits.FILE.write_bytes(content)
    with pytest.raises(DataError, match="digits: .*digits.csv.gz is damaged"):
        DATASETS.create("digits").read(tmp_path)
    digits.FILE.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        DATASETS.create("digits").read(tmp_path)


@pytest.mark.parametrize("name", ["digits", *DOWNLOADED])
def test_every_dataset_states_its_constants(name):
    cls = DATASETS[name]
    assert cls.classes >= 2 and len(cls.input_shape) == 3
    assert len(cls.mean) == len(cls.std) == cls.input_shape[0]
    assert cls().normalize == "standard"


def test_standard_inputs_have_zero_mean_and_unit_variance_and_unit_ones_fill_zero_to_one(digits_data):
    x = standardised("digits", digits_data)
    assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3
    unit = DATASETS.create("digits", normalize="unit").to_input(digits_data.train_inputs, torch.float32)
    assert unit.dtype == torch.float32 and unit.min() == 0 and unit.max() == 1


def test_normalisation_is_per_channel_and_keeps_leading_dimensions():
    cls = DATASETS["cifar10"]
    images = torch.randint(0, 256, (2, 5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (cls.mean, cls.std))
    torch.testing.assert_close(cls().to_input(images, torch.float64), (images / 255.0 - mean) / std, atol=1e-6, rtol=0)


def test_crops_are_windows_of_the_image_padded_with_black():
    """With numbers (r, c, f) the crop starts at row floor(9r), column floor(9c), and f >= 1/2 flips it."""
    images = torch.randint(1, 256, (6, 3, 32, 32), dtype=torch.uint8)
    numbers = torch.tensor(
        [[0.0, 0.0, 0.0], [0.999, 0.0, 0.0], [0.5, 0.5, 0.4], [0.5, 0.5, 0.5], [0.2, 0.9, 0.9], [0.3, 0.1, 0.0]]
    )
    padded = torch.zeros(6, 3, 32 + 2 * PADDING, 32 + 2 * PADDING, dtype=torch.uint8)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = images

    cropped = crop_and_flip(images, numbers)

    for example, (row, column, flip) in enumerate(numbers.tolist()):
        top, left = int(9 * row), int(9 * column)
        window = padded[example, :, top : top + 32, left : left + 32]
        assert torch.equal(cropped[example], window.flip(-1) if flip >= 0.5 else window)
    assert torch.equal(cropped[2], images[2])  # the middle crop is the image


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_augmentation_is_off_unless_asked_for(name):
    assert DATASETS.create(name).augmentation_size == 0
    assert DATASETS.create(name, augment=True).augmentation_size == 3


def test_the_data_folder_is_the_argument_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LREG_DATA_DIR", str(tmp_path))
    assert data_folder(Path("given")) == Path("given")
    assert data_folder() == tmp_path
    monkeypatch.setenv("LREG_DATA_DIR", "")
    assert data_folder().parts[-2:] == ("lreg", "data")


@pytest.mark.parametrize("name", DOWNLOADED)
def test_missing_data_is_one_line_that_says_what_to_do(name, tmp_path, capsys):
    with pytest.raises(DataError) as caught:
        DATASETS.create(name).read(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{name}: ") and "\n" not in text
    for part in (str(tmp_path), "LREG_DATA_DIR", "no network", FIRST_FILE[name], LAST_FILE[name]):
        assert part in text
    assert capsys.readouterr().out == ""  # stdout belongs to --json


def test_a_folder_that_cannot_be_written_is_the_same_error(tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with pytest.raises(DataError, match="mnist: .*LREG_DATA_DIR"):
        DATASETS.create("mnist").read(blocked)


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">iiii", 2051, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(labels)) + labels.tobytes())


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A folder with an MNIST of five training and three test images, which passes as the original."""
    numbers = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    for prefix, count in (("train", 5), ("t10k", 3)):
        images = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw, images, np.arange(count, dtype=np.uint8), prefix)
    sizes = tuple((name, (raw / name).stat().st_size) for name, _ in files.MNIST_SIZES)
    monkeypatch.setattr(files, "MNIST_SIZES", sizes)
    monkeypatch.setattr("engine.tasks.datasets.mnist.MD5", tuple(md5_of(raw / name) for name, _ in sizes))
    return tmp_path


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_idx_files_are_read_as_they_are(tiny_mnist):
    data = DATASETS.create("mnist").read(tiny_mnist)
    expected = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    assert np.array_equal(data.train_inputs[:, 0].numpy(), expected)
    assert data.test_inputs.shape == (3, 1, 28, 28)
    assert data.train_targets.tolist() == [0, 1, 2, 3, 4] and data.train_targets.dtype == torch.int64


@pytest.mark.parametrize("damage", ["cut short", "other bytes", "empty"])
def test_a_damaged_file_is_named(damage, tiny_mnist):
    path = tiny_mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"cut short": whole[:-1], "other bytes": flipped, "empty": b""}[damage])
    with pytest.raises(DataError) as caught:
        DATASETS.create("mnist").read(tiny_mnist)
    text = str(caught.value)
    assert text.startswith(f"mnist: {path} is damaged: found ") and "\n" not in text
    assert ("MD5" in text) == (damage == "other bytes")


def test_cifar_files_are_read_channel_by_channel(tmp_path, monkeypatch):
    """A tiny CIFAR-10 in the original's format: rows of 3072 bytes, red, green and blue plane."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    contents = {
        "data_batch_1": {"data": pixels[:2], "labels": [3, 7]},
        "test_batch": {"data": pixels[2:], "labels": [1, 0]},
        "batches.meta": {"label_names": ["a"] * 10},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5_of(folder / "data_batch_1")]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5_of(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5_of(folder / "batches.meta")})

    data = DATASETS.create("cifar10").read(tmp_path)

    assert np.array_equal(data.train_inputs.numpy(), pixels[:2].reshape(2, 3, 32, 32))
    assert np.array_equal(data.test_inputs.numpy(), pixels[2:].reshape(2, 3, 32, 32))
    assert data.train_targets.tolist() == [3, 7] and data.test_targets.tolist() == [1, 0]


def test_a_pickle_that_is_not_the_original_is_never_opened(tmp_path):
    from torchvision.datasets import CIFAR10

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name in (*(name for name, _ in CIFAR10.train_list + CIFAR10.test_list), "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="cifar10: .*data_batch_1 is damaged: found MD5"):
        DATASETS.create("cifar10").read(tmp_path)
    assert not (tmp_path / "opened").exists()


@pytest.mark.data
@pytest.mark.parametrize("name, examples", [("mnist", 60_000), ("fmnist", 60_000), ("cifar10", 50_000)])
def test_real_data_is_what_its_constants_say(name, examples):
    folder = os.environ.get("LREG_DATA_DIR", "")
    if not folder or not (Path(folder) / FIRST_FILE[name]).exists():
        pytest.skip(f"no {name} in LREG_DATA_DIR")
    data = DATASETS.create(name).read(Path(folder))
    assert data.train_inputs.shape == (examples, *DATASETS[name].input_shape)
    assert torch.bincount(data.test_targets).sum() == 10_000
    assert (torch.bincount(data.train_targets) > 5000 - 1).all() or name == "mnist"
    x = DATASETS.create(name).to_input(data.train_inputs, torch.float32).transpose(0, 1).flatten(1)
    std, mean = torch.std_mean(x, dim=1)
    torch.testing.assert_close(mean, torch.zeros(len(x)), atol=2e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(len(x)), atol=2e-3, rtol=0)
