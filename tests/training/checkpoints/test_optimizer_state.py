"""From a checkpoint's optimizer comes what it remembers, and nothing that it was told."""

import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.checkpoints.test_format import checkpoint_of, record
from training.checkpoints.optimizer_state import load_optimizer, optimizer_state
from training.errors import UserError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))


def one_group(model):
    return list(model.parameters())


def two_groups(model):
    """Weights of layers, and the rest: the parameters are numbered in another order."""
    weights = [each for each in model.parameters() if each.ndim > 1]
    others = [each for each in model.parameters() if each.ndim == 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]


def head_first(model):
    parameters = list(model.parameters())
    return [{"params": parameters[-2:], "lr": 0.02}, {"params": parameters[:-2]}]


GROUPS = [one_group, two_groups, head_first]
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01),
}


def step(model, optimizer):
    optimizer.zero_grad()
    images = torch.arange(15.0).reshape(5, 3).sin()
    model(images).square().sum().backward()
    optimizer.step()


def trained(make, groups):
    model = network()
    optimizer = make(groups(model))
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer


def resumed(make, groups, checkpoint):
    model = network()
    model.load_state_dict(checkpoint.state_dict)
    optimizer = make(groups(model))
    load_optimizer(optimizer, model, checkpoint)
    return model, optimizer


def checkpoint_after(model, optimizer):
    """A copy of it: what goes on changes it no more."""
    state_dict = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint = checkpoint_of(model, optimizer, "a", "b", [record(1, 5.0)])
    state = torch.load(saved(optimizer_state(optimizer, model)), weights_only=True)
    return replace(checkpoint, state_dict=state_dict, optimizer=state, path="f")


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("later", GROUPS)
def test_state_follows_its_parameters_whatever_the_groups(name, groups, later):
    make = OPTIMIZERS[name]
    model, optimizer = trained(make, groups)
    checkpoint = checkpoint_after(model, optimizer)
    (group,) = checkpoint.optimizer["param_groups"]
    assert group["params"] == list(range(8))
    other_model, other = resumed(make, later, checkpoint)
    for own, its in zip(model.parameters(), other_model.parameters(), strict=True):
        for key, value in optimizer.state[own].items():
            assert torch.equal(other.state[its][key], value)
    told = [{key: group[key] for key in ("lr", "weight_decay")} for group in other.param_groups]
    fresh = make(later(network())).param_groups
    assert told == [{key: group[key] for key in ("lr", "weight_decay")} for group in fresh]
    if later is groups:
        step(model, optimizer)
        step(other_model, other)
        for own, its in zip(model.parameters(), other_model.parameters(), strict=True):
            assert torch.equal(own, its)


def test_what_the_file_was_told_is_not_obeyed():
    model, optimizer = trained(OPTIMIZERS["sgd"], one_group)
    for group in optimizer.param_groups:
        group.update(lr=7.0, momentum=0.1, weight_decay=3.0, nesterov=True, maximize=True)
    checkpoint = checkpoint_after(model, optimizer)
    assert checkpoint.optimizer["param_groups"][0]["maximize"]
    other = resumed(OPTIMIZERS["sgd"], one_group, checkpoint)[1]
    fresh = OPTIMIZERS["sgd"](one_group(network()))
    for key in fresh.param_groups[0].keys() - {"params"}:
        assert other.param_groups[0][key] == fresh.param_groups[0][key], key


def test_steps_that_an_optimizer_counts_in_its_group_are_state():
    """As those of timm do."""
    lamb = pytest.importorskip("timm.optim").Lamb
    model, optimizer = trained(lamb, one_group)
    assert optimizer.param_groups[0]["step"] == 3
    other_model, other = resumed(lamb, two_groups, checkpoint_after(model, optimizer))
    assert [group["step"] for group in other.param_groups] == [3, 3]
    for own, its in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(optimizer.state[own]["exp_avg"], other.state[its]["exp_avg"])


def kron(groups):
    """It draws for each parameter in each step; a step would first take most of a minute."""
    return pytest.importorskip("timm.optim.kron").Kron(groups, lr=1e-3)


def test_random_numbers_of_an_optimizer_go_on():
    """Those of timm's Kron; an older file does not have their state."""
    model = network()
    optimizer = kron(one_group(model))
    optimizer.rng.random()
    checkpoint = checkpoint_after(model, optimizer)
    drawn = optimizer.rng.random()
    assert resumed(kron, two_groups, checkpoint)[1].rng.random() == drawn
    del checkpoint.optimizer["rng_state"]
    fresh = kron(one_group(network())).rng.random()
    assert resumed(kron, one_group, checkpoint)[1].rng.random() == fresh != drawn
    sgd = checkpoint_after(*trained(OPTIMIZERS["sgd"], one_group))
    sgd.optimizer["rng_state"] = "not its own"
    resumed(OPTIMIZERS["sgd"], one_group, sgd)


@pytest.mark.parametrize("state", ["text", (3, (1, 2), None), (3, (-1,) * 625, None), 5, ()])
def test_random_state_that_is_none_is_refused(state):
    model = network()
    checkpoint = checkpoint_after(model, kron(one_group(model)))
    checkpoint.optimizer["rng_state"] = state
    with pytest.raises(UserError, match="--resume f: its optimizer state cannot be used"):
        resumed(kron, one_group, checkpoint)


@pytest.mark.parametrize("value", [torch.zeros(5), "text", 3.0])
def test_state_of_another_shape_is_refused(value):
    model, optimizer = trained(OPTIMIZERS["sgd"], one_group)
    checkpoint = checkpoint_after(model, optimizer)
    checkpoint.optimizer["state"][2]["momentum_buffer"] = value
    with pytest.raises(UserError, match=r"--resume f: its optimizer state .* momentum_buffer"):
        resumed(OPTIMIZERS["sgd"], one_group, checkpoint)
