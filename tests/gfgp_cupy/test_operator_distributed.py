"""Two gloo processes, each with half of a batch, learn what one process learns from all of it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d, record_parameters, replace_pooling
from gfgp_cupy.published import GaussianPoolingCuda2d, MaxEntPoolingCuda2d
from tests.support.gloo_group import gloo_group
from tests.support.random_numbers import random_numbers
from tests.support.warm_python import run_warm

PROCESSES = 2

SHARDS_ON_CPU = torch.__version__ >= (2, 7)
"""The ``fully_shard`` of PyTorch 2.6 asks the CPU for streams."""


def network():
    """A network with both layers, whose norms keep to their statistics.

    In training mode each process would normalise by the statistics of its own share.
    """
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        GFGPMaxEntPool2d(6, 3, 2, 1),
        nn.Conv2d(6, 4, 3),
        MaxEntPool2d(2, num_features=4),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return layers


def train(model, start, stop):
    """Three steps on samples ``start`` to ``stop``."""
    input = random_numbers((8, 3, 14, 14), torch.float32, 0)[start:stop]
    target = torch.arange(8)[start:stop] % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(3):
        loss = F.cross_entropy(model(input), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def replicated(rank):
    model = DistributedDataParallel(network())
    train(model, 4 * rank, 4 * rank + 4)
    return model.module.state_dict()


def sharded(rank):
    model = network()
    for module in model:
        if isinstance(module, (GFGPMaxEntPool2d, MaxEntPool2d)):
            fully_shard(module)
    fully_shard(model)
    local = sum(parameter.to_local().numel() for parameter in model.parameters())
    train(model, 4 * rank, 4 * rank + 4)
    with record_parameters(model) as record:
        model(torch.ones(3, 3, 14, 14))
    tensors = {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in model.state_dict().items()
    }
    return tensors, local, dict(record)


class Replaced(nn.Module):
    """Pools by a module and by a call of a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)
        self.classifier = nn.Linear(36, 2)

    def forward(self, x):
        return self.classifier(F.avg_pool2d(self.pool(self.conv(x)), 2).flatten(1))


def replaced(rank):
    """Heads that were drawn from another seed in each process."""
    torch.manual_seed(rank)
    model = Replaced()
    changes = replace_pooling(model, functional=True, sample_shape=(2, 3, 14, 14))
    start = copy.deepcopy(model.state_dict())
    model = DistributedDataParallel(model)
    train(model, 4 * rank, 4 * rank + 4)
    return len(changes), start, dict(model.module.named_parameters())


def published():
    torch.manual_seed(0)
    return nn.Sequential(MaxEntPoolingCuda2d(6, 2), GaussianPoolingCuda2d(6, 2))


def published_sharded(rank):
    """What layers with published tensor names save, and whether they load it."""
    model = published()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
    model = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(published().state_dict())  # by the published names
    loaded = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors, loaded


def run_process(rank, folder):
    torch.set_num_threads(1)
    with gloo_group(folder, rank, PROCESSES):
        trainings = (replicated, replaced, published_sharded, *([sharded] if SHARDS_ON_CPU else []))
        results = {f.__name__: f(rank) for f in trainings}
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process gave, by rank; one start of two processes serves all tests."""
    folder = tmp_path_factory.mktemp("processes")
    run_warm(run_process, (folder,), PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def alone():
    """Of one process with the whole batch: where it started, and where it arrived."""
    model = network()
    start = copy.deepcopy(model.state_dict())
    train(model, 0, 8)
    return start, model.state_dict()


def assert_learned(tensors, alone):
    start, expected = alone
    assert tensors.keys() == expected.keys()
    for name, before in start.items():
        moved = (expected[name].double() - before).norm()
        assert (tensors[name].double() - expected[name]).norm() <= 1e-3 * moved, name


def test_one_process_learns(alone):
    start, arrived = alone
    for name, _ in network().named_parameters():
        assert not torch.equal(start[name], arrived[name]), name


def test_distributed_data_parallel(results, alone):
    for result in results:
        assert_learned(result["replicated"], alone)


def test_heads_of_replaced_poolings_stay_equal(results):
    (changes, start, first), (_, other_start, second) = (result["replaced"] for result in results)
    assert changes == 2
    assert first.keys() == second.keys()
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), name
        if name.endswith("weight"):  # a bias before a norm learns nothing
            assert not torch.equal(parameter, start[name]), name
    assert not torch.equal(*(s["pool.head.conv1.weight"] for s in (start, other_start)))


@pytest.mark.skipif(not SHARDS_ON_CPU, reason="PyTorch 2.6 shards on GPUs alone")
def test_fully_shard(results, alone):
    total = sum(parameter.numel() for parameter in network().parameters())
    assert sum(result["sharded"][1] for result in results) == total
    assert max(result["sharded"][1] for result in results) < 0.6 * total
    for result in results:
        tensors, _, recorded = result["sharded"]
        assert_learned(tensors, alone)
        assert recorded.keys() == {"2", "4"}
        assert torch.equal(recorded["4"], tensors["4.lam"].flatten(1).expand(3, 4))


def test_fully_sharded_layers_with_published_names_save_and_load(results):
    own = dict(published().named_parameters())
    for tensors, loaded in (result["published_sharded"] for result in results):
        assert own.keys() <= tensors.keys()
        assert not any("To" in name for name in tensors)
        assert all((tensors[name] == 2).all() for name in own)
        assert all(torch.equal(loaded[name], own[name]) for name in own)
        published().load_state_dict(tensors)  # of one process, strictly
