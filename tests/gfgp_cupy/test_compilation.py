"""compile_kernels: what it compiles is what steps launch, and the network does not notice."""

import copy
import re
import threading
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import nn

from gfgp_cupy import (
    GaussianPool2d,
    GFGPGaussianPool2d,
    GFGPMaxEntPool2d,
    GFGPMaxEntPool3d,
    MaxEntPool2d,
    MaxEntPool3d,
    SoftPool2d,
    compile_kernels,
    poolings,
    record_parameters,
    replace_pooling,
    use_backend,
)
from gfgp_cupy.backends import cupy as backend
from models import create_model
from tests.support import stand_in_driver
from tests.support.gloo_group import gloo_group
from tests.support.implementations import needs_cuda
from tests.support.random_numbers import random_numbers
from tests.support.recorded_launches import recorded_launches
from tests.support.small_networks import Lambda


@pytest.fixture
def recorder():
    with recorded_launches() as recorder:
        yield recorder


def all_kinds():
    """λ from a head, of its own, and none, windows of three kinds, one layer called twice."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = GFGPMaxEntPool2d(8, 2)

        def forward(self, input):
            return self.pool(self.pool(input))

    return nn.Sequential(
        MaxEntPool2d(2, stride=1),  # of the images, which need no gradient
        nn.Conv2d(3, 8, 3, padding=1),
        GFGPMaxEntPool2d(8, 3, 2, 1),
        Twice(),
        MaxEntPool2d(2, 3, num_features=8),
        nn.Conv2d(8, 8, 1),
        SoftPool2d(2, 1, 1),
    )


def other_poolings():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        poolings.GFGPMixedPool2d(8, 2),
        poolings.MixedPool2d(3, 2, 1, num_features=8),
        GFGPGaussianPool2d(8, 2, eps=1e-4),
        GaussianPool2d(2, 1),
    )


class Float(nn.Module):
    def forward(self, input):
        return input.float()


def without_gradients_below(model):
    for module in list(model.children())[:3]:
        module.requires_grad_(False)
    return model


def images(shape, memory_format=torch.contiguous_format, dtype=torch.float32):
    return random_numbers(shape, dtype, 0).to(memory_format=memory_format)


def step(model, input, training):
    with torch.set_grad_enabled(training):
        output = model.train(training)(input)
        if output.requires_grad:
            output.sum().backward()


CASES = {
    "all kinds": (all_kinds, {}),
    "float64": (lambda: all_kinds().double(), {"dtype": torch.float64}),
    "half": (lambda: all_kinds().bfloat16(), {"dtype": torch.bfloat16}),
    "images of another type": (
        lambda: nn.Sequential(SoftPool2d(2, 1), Float(), all_kinds()),
        {"dtype": torch.float16},
    ),
    "channels_last": (all_kinds, {"memory_format": torch.channels_last}),
    "partly frozen": (lambda: without_gradients_below(all_kinds()), {}),
    "other poolings": (other_poolings, {}),
    "frozen": (lambda: all_kinds().requires_grad_(False), {}),
    "autocast": (all_kinds, {"memory_format": torch.channels_last, "autocast": torch.bfloat16}),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_compiled_is_what_a_step_launches(recorder, case, training):
    create, options = case
    options = dict(options)
    amp = options.pop("autocast", None)
    model = create().to(memory_format=options.get("memory_format", torch.preserve_format))
    shapes = [(2, 3, 32, 32), (4, 3, 33, 47)]
    with nullcontext() if amp is None else torch.autocast("cpu", amp):
        result = compile_kernels(model, *shapes, training=training, **options)
        assert not recorder.launched
        for shape in shapes:
            step(model, images(shape, **options), training)
    assert recorder.compiled == recorder.launched
    assert len(recorder.compiled) >= 3
    assert result.programs == len(recorder.compiled)
    assert re.fullmatch(rf"{result.programs} GPU programs in \d+\.\d s", str(result))


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "last"]
)
def test_windows_of_depth_1_are_pooled_by_kernels_of_planes(recorder, memory_format):
    model = nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1).to(memory_format=memory_format),
        MaxEntPool3d((1, 2, 2)),
        GFGPMaxEntPool3d(8, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        poolings.GaussianPool3d((1, 2, 1)),
    )
    shape = (2, 3, 4, 16, 16)
    compile_kernels(model, shape, memory_format=memory_format)
    step(model, images(shape, memory_format), training=True)
    assert recorder.compiled == recorder.launched
    assert len(recorder.compiled) >= 6
    assert not any("volume" in name for name, *_ in recorder.compiled)


def test_norms_that_do_not_train_take_one_sample(recorder):
    model = all_kinds().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert compile_kernels(model, (1, 3, 32, 32)).programs > 0
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\).*one sample"):
        compile_kernels(model.train(), (1, 3, 32, 32))


def test_synchronised_norms_wait_for_nobody(recorder, tmp_path):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(all_kinds())
    with gloo_group(tmp_path, rank=0, world_size=1):
        compile_kernels(model, (4, 3, 32, 32))
    of_synchronised = set(recorder.compiled)
    compile_kernels(all_kinds(), (4, 3, 32, 32))
    assert of_synchronised == recorder.compiled


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_network_does_not_notice(recorder, training):
    model = nn.Sequential(all_kinds(), nn.Dropout(0.5), nn.BatchNorm2d(8))
    model[0][2].head.norm1.eval()
    for parameter in model[0].parameters():
        parameter.grad = random_numbers(parameter.shape, torch.float32, 0)
    flags = [module.training for module in model.modules()]
    tensors = list(model.state_dict(keep_vars=True).values())
    values = copy.deepcopy([(tensor, tensor.grad) for tensor in tensors])
    random_state = torch.get_rng_state()
    with torch.no_grad():
        compile_kernels(model, (4, 3, 32, 32), training=training)
        assert not torch.is_grad_enabled()
    assert recorder.compiled and not recorder.launched
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random_state)
    for tensor, kept, (value, grad) in zip(
        tensors, model.state_dict(keep_vars=True).values(), values, strict=True
    ):
        assert tensor is kept
        assert torch.equal(tensor, value)
        assert tensor.grad is grad is None or torch.equal(tensor.grad, grad)


def test_no_hook_of_others_is_called(recorder):
    class Keeps:
        def hook(self, module, args, output):
            self.output = output

    keeps = Keeps()
    model = all_kinds()
    model[1].register_forward_hook(keeps.hook)
    model[2].register_full_backward_hook(lambda *_: keeps.hook(*_))
    step(model, images((4, 3, 32, 32)), training=True)
    kept = keeps.output
    compile_kernels(model, (4, 3, 32, 32))
    assert keeps.output is kept
    assert recorder.compiled >= recorder.launched > set()


class Notes:
    """Keeps what it is told, as an object that a network holds."""

    def __init__(self):
        self.maps = {}

    def note(self, name, module, args, output):
        self.maps[name] = output


class Hooked(nn.Module):
    """Goes on with what a hook of a layer of PyTorch's has kept."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, 2)
        self.notes, self.maps = Notes(), {}
        hook = {
            "method": self.keep,
            "partial of a method": partial(Hooked.keep, self),
            "partial of a function": partial(keep_in, self),
            "method of an object": partial(self.notes.note, "conv"),
        }[how]
        self.conv.register_forward_hook(hook)

    def keep(self, module, args, output):
        self.maps["conv"] = output

    def forward(self, input):
        self.conv(input)
        return self.pool({**self.maps, **self.notes.maps}["conv"])


