"""Networks that are wrapped or compiled already: replaced where that works, refused where not."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gfgp_cupy import GFGPMaxEntPool2d, replace_pooling
from tests.support.gloo_group import gloo_group

IMAGES = (2, 3, 16, 16)
NEEDS_SHARDS = pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="the fully_shard of PyTorch 2.6 asks the CPU for streams"
)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))


def replace(model, **options):
    return replace_pooling(model, sample_shape=IMAGES, **options)


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (DistributedDataParallel, "DistributedDataParallel"),
        pytest.param(fully_shard, "FSDPModule", marks=NEEDS_SHARDS),
    ],
)
def test_what_is_distributed_already_is_refused(tmp_path, wrap, name, part):
    with gloo_group(tmp_path, rank=0, world_size=1):
        wrapped = network()
        wrapped = wrap(wrapped) or wrapped
        model = nn.Sequential(wrapped) if part else wrapped
        with pytest.raises(ValueError, match=rf"model{r'.0' * part} is wrapped by {name}.*first"):
            replace(model)
        assert not any(isinstance(module, GFGPMaxEntPool2d) for module in model.modules())


def test_sharded_by_wrapping_is_refused():
    """By the class's name alone: PyTorch shards on an accelerator only."""
    wrapper = type(
        "FullyShardedDataParallel", (nn.Sequential,), {"__module__": "torch.distributed"}
    )
    with pytest.raises(ValueError, match=r"model is wrapped by FullyShardedDataParallel"):
        replace(wrapper(network()))


def test_data_parallel():
    model = nn.DataParallel(network())
    assert [change.path for change in replace(model)] == ["module.1"]
    assert model(torch.randn(IMAGES)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("part", [False, True])
def test_compiled(part):
    """Compiles anew: what it computes is what the new pooling does."""
    inner = network().eval()
    compiled = torch.compile(inner, backend="eager")
    model = nn.Sequential(compiled) if part else compiled
    x = torch.randn(IMAGES)
    before = model(x)
    assert [change.path for change in replace(model)] == ["0." * part + "_orig_mod.1"]
    torch.testing.assert_close(model(x), inner(x))
    assert not torch.equal(model(x), before)


def test_compiled_in_place():
    model = network().eval()
    model.compile(backend="eager")
    x = torch.randn(IMAGES)
    model(x)
    replace(model)
    torch.testing.assert_close(model(x), model[1](model[0](x)))


def test_a_pooling_that_is_compiled_by_itself_is_refused():
    model = network()
    model[1] = torch.compile(model[1], backend="eager")
    with pytest.raises(ValueError, match=r"'1\._orig_mod'.*torch\.compile by itself"):
        replace(model)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize(
    "compile", [torch.jit.script, lambda model: torch.jit.trace(model.eval(), torch.rand(IMAGES))]
)
def test_compiled_by_jit(compile):
    compiled = compile(network())
    with pytest.raises(ValueError, match=r"model was compiled by torch\.jit"):
        replace(compiled)
    model = nn.Sequential(compiled, nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"'0' .*torch\.jit"):
        replace(model)
    changes = replace(model, unsupported="skip")
    assert [change.path for change in changes] == ["1"]
    assert [row.path for row in changes.left] == ["0"]
    assert model(torch.randn(IMAGES)).shape == (2, 4, 4, 4)


def test_traced_by_fx():
    model = torch.fx.symbolic_trace(network())
    assert [change.path for change in replace(model)] == ["1"]
    assert model(torch.randn(IMAGES)).shape == (2, 4, 8, 8)


def test_int8_is_refused_and_what_is_yet_to_be_quantised_is_not():
    class Stubs(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(torch.ao.quantization.QuantStub(), *layers)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch tells of another package
        model = Stubs(*network()).eval()
        model.qconfig = torch.ao.quantization.default_qconfig
        prepared = torch.ao.quantization.prepare(model)
        prepared(torch.randn(IMAGES))
        converted = torch.ao.quantization.convert(prepared)
        with pytest.raises(ValueError, match=r"model\.0 is an int8 Quantize.*quantise"):
            replace(converted)
        assert [change.path for change in replace(prepared)] == ["2"]
