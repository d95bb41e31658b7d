"""The optimizer: the published one to the bit, timm's as PyTorch has them, parameters apart."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d
from train_imagenet import parse_settings
from training.errors import UserError
from training.optimizer import check_optimizer, make_optimizer, set_learning_rate
from training.recipes import RECIPES

RECIPE = replace(RECIPES["imagenet"], lr=0.1, weight_decay=0.01)


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        GFGPMaxEntPool2d(4, 2),
        MaxEntPool2d(2, num_features=4),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def steps(model, optimizer, count=3):
    """Return copies of the parameters after steps with gradients that are the same each time."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def groups_by_name(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        ({names[parameter] for parameter in group["params"]}, group)
        for group in optimizer.param_groups
    ]


def test_sgd_is_the_published_one_to_the_bit(model):
    other = copy.deepcopy(model)
    published = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    expected = steps(other, published)
    optimizer = make_optimizer(model, RECIPE)
    actual = steps(model, optimizer)
    assert all(map(torch.equal, actual, expected))
    ours, theirs = optimizer.state_dict(), published.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    assert ours["param_groups"][0].items() >= theirs["param_groups"][0].items()


@pytest.mark.parametrize("betas", [None, (0.8, 0.95)])
def test_adamw_of_timm_is_pytorchs(model, betas):
    other, others = copy.deepcopy(model), {"betas": betas, "eps": 1e-6} if betas else {}
    adamw = torch.optim.AdamW(other.parameters(), 0.1, weight_decay=0.01, **others)
    expected = steps(other, adamw)
    eps = None if betas is None else 1e-6
    recipe = replace(RECIPE, optimizer="adamw", opt_betas=betas, opt_eps=eps)
    actual = steps(model, make_optimizer(model, recipe))
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("name", ["adamc", "sgdc", "lambcd"])
def test_corrected_weight_decay_is_whole_at_the_full_rate(name):
    """It is the rate squared over the largest one, timm says: over the one after the warm-up."""
    recipe = replace(RECIPE, optimizer=name, warmup_epochs=4)
    model = nn.Linear(3, 3, bias=False)
    optimizer = make_optimizer(model, recipe)
    (group,) = optimizer.param_groups
    assert group["lr"] == recipe.learning_rates()[0] < recipe.lr
    for lr in (group["lr"], recipe.lr):
        set_learning_rate(optimizer, lr)
        weight = model.weight.detach().clone()
        model.weight.grad = torch.zeros_like(weight)
        optimizer.step()
        expected = weight * (1 - lr**2 / recipe.lr * recipe.weight_decay)
        torch.testing.assert_close(model.weight.detach(), expected, rtol=3e-7, atol=0)


HEAD = {
    *(f"2.head.{layer}.{kind}" for layer in ("conv1", "norm1", "conv2", "norm2")
      for kind in ("weight", "bias")),
    "3.lam",
}  # fmt: skip


@pytest.mark.parametrize("name", ["sgd", "lamb"])
def test_weights_alone_decay(model, name):
    recipe = replace(RECIPE, optimizer=name, weight_decay_on="weights")
    groups = groups_by_name(model, make_optimizer(model, recipe))
    assert [(names, group["weight_decay"]) for names, group in groups] == [
        ({"0.weight", "5.weight"}, 0.01),
        ({"0.bias", "1.weight", "1.bias", "5.bias", *HEAD}, 0.0),
    ]


def test_heads_learn_at_their_own_rate(model):
    optimizer = make_optimizer(model, replace(RECIPE, head_lr=0.5))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]
    set_learning_rate(optimizer, 0.02)
    (_, network), (heads, of_heads) = groups_by_name(model, optimizer)
    assert (network["lr"], of_heads["lr"], heads) == (0.02, 0.01, HEAD)
    assert network["weight_decay"] == of_heads["weight_decay"] == 0.01


def test_what_cannot_be_used():
    check_optimizer("sgd", ["--momentum"])
    check_optimizer("adamw", ["--opt-betas", "--opt-eps"])
    for name, option in [("sgd", "--opt-eps"), ("lamb", "--momentum"), ("momentum", "--opt-betas")]:
        with pytest.raises(UserError, match=f"{option}: --optimizer {name}"):
            check_optimizer(name, [option])
    for name, betas, count in [
        ("adamw", (0.9,), 2),
        ("lamb", (0.9, 0.9, 0.9), 2),
        ("adan", (0.9, 0.98), 3),
    ]:
        with pytest.raises(UserError, match=f"--opt-betas 0.9.*: --optimizer {name} takes {count}"):
            check_optimizer(name, ["--opt-betas"], betas)
    with pytest.raises(UserError, match="--optimizer bnbadam: cannot be made"):
        make_optimizer(nn.Linear(2, 2), replace(RECIPE, optimizer="bnbadam"))


def test_three_betas_reach_the_optimizer_that_takes_them(model):
    betas = parse_settings(["--optimizer", "adan", "--opt-betas", "0.9,0.8,0.95"]).recipe.opt_betas
    check_optimizer("adan", ["--opt-betas"], betas)
    optimizer = make_optimizer(model, replace(RECIPE, optimizer="adan", opt_betas=betas))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.8, 0.95)}


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    check_optimizer("sgd")
    with pytest.raises(UserError, match="pip install timm"):
        check_optimizer("lamb")
