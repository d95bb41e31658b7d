"""Quantised networks: what a pooling says of their tensors, and how it is left out."""

import copy
import warnings

import pytest
import torch
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, MaxEntPool2d
from gfgp_cupy.functional import max_ent_pool2d
from tests.support.random_numbers import random_numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
"""That quantisation is to move to torchao."""


def images(seed=0):
    return random_numbers((4, 3, 12, 12), torch.float32, seed)


def test_advice_for_quantised_input_works():
    input = torch.quantize_per_tensor(images(), scale=0.1, zero_point=128, dtype=torch.quint8)
    layer = GFGPMaxEntPool2d(3, 2).eval()
    for pool in (lambda x: max_ent_pool2d(x, 1.0, 2), MaxEntPool2d(2), layer):
        with pytest.raises(TypeError) as raised:
            pool(input)
        message = str(raised.value)
        assert "got torch.quint8" in message and "\n" not in message
        advice = message.rpartition("for instance with ")[2]
        assert advice == "input.dequantize()"
        converted = eval(advice, {"input": input})
        assert torch.equal(pool(converted), pool(input.int_repr().float().sub(128).mul(0.1)))


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize(
    "arrange",
    [torch.Tensor.to_sparse, torch.Tensor.to_mkldnn, lambda x: torch.nested.nested_tensor([*x])],
    ids=["sparse", "mkldnn", "nested"],
)
def test_advice_for_other_layouts_works(arrange):
    input = arrange(images())
    with pytest.raises(TypeError, match="input must be a dense tensor, got ") as raised:
        max_ent_pool2d(input, 1.0, 2)
    advice = str(raised.value).rpartition(": use ")[2].partition(", ")[0]
    converted = eval(advice, {"input": input})
    assert torch.equal(max_ent_pool2d(converted, 1.0, 2), max_ent_pool2d(images(), 1.0, 2))


def test_advice_for_integers_works():
    with pytest.raises(TypeError, match=r"got torch.int64.*with input\.float\(\)$"):
        max_ent_pool2d(torch.ones(1, 1, 2, 2, dtype=torch.int64), 1.0, 2)


def test_layer_is_left_out_of_eager_quantisation_aware_training():
    quantization = pytest.importorskip(
        "torch.ao.quantization", reason="this PyTorch has moved it to torchao"
    )
    torch.manual_seed(0)
    network = nn.Sequential(
        quantization.QuantStub(), nn.Conv2d(3, 8, 3), nn.ReLU(), quantization.DeQuantStub(),
        GFGPMaxEntPool2d(8, 2),
        quantization.QuantStub(), nn.Conv2d(8, 2, 3), quantization.DeQuantStub(),
    )  # fmt: skip
    engine = torch.backends.quantized.supported_engines[-1]
    network.qconfig = quantization.get_default_qat_qconfig(engine)
    network[4].qconfig = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = quantization.prepare_qat(network.train())
    pooling = prepared[4]
    before = copy.deepcopy(pooling.state_dict())
    optimizer = torch.optim.SGD(prepared.parameters(), 0.1)
    prepared(images()).square().mean().backward()
    optimizer.step()
    learned = pooling.state_dict()
    assert not torch.equal(learned["head.conv2.weight"], before["head.conv2.weight"])

    converted = quantization.convert(prepared.eval())
    assert "quantized" in type(converted[1]).__module__
    assert type(converted[4]) is GFGPMaxEntPool2d
    for name, tensor in converted[4].state_dict().items():
        assert torch.equal(tensor, learned[name])
    expected = prepared(images(1))
    assert (converted(images(1)) - expected).abs().max() < 0.2 * expected.std()
