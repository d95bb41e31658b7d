"""The study's networks are the same but for their poolings."""

from dataclasses import replace

import pytest
import torch

from experiments.pooling_study.lambdas import lambda_rows, pooling_layers
from experiments.pooling_study.networks import NETWORKS, create_network
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import OfRun
from experiments.pooling_study.training import Recipe, make_optimizer, train_epoch
from gfgp_cupy.pool2d import Pool2d
from tests.experiments.pooling_study.images import random_images
from training.records.lambdas import lambdas_of

RUN = OfRun("fashion", "small_cnn", "max_ent", 0)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_pooling_starts_from_the_same_weights(network):
    expected = create_network(network, 4, "max", seed=3).state_dict()
    for pooling in POOLINGS:
        found = create_network(network, 4, pooling, seed=3)
        tensors = found.state_dict()
        of_poolings = {
            f"{path}.{name}"
            for path, module in found.named_modules()
            if isinstance(module, Pool2d)
            for name in module.state_dict()
        }
        common = tensors.keys() - of_poolings
        assert len(common) == len(expected)
        # Without poolings what follows them has other places.
        for one, other in zip(
            (tensors[name] for name in tensors if name in common), expected.values(), strict=True
        ):
            assert torch.equal(one, other)
    other_seed = create_network(network, 4, "max", seed=4).state_dict()
    assert not torch.equal(next(iter(other_seed.values())), next(iter(expected.values())))


def sizes_of_maps(network, images):
    """The sizes of the maps between the layers of ``network``, from large to small, but 1."""
    sizes = []
    for layer in network:
        layer.register_forward_hook(lambda _, args, output: sizes.append(output.shape[-1]))
    assert network(images).shape == (len(images), 10)
    last = sizes.index(1)
    return sorted(set(sizes[:last]), reverse=True)


@pytest.mark.parametrize(("network", "smallest"), [("small_cnn", 8), ("resnet18", 4)])
def test_networks_halve_their_maps_under_every_pooling(network, smallest):
    for pooling in POOLINGS:
        found = sizes_of_maps(
            create_network(network, 4, pooling, 0).eval(), torch.rand(2, 1, 64, 64)
        )
        whole = [size for size in (64, 32, 16, 8, 4) if size >= smallest]
        # A convolution that strides as the first layer leaves no map of the image's size.
        assert found == (whole[1:] if (network, pooling) == ("resnet18", "skip") else whole)


@pytest.mark.parametrize(
    ("network", "pooled", "strided"),
    [("small_cnn", [28, 14, 7, 3], [28, 14, 7, 4]), ("resnet18", [28, 14, 7, 3], [14, 7, 4, 2])],
)
def test_maps_of_the_smaller_images_are_as_the_page_says(network, pooled, strided):
    for pooling in POOLINGS:
        found = sizes_of_maps(
            create_network(network, 4, pooling, 0).eval(), torch.rand(2, 1, 28, 28)
        )
        assert found == (strided if pooling == "skip" else pooled)


def test_random_state_is_the_callers():
    before = torch.get_rng_state()
    create_network("small_cnn", 4, "max_ent", seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_constant_head_has_the_guided_ones_parameters_and_no_guidance():
    guided, constant = (
        create_network("small_cnn", 4, pooling, seed=0)
        for pooling in ("max_ent", "max_ent_constant")
    )
    assert [each.shape for each in guided.parameters()] == [
        each.shape for each in constant.parameters()
    ]
    images = random_images(50)
    for network, has_guidance in ((guided, True), (constant, False)):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            network.train()
            loss = torch.nn.functional.cross_entropy(
                network(images.unmoved(torch.arange(50))), images.targets
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rows = lambda_rows(RUN, network, images, done=0)
        assert len(rows) == 3
        assert all(0 < row.least <= row.mean <= row.most < 1 for row in rows)
        assert all(row.between_channels > 1e-3 for row in rows)
        assert all((row.between_images > 1e-4) == has_guidance for row in rows)


def test_constant_heads_lambda_lags_in_evaluation_until_the_learning_rate_is_0():
    network = create_network("small_cnn", 4, "max_ent_constant", seed=0)
    optimizer = make_optimizer(network, decays=True)
    recipe, images = Recipe(width=4, epochs=4, batch_size=10, lr=0.2), random_images(100)
    (*_, layer) = pooling_layers(network)

    def lag():
        found = [*lambdas_of(network, images.unmoved(torch.arange(2))).values()][-1]
        return (found - layer.head.norm2.bias.sigmoid()).abs().max().item()

    for done in range(2):
        train_epoch(network, optimizer, images, recipe, seed=0, done=done)
    assert lag() > 0.05
    for done in range(20):
        train_epoch(network, optimizer, images, replace(recipe, lr=0.0), seed=0, done=done)
    # Two norms, one behind the other, divide float32's rounding by the root of their epsilon.
    assert lag() < 0.01


@pytest.mark.parametrize("pooling", POOLINGS)
def test_weight_decay_leaves_heads_alone_where_it_should(pooling):
    network = create_network("small_cnn", 4, pooling, seed=0)
    learned_itself = {"mixed", "gem", "max_ent_unguided"}
    decays = not (pooling.endswith("_no_decay") or pooling in learned_itself)
    optimizer = make_optimizer(network, POOLINGS[pooling].decays)
    decay = {
        parameter: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(network.parameters())
    for module in network.modules():
        if isinstance(module, Pool2d):
            for parameter in module.parameters():
                assert (decay.pop(parameter) > 0) == decays
    assert set(decay.values()) == {5e-4}
