"""λ per layer: which images it is recorded on, and the histograms in lambdas.csv."""

import csv
from collections import OrderedDict

import pytest
import torch
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, record_lambdas
from training.errors import UserError
from training.loading.batches import Batch
from training.processes.ranks import Process
from training.records.histograms import histogram_of
from training.records.lambdas import (
    SAMPLE_IMAGES,
    SampledBatches,
    histograms_of,
    lambdas_of,
    read_lambdas,
    write_lambdas,
)


def process(rank=0, world_size=1):
    return Process(rank, world_size, torch.device("cpu"))


class NumberedBatches:
    """Batches of images of one pixel, which is the image's number."""

    def __init__(self, images, batch_size, rank=0, world_size=1):
        self.images = images
        self.content = []
        for start in range(0, images, batch_size):
            numbers = torch.arange(start, min(start + batch_size, images))
            share = numbers[rank::world_size]
            self.content.append(Batch(share.float().reshape(-1, 1, 1, 1), share, len(numbers)))

    def __iter__(self):
        return iter(self.content)


@pytest.mark.parametrize("images", [1, 5, 64, 65, 200, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_sample_is_spread_evenly_over_the_pass(images, batch_size):
    batches = NumberedBatches(images, batch_size)
    sampled = SampledBatches(batches, process())
    assert sampled.images == images
    for given, passed in zip(sampled, batches.content, strict=True):
        assert given is passed
    numbers = sampled.sample.flatten()
    assert min(images, SAMPLE_IMAGES // 2) <= len(numbers) <= SAMPLE_IMAGES
    assert numbers[0] == 0
    assert numbers.diff().unique().numel() <= 1
    assert numbers[-1] + (numbers[1] if len(numbers) > 1 else 1) >= images


def test_sample_of_one_process_of_three():
    sampled = SampledBatches(NumberedBatches(600, 10, rank=1, world_size=3), process(1, 3))
    list(sampled)
    numbers = sampled.sample.flatten()
    assert SAMPLE_IMAGES // 2 <= len(numbers) <= SAMPLE_IMAGES
    assert numbers[-1] > 580


def test_process_without_images_has_no_sample():
    batches = NumberedBatches(0, 4)
    batches.images = 1  # the other process's
    sampled = SampledBatches(batches, process(1, 2))
    assert list(sampled) == []
    assert sampled.sample is None


def test_sample_is_a_copy():
    """A view would hold the memory of its whole batch until the end of the pass."""
    sampled = SampledBatches(NumberedBatches(640, 320), process())
    for batch in sampled:
        batch.images.fill_(-1)
    assert torch.equal(sampled.sample.flatten(), torch.arange(0.0, 640, 10))


def network():
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, kernel_size=3, padding=1),
            guided=GFGPMaxEntPool2d(4, kernel_size=2),
            own=MaxEntPool2d(2, num_features=4, init_lambda=0.5),
        )
    )


def test_lambdas_are_those_of_evaluation():
    net, images = network(), torch.randn(3, 3, 8, 8)
    net(images)  # moves the head's running statistics
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with record_lambdas(net.eval()) as expected, torch.no_grad():
        net(images)
    lambdas, histograms = lambdas_of(net.train(), images), histograms_of(net.train(), images)
    assert list(lambdas) == list(histograms) == ["guided", "own"]
    for name, lam in expected.items():
        assert torch.equal(lambdas[name], lam)
        assert histograms[name].total == lam.numel()
        assert histograms[name].quantiles([0.5])[0] == pytest.approx(lam.median().item(), abs=0.02)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())


def test_network_without_lambda():
    assert lambdas_of(nn.Sequential(nn.MaxPool2d(2)), torch.randn(2, 3, 4, 4)) == {}


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_histograms(tmp_path):
    path = tmp_path / "lambdas.csv"
    values = {"pool1": torch.rand(64, 16) * 3, "layer1.pool": torch.full((8, 4), 0.5)}
    lambdas = {layer: histogram_of(lam) for layer, lam in values.items()}
    write_lambdas(lambdas, 1, path)
    rows = read_rows(path)
    for layer, lam in values.items():
        bins = [row for row in rows if row["layer"] == layer]
        assert sum(int(row["count"]) for row in bins) == lam.numel()
        for row in bins:
            low, high = float(row["low"]), float(row["high"])
            assert int(row["count"]) == ((lam > low) & (lam <= high)).sum() > 0
    assert [(row["low"], row["high"]) for row in rows if row["layer"] == "layer1.pool"] == [
        ("0.48", "0.5")
    ]
    (epoch,) = read_lambdas(path).values()
    assert list(epoch) == list(lambdas)
    for layer, expected in lambdas.items():
        for name in ("low", "high", "count"):
            assert getattr(epoch[layer], name).tolist() == getattr(expected, name).tolist()


def test_epochs_add_up_and_those_of_before_a_resumption_are_replaced(tmp_path):
    path = tmp_path / "lambdas.csv"

    def layer_sums():
        sums = {}
        for row in read_rows(path):
            sums[row["epoch"]] = sums.get(row["epoch"], 0) + int(row["count"])
        return sums

    for epoch in (1, 2, 3):
        write_lambdas({"pool": histogram_of(torch.rand(epoch, 10))}, epoch, path)
    assert layer_sums() == {"1": 10, "2": 20, "3": 30}
    write_lambdas({"pool": histogram_of(torch.rand(7, 10))}, 2, path)
    assert layer_sums() == {"1": 10, "2": 70}
    write_lambdas({}, 2, path)
    assert layer_sums() == {"1": 10}


def test_no_lambdas_no_file(tmp_path):
    write_lambdas({}, 1, tmp_path / "lambdas.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "notes\n", "epoch,layer,low,high,count\none,a,0,1,2\n"])
def test_foreign_file_is_kept(tmp_path, text):
    path = tmp_path / "lambdas.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"lambdas\.csv: is not what this program wrote"):
        write_lambdas({"pool": histogram_of(torch.rand(2, 2))}, 2, path)
    assert path.read_text() == text
