"""The λ, or other parameter, of each pooling layer after an epoch: on which images, and
``lambdas.csv``."""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gfgp_cupy import record_parameters
from gfgp_cupy.record import has_parameters
from training.atomic_write import atomic_write
from training.errors import UserError
from training.loading.batches import Batch, Batches
from training.processes.ranks import Process
from training.records.histograms import Histogram, histogram_of

LAMBDAS_NAME = "lambdas.csv"
COLUMNS = ("epoch", "layer", "low", "high", "count")
SAMPLE_IMAGES = 64


class SampledBatches:
    """Iterates ``batches`` as they are, and keeps some of their images.

    The images are spread evenly over the pass, for data in the order of its classes starts with
    a few of them. They are ready for the network, and the same in every pass over validation
    images.

    Attributes:
        sample: [N, 3, H, W], N up to 64, of this process, on its device; None before the pass.
    """

    def __init__(self, batches: Batches, process: Process) -> None:
        self.batches = batches
        self.stride = math.ceil(batches.images / process.world_size / SAMPLE_IMAGES)
        self.sample: Tensor | None = None

    @property
    def images(self) -> int:
        """Number of images of a pass, over all processes."""
        return self.batches.images

    def __iter__(self) -> Iterator[Batch]:
        kept, seen = [], 0
        for batch in self.batches:
            # A copy: a view would keep the whole batch in memory.
            kept.append(batch.images[-seen % self.stride :: self.stride].clone())
            seen += len(batch.images)
            yield batch
        self.sample = torch.cat(kept) if kept else None


@torch.no_grad()
def lambdas_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return λ [N, C] by layer of ``model`` in evaluation mode on ``images`` [N, 3, H, W].

    Of another pooling with a parameter it is that, as ``record_parameters`` has it. No entries
    where the network has no such layers. ``model`` is left in evaluation mode.
    """
    if not has_parameters(model):
        return {}
    model.eval()
    with record_parameters(model) as lambdas:
        model(images)
    return dict(lambdas)


def histograms_of(model: nn.Module, images: Tensor) -> dict[str, Histogram]:
    """Return the histogram by layer of what ``lambdas_of`` returns."""
    return {layer: histogram_of(lam) for layer, lam in lambdas_of(model, images).items()}


def write_lambdas(lambdas: Mapping[str, Histogram], epoch: int, path: Path) -> None:
    """Give the CSV file ``path`` the histograms of ``lambdas`` after ``epoch``.

    A row per bin that holds any: ``epoch``, ``layer``, ``count`` of the λ (one per image and
    channel) from ``low`` to ``high``; the bins are those of ``Histogram``, the same in every
    epoch. Rows of this epoch and later ones, of a run before it was resumed, are replaced. Without
    λ and without a file there is none afterwards.

    Raises:
        WriteError: the file cannot be written.
        UserError: what is there is no such file.
    """
    if not lambdas and not path.exists():
        return
    kept = [row for row in _read_rows(path) if int(row[0]) < epoch] if path.exists() else []
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *kept])
        for layer, each in lambdas.items():
            for low, high, count in zip(each.low, each.high, each.count, strict=True):
                writer.writerow([epoch, layer, f"{low:.6g}", f"{high:.6g}", count])


def read_lambdas(path: Path) -> dict[int, dict[str, Histogram]]:
    """Return what ``write_lambdas`` wrote, by epoch and layer; nothing where there is no file.

    Raises:
        UserError: it cannot be read, or it is not such a file.
    """
    if not path.exists():
        return {}
    bins: dict[int, dict[str, list[list[float]]]] = {}
    try:
        for epoch, layer, *numbers in _read_rows(path):
            of_epoch = bins.setdefault(int(epoch), {})
            of_epoch.setdefault(layer, []).append([float(number) for number in numbers])
        return {
            epoch: {layer: Histogram(*np.array(rows).T) for layer, rows in layers.items()}
            for epoch, layers in bins.items()
        }
    except (TypeError, ValueError) as error:
        raise _not_ours(path) from error


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="") as file:
            header, *rows = [*csv.reader(file)] or [[]]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_ours(path) from error
    if tuple(header) != COLUMNS or not all(row and row[0].isdecimal() for row in rows):
        raise _not_ours(path)
    return rows


def _not_ours(path: Path) -> UserError:
    return UserError(f"{path}: is not what this program wrote; move it out of --out-dir")
