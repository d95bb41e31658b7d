"""The optimizer that a network has already trains the new poolings as well."""

import copy
import warnings

import pytest
import torch
from torch import nn

from gfgp_cupy import replace_pooling
from gfgp_cupy.surgery.optimizers import update_optimizers

IMAGES = (4, 3, 16, 16)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 64, 2)
    )


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(IMAGES)).square().sum().backward()
    optimizer.step()


def replace(model, optimizer):
    return replace_pooling(model, sample_shape=IMAGES, optimizer=optimizer)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, 0.01, fused=True, amsgrad=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.5),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_new_parameters_join_the_first_group(name):
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[3].parameters()}]
    optimizer = OPTIMIZERS[name](groups)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    step(model, optimizer)
    momentum = copy.deepcopy(optimizer.state[model[0].weight])
    replace(model, optimizer)
    first, second = optimizer.param_groups
    assert set(first["params"]) == {*model[0].parameters(), *model[1].parameters()}
    assert set(second["params"]) == {*model[3].parameters()}
    assert (first["lr"], second["lr"]) == (0.5, 0.01)
    for key, value in optimizer.state[model[0].weight].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(momentum[key])), key
    before = [parameter.clone() for parameter in model[1].parameters()]
    step(model, optimizer)
    changed = [
        not torch.equal(old, new)
        for old, new in zip(before, model[1].parameters(), strict=True)
        if new.grad.abs().max() > 0
    ]
    assert changed and all(changed)
    scheduler.step()
    assert first["lr"] == pytest.approx(0.05)
    # What PyTorch saves fits what it has.
    twin = OPTIMIZERS[name](copy.deepcopy([dict(group) for group in optimizer.param_groups]))
    twin.load_state_dict(optimizer.state_dict())


def test_names_join_as_well():
    model = network()
    optimizer = torch.optim.SGD(model.named_parameters(), 0.1)
    replace(model, optimizer)
    (group,) = optimizer.param_groups
    named = dict(model.named_parameters())
    assert group["param_names"][:4] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert {*group["param_names"]} == {*named}
    for name, parameter in zip(group["param_names"], group["params"], strict=True):
        assert named[name] is parameter


def test_of_several_the_first_gets_what_is_new():
    model = network()
    optimizers = [
        torch.optim.SGD(model[0].parameters(), 0.1),
        torch.optim.Adam(model[3].parameters(), 0.1),
    ]
    replace(model, optimizers)
    assert [len(optimizer.param_groups[0]["params"]) for optimizer in optimizers] == [10, 2]


def test_replaced_parameters_leave():
    model = network()
    lost = model[3]
    optimizers = [
        torch.optim.SGD(model[0].named_parameters(), 0.1, momentum=0.9),
        torch.optim.Adam(lost.named_parameters(), 0.1),
    ]
    before = dict(model.named_parameters())
    for optimizer in optimizers:
        step(model, optimizer)
    model[3] = nn.Linear(4 * 64, 2)
    update_optimizers(optimizers, before, model)
    first, second = (optimizer.param_groups[0] for optimizer in optimizers)
    assert first["params"] == [*model[0].parameters(), *model[3].parameters()]
    assert first["param_names"] == ["weight", "bias", "3.weight", "3.bias"]
    assert (second["params"], second["param_names"]) == ([], [])
    assert not optimizers[1].state
    assert set(optimizers[0].state) == {*model[0].parameters()}


def test_a_scaler_goes_on():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(IMAGES)).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        if isinstance(model[1], nn.MaxPool2d):
            replace(model, optimizer)
    assert len(optimizer.param_groups[0]["params"]) == 12


def test_what_cannot_join_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"LBFGS.*afterwards"):
        replace(model, torch.optim.LBFGS(model.parameters()))
    with pytest.raises(TypeError, match=r"optimizer must be .*got StepLR"):
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        replace(model, torch.optim.lr_scheduler.StepLR(sgd, 1))
    assert isinstance(model[1], nn.MaxPool2d)


def test_an_optimizer_of_another_network_is_told():
    model, other = network(), network()
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    with pytest.warns(UserWarning, match="has none of model's parameters"):
        replace(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = [torch.optim.SGD(part.parameters(), 0.1) for part in (other[0], other[3])]
        replace(other, both)
        frozen = network().requires_grad_(False)
        replace(frozen, torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1))
