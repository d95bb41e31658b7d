"""What others have set on a pooling is on the one that replaces it."""

import copy

import pytest
import torch
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling

IMAGES = (2, 3, 16, 16)


def network(pool=None):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool or nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))


def replaced(model):
    old = model[1]
    replace_pooling(model, sample_shape=IMAGES)
    assert isinstance(model[1], GFGPMaxEntPool2d)
    return old, model[1]


class Graph(nn.Module):
    """Runs its layers as ultralytics' networks do, by what each layer says of itself."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)
        )
        for i, (layer, f) in enumerate(zip(self.model, (-1, -1, 1, -1), strict=True)):
            layer.i, layer.f, layer.np = i, f, 0
            layer.type = f"torch.nn.modules.{type(layer).__name__}"

    def forward(self, x):
        outputs = []
        for layer in self.model:
            outputs.append(layer(x if layer.f == -1 else outputs[layer.f]))
            x = outputs[layer.i]
        return x


def test_attributes_by_which_a_network_runs():
    model = Graph()
    changes = replace_pooling(model, sample_shape=IMAGES)
    assert [change.path for change in changes] == ["model.1", "model.2"]
    second = model.model[2]
    assert (second.i, second.f, second.np) == (2, 1, 0)
    assert second.type == "torch.nn.modules.MaxPool2d"
    assert model(torch.randn(IMAGES)).shape == (2, 4, 4, 4)
    assert copy.deepcopy(model).model[2].i == 2
    assert second.training and second.kernel_size == (2, 2)


def test_tensors_and_modules_keep_their_names():
    model = network()
    model[1].register_buffer("calls", torch.zeros(()))
    model[1].register_buffer("passing", torch.ones(()), persistent=False)
    model[1].scale = nn.Parameter(torch.ones(1))
    model[1].observer = nn.Linear(1, 1)
    before = model.state_dict(keep_vars=True)
    _, new = replaced(model)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert new.passing == 1
    assert "1.passing" not in after


def test_forward_hooks_run_and_their_handles_remove_them():
    model = network()
    seen = []
    handles = [
        model[1].register_forward_hook(lambda module, args, output: seen.append(module)),
        model[1].register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
        ),
    ]
    _, new = replaced(model)
    assert seen == []  # the trace has called none
    x = torch.randn(IMAGES)
    expected = new.pool(model[0](x), new.head(model[0](x).mean((2, 3), keepdim=True)))
    seen.clear()
    torch.testing.assert_close(new(model[0](x)), expected)
    assert seen == [{}, new]
    for handle in handles:
        handle.remove()
    new(model[0](x))
    assert len(seen) == 2


def test_backward_hooks_run():
    model = network()
    seen = []
    model[1].register_full_backward_hook(lambda module, gi, go: seen.append((gi[0].shape, module)))
    model[1].register_full_backward_pre_hook(lambda module, go: seen.append(go[0].shape))
    _, new = replaced(model)
    model(torch.randn(IMAGES)).sum().backward()
    assert seen == [(2, 4, 8, 8), ((2, 4, 16, 16), new)]


def test_state_dict_hooks_see_the_new_pooling():
    model = network()
    seen = []
    model[1].register_state_dict_pre_hook(lambda module, prefix, keep: seen.append(module))
    model[1].register_state_dict_post_hook(lambda module, *_: seen.append(module))
    model[1].register_load_state_dict_pre_hook(lambda module, *_: seen.append(module))
    model[1].register_load_state_dict_post_hook(lambda module, _: seen.append(module))
    _, new = replaced(model)
    model.load_state_dict(model.state_dict())
    assert len(seen) == 4
    assert all(module is new for module in seen)


def test_a_pooling_that_stays_elsewhere_keeps_its_hooks():
    pool = nn.MaxPool2d(2)
    seen = []
    handle = pool.register_forward_hook(lambda module, args, output: seen.append(module))
    model = nn.Sequential(pool, pool)
    replace_pooling(model, sample_shape=IMAGES, where=lambda path, module: path == "0")
    model(torch.randn(IMAGES))
    assert seen == [model[0], pool]
    handle.remove()  # belongs to the one that has gone first
    model(torch.randn(IMAGES))
    assert seen == [model[0], pool, pool]


def own_method():
    class Pool(nn.MaxPool2d):
        def log(self, module, args, output):
            pass

    pool = Pool(2)
    pool.register_forward_hook(pool.log)
    return pool


def with_attribute(name):
    pool = nn.MaxPool2d(2)
    setattr(pool, name, 1)
    return pool


def extra_state():
    class Pool(nn.MaxPool2d):
        def get_extra_state(self):
            return 1

    return Pool(2)


def own_forward():
    pool = nn.MaxPool2d(2)
    pool.forward = lambda x: x
    return pool


REFUSED = {
    "hook": (own_method, "its own method 'log'"),
    "attribute": (lambda: with_attribute("num_features"), "an attribute 'num_features'"),
    "method": (lambda: with_attribute("reset_parameters"), "an attribute 'reset_parameters'"),
    "module": (lambda: with_attribute("head"), "an attribute 'head'"),
    "extra state": (extra_state, r"extra state \(Pool.get_extra_state\)"),
    "forward": (own_forward, "forward of its own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_move_is_refused_by_name(case):
    make, words = REFUSED[case]
    model = nn.Sequential(nn.MaxPool2d(2), make())
    with pytest.raises(ValueError, match=rf"'1' .*{words}"):
        replace_pooling(model, sample_shape=IMAGES)
    assert isinstance(model[0], nn.MaxPool2d)
    changes = replace_pooling(model, sample_shape=IMAGES, unsupported="skip")
    assert [change.path for change in changes] == ["0"]
    assert [row.path for row in changes.left] == ["1"]