def keep_in(network, module, args, output):
    network.keep(module, args, output)


@pytest.mark.parametrize(
    "how", ["method", "partial of a method", "partial of a function", "method of an object"]
)
def test_hooks_of_the_networks_own_are_called_as_the_copys(recorder, how):
    model = Hooked(how)
    compile_kernels(model, (4, 3, 32, 32))
    assert not model.maps and not model.notes.maps
    step(model, images((4, 3, 32, 32)), training=True)
    assert recorder.compiled == recorder.launched > set()


def test_networks_of_timms_feature_hooks(recorder):
    model = timm.create_model("resnet18", features_only=True, feature_cls="hook")
    replace_pooling(model)
    compile_kernels(model, (2, 3, 64, 64))
    outputs = model(images((2, 3, 64, 64)))
    sum(output.sum() for output in outputs).backward()
    assert recorder.compiled == recorder.launched > set()


CALLED = []


def note_call(module, args, output):
    CALLED.append(module)


def test_functions_of_a_package_of_the_networks_modules_are_called(recorder):
    """They may be its own: nothing tells them from those of others."""
    CALLED.clear()
    model = all_kinds()  # has a module of a class of this package
    model[1].register_forward_hook(note_call)
    compile_kernels(model, (4, 3, 32, 32))
    assert CALLED and all(module is not model[1] for module in CALLED)
    CALLED.clear()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, 2))
    model[0].register_forward_hook(note_call)
    compile_kernels(model, (4, 3, 32, 32))
    assert CALLED == []


def test_a_record_of_parameters_notes_nothing(recorder):
    model = all_kinds()
    with record_parameters(model) as record:
        compile_kernels(model, (4, 3, 32, 32))
        assert not any(len(noted) for noted in record.values())


