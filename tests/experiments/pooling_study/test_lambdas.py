"""How the study's networks pool, and for which images."""

import math

import pytest
import torch

from experiments.pooling_study.lambdas import example_rows, lambda_row, position_between
from experiments.pooling_study.networks import create_network
from experiments.pooling_study.rows import OfRun
from gfgp_cupy import MaxEntPool2d
from tests.experiments.pooling_study.images import random_images
from training.records.lambdas import lambdas_of

RUN = OfRun("fashion", "small_cnn", "max_ent", 0)


def test_spread_of_lambda_over_channels_and_over_images():
    # Channel means 0.25 and 0.75; within the first channel 0.25 apart from it, in the second none.
    found = lambda_row(RUN, 3, 2, torch.tensor([[0.0, 0.75], [0.5, 0.75]]), 0.5)
    assert (found.done, found.layer, found.mean, found.least, found.most) == (3, 2, 0.5, 0.0, 0.75)
    assert found.between_channels == pytest.approx(0.25)
    assert found.between_images == pytest.approx(math.sqrt(0.25**2 / 2), rel=1e-3)


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1)])
def test_position_is_0_at_the_average_and_1_at_the_maximum(window):
    kernel, stride, padding = window
    x = torch.rand(2, 3, 8, 8)
    layer = MaxEntPool2d(kernel, stride, padding)
    average = torch.nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)(x)
    largest = torch.nn.MaxPool2d(kernel, stride, padding)(x)
    assert position_between(x, average, layer) == pytest.approx(0, abs=1e-6)
    assert position_between(x, largest, layer) == pytest.approx(1)
    assert position_between(x, 0.75 * average + 0.25 * largest, layer) == pytest.approx(0.25)


def test_examples_are_the_images_of_the_highest_and_the_lowest_lambda():
    network = create_network("small_cnn", 4, "max_ent_softplus", seed=0)
    images = random_images(40)
    rows = example_rows(RUN, network, images)
    for layer, lam in enumerate(
        lambdas_of(network, images.unmoved(torch.arange(40))).values(), start=1
    ):
        means = lam.mean(dim=1)
        of_layer = [row for row in rows if row.layer == layer]
        assert [row.rank for row in of_layer] == [*range(6), *range(-6, 0)]
        ordered = means.sort(descending=True).values
        for row in of_layer:
            assert row.lam == pytest.approx(ordered[row.rank].item(), rel=1e-3)
            assert row.lam == pytest.approx(means[row.image].item(), rel=1e-3)
    assert len(rows) == 3 * 12


@pytest.mark.parametrize("pooling", ["max", "max_ent_unguided", "max_ent_constant"])
def test_there_are_no_examples_where_every_image_has_the_same_lambda(pooling):
    network = create_network("small_cnn", 4, pooling, seed=0)
    assert example_rows(RUN, network, random_images(40)) == []
