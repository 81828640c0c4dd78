"""A user's own arrays: x and y in a file of safetensors or NumPy."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.base.files import open_to_read
from engine.base.settings import setting
from engine.tasks.datasets.base import DATASETS, RawData
from engine.tasks.datasets.own import LARGEST, OwnDataset, named

NAMES = ("x", "y", "x_test", "y_test")
ALLOWED = "x [N, C, H, W], [N, F] or [N, L], and y [N] or [N, O]; with a test part also x_test and y_test"


@DATASETS.register("tensors")
class Tensors(OwnDataset):
    """Classes or numbers to be learned from arrays; maybe x_test and y_test like x and y.

    x: images [N, C, H, W] or features [N, F], uint8 or floats; or tokens [N, L], other integers from 0, which an
    optimizee is given as they are (to `bow` and `lstm-classifier` 0 is padding). Features are channels of one pixel, so
    each is standardised by itself. y: classes [N], integers from 0 without a gap, or numbers [N] or [N, O], floats,
    whose loss is the mean squared error.
    """

    path: str = setting(
        "", is_path=True, help="a .safetensors or .npz file with x and y, classes or numbers; maybe x_test, y_test"
    )

    def read(self, folder: Path) -> RawData:
        arrays = self._arrays()
        x, y = self._examples(arrays, "x", "y")
        if not y.is_floating_point():
            self._check_classes(y)
        if "x_test" not in arrays:
            return self.split_off(x, y)
        x_test, y_test = self._examples(arrays, "x_test", "y_test")
        for name, test, train in (("x", x_test, x), ("y", y_test, y)):
            if (test.shape[1:], test.dtype) != (train.shape[1:], train.dtype):
                raise self.error(f"{name}_test {_form(test)}", f"the form of {name}, {_form(train)}")
        if not y.is_floating_point() and int(y_test.max()) > int(y.max()):
            raise self.error(f"{int(y_test.max())} in y_test", f"the classes of y, 0 to {int(y.max())}")
        return RawData(x, y, x_test, y_test)

    def _check_classes(self, y: Tensor) -> None:
        counts = torch.bincount(y) if int(y.max()) < len(y) else torch.zeros(1)
        if len(counts) < 2 or not counts.all():
            missing = (counts == 0).nonzero().flatten().tolist()
            found = f"no example of class {missing[0]} in y, but of {int(y.max())}" if missing else "one class in y"
            raise self.error(found, "integers from 0 without a gap, two or more of them")

    def _examples(self, arrays: dict[str, Tensor], x_name: str, y_name: str) -> tuple[Tensor, Tensor]:
        """x: uint8 or float32 [N, C, H, W], or int64 [N, L]; y: int64 [N], or float32 [N] or [N, O]."""
        x, y = arrays[x_name], arrays[y_name]
        is_tokens = not x.is_floating_point() and x.dtype != torch.uint8
        x_dims = (2,) if is_tokens else (2, 4)
        if x.is_complex() or x.dtype == torch.bool or x.dim() not in x_dims or not x.numel():
            raise self.error(
                f"{x_name} {_form(x)}", "not empty, uint8 or floats [N, C, H, W] or [N, F], or integers [N, L]"
            )
        if (
            y.is_complex()
            or y.dtype == torch.bool
            or y.dim() not in ((1, 2) if y.is_floating_point() else (1,))
            or not y.numel()
        ):
            raise self.error(f"{y_name} {_form(y)}", "classes [N], integers, or numbers [N] or [N, O], floats")
        if len(x) != len(y):
            raise self.error(f"{len(x)} examples in {x_name} and {len(y)} in {y_name}", "a target for each example")
        for name, values in ((x_name, x), (y_name, y)):
            if values.is_floating_point() and not values.isfinite().all():
                raise self.error(f"numbers that are not finite in {name}", "finite numbers")
            if not values.is_floating_point() and int(values.long().min()) < 0:
                raise self.error(f"{int(values.long().min())} in {name}", "integers from 0")
        y = y.float() if y.is_floating_point() else y.long()
        if is_tokens:
            return x.long(), y
        x = x if x.dtype == torch.uint8 else x.float()
        return (x[:, :, None, None] if x.dim() == 2 else x), y

    def _arrays(self) -> dict[str, Tensor]:
        path = named(self.path)
        read = {".safetensors": self._from_safetensors, ".npz": self._from_npz}.get(path.suffix.lower())
        if read is None:
            raise self.error(f"a file ending in {path.suffix or 'nothing'}", "a .safetensors or .npz file")
        too_large = self.error(f"more than {LARGEST} bytes", "arrays that fit into memory")
        try:
            with open_to_read(path) as file:
                names, arrays = read(path) if os.fstat(file.fileno()).st_size <= LARGEST else ([], None)
        except OSError as error:
            raise self.error(error.strerror or str(error), "a file that can be read") from None
        except Exception as error:  # whatever a damaged file makes NumPy, zlib or safetensors raise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise self.error(reason, "a whole file of arrays of numbers") from None
        if arrays is None:
            raise too_large
        if not {"x", "y"} <= set(arrays) or ("x_test" in arrays) != ("y_test" in arrays):
            raise self.error(", ".join(names[:10]) or "nothing", ALLOWED)
        return arrays

    @staticmethod
    def _from_safetensors(path: Path) -> tuple[list[str], dict[str, Tensor] | None]:
        import safetensors

        with safetensors.safe_open(path, framework="pt", device="cpu") as whole:
            names = list(whole.keys())
            return names, {name: whole.get_tensor(name).clone() for name in names if name in NAMES}

    @staticmethod
    def _from_npz(path: Path) -> tuple[list[str], dict[str, Tensor] | None]:
        """Pickled objects are refused; a member is read into memory, after its size is known to be bearable."""
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz file")
        with np.load(path, allow_pickle=False) as archive:
            members = [item for item in archive.zip.infolist() if item.filename.removesuffix(".npy") in NAMES]
            if sum(item.file_size for item in members) > LARGEST:
                return archive.files, None
            return archive.files, {name: _tensor(archive[name]) for name in archive.files if name in NAMES}


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "uif":
        raise ValueError(f"an array of {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