def test_arrays_of_tensors_that_have_data(recorder):
    size = torch.tensor([16, 16])
    crop = Lambda(lambda _, x: x[..., : size.numpy()[0], : np.asarray(size)[1]])
    compile_kernels(nn.Sequential(crop, all_kinds()), (4, 3, 32, 32))
    cropped = set(recorder.compiled)
    recorder.compiled.clear()
    compile_kernels(all_kinds(), (4, 3, 16, 16))
    assert cropped == recorder.compiled > set()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_a_hook_computes_have_gradients(recorder):
    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 3), GFGPMaxEntPool2d(8, 2))

    hooked = network()
    nn.utils.weight_norm(hooked[0])
    with torch.no_grad():
        hooked[0](images((1, 3, 8, 8)))  # leaves a weight without a gradient there
    compile_kernels(hooked, (4, 3, 32, 32))
    of_hooked = set(recorder.compiled)
    recorder.compiled.clear()
    compile_kernels(network(), (4, 3, 32, 32))
    assert of_hooked == recorder.compiled


# ---------------------------------------------------------------- nothing to compile


def test_on_the_cpu_there_is_nothing_to_compile():
    for name in ("numba", "torch"):
        with use_backend(name):
            result = compile_kernels(all_kinds(), (2, 3, 32, 32))
        assert result.programs == 0
        assert str(result) == f"nothing to compile: backend '{name}' serves cpu"


def test_exported_programs_are_served_as_this_machine_can():
    images = torch.rand(2, 3, 8, 8)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), MaxEntPool2d(2))
    program = torch.export.export(network, (images,), strict=False)
    result = compile_kernels(program.module(), images.shape)
    assert str(result) == "nothing to compile: backend 'numba' serves cpu"


def test_a_network_without_these_poolings_has_nothing_to_compile():
    result = compile_kernels(nn.Conv2d(3, 4, 3), (2, 3, 8, 8))
    assert str(result) == "nothing to compile: no pooling with kernels of its own"


def test_a_backend_asked_for_that_cannot_serve_the_model_says_why():
    with use_backend("cupy"), pytest.raises(ValueError, match=r"'cupy'.*cpu.*CUDA tensors only"):
        compile_kernels(all_kinds(), (2, 3, 32, 32))


# ---------------------------------------------------------------- errors


class LooksAtNumbers(nn.Module):
    def forward(self, input):
        return input if input.sum() > 0 else -input


class MakesArrays(nn.Module):
    def forward(self, input):
        return torch.from_numpy(input.numpy())


class Locked(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("model", "shapes", "error", "message"),
    [
        (GFGPMaxEntPool2d, [(2, 8, 8, 8)], TypeError, "model must be.*got type"),
        (nn.ReLU(), [], ValueError, r"sample_shapes.*\(64, 3, 224, 224\).*none"),
        (nn.Conv2d(3, 4, 3), [(2, 5, 8, 8)], ValueError, r"\(2, 5, 8, 8\).*first step"),
        (LooksAtNumbers(), [(2, 3, 8, 8)], ValueError, "DataDependent.*needs data; do without"),
        (MakesArrays(), [(2, 3, 8, 8)], ValueError, "DataDependent.*needs data; do without"),
        (nn.LazyConv2d(4, 3), [(2, 3, 8, 8)], ValueError, "cannot be copied.*lazy.*first step"),
        (Locked(), [(2, 3, 8, 8)], ValueError, "cannot be copied.*take off it.*first step"),
    ],
    ids=["class", "no shape", "wrong shape", "numbers", "arrays", "lazy", "locked"],
)
def test_errors_tell_the_way_out(model, shapes, error, message):
    with pytest.raises(error, match=message):
        compile_kernels(model, *shapes)


# ---------------------------------------------------------------- through CuPy


@stand_in_driver.needs_stand_in
@stand_in_driver.on_cpu_tensors()
def test_steps_find_the_kernels_compiled():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), GFGPMaxEntPool2d(8, 2))
    with use_backend("cupy"):
        result = compile_kernels(model, (2, 3, 8, 12))
        compiled = backend.loaded_kernel.cache_info().misses
        assert result.programs > 0
        launches = stand_in_driver.launch_count()
        step(model, images((2, 3, 8, 12)), training=True)
    assert stand_in_driver.launch_count() >= launches + result.programs
    assert backend.loaded_kernel.cache_info().misses == compiled


@needs_cuda
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_steps_on_a_gpu_find_the_kernels_compiled(training):
    model = create_model("resnet18", pool="max_ent", num_classes=10)
    model = model.to("cuda", memory_format=torch.channels_last)
    input = images((4, 3, 32, 32), torch.channels_last).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        result = compile_kernels(
            model, input.shape, memory_format=torch.channels_last, training=training
        )
        compiled = backend.loaded_kernel.cache_info().misses
        step(model, input, training)
    assert result.programs > 0
    assert backend.loaded_kernel.cache_info().misses == compiled
