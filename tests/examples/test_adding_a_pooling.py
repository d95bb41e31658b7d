"""The pooling that docs/adding-a-pooling.md adds: right in every implementation, and trained."""

import importlib
import re
import runpy

import numpy as np
import pytest
import torch

from gfgp_cupy import use_backend
from tests.gfgp_cupy.poolings import test_window_functions as suite
from tests.support import window_formulas
from tests.support.cxx import needs_cxx
from tests.support.paths import REPOSITORY

FOLDER = REPOSITORY / "examples" / "adding_a_pooling"
PAGE = REPOSITORY / "docs" / "adding-a-pooling.md"
GEOMETRIES = [suite.GEOMETRIES[name] for name in ("disjoint", "overlapping", "overhanging")]


def mean_variance(x, weight):
    mean = x.mean(-1, keepdims=True)
    return mean[..., 0] + weight[..., 0] * ((x - mean) ** 2).mean(-1)


@pytest.fixture
def pooling(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    formula = window_formulas.Formula(mean_variance, torch.sigmoid)
    monkeypatch.setitem(window_formulas.FORMULAS, "mean_variance", formula)
    return importlib.import_module("mean_variance")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(suite.Composition, id="composition"),
        # Which compiles it for windows of all kinds.
        pytest.param(suite.of_numba, marks=pytest.mark.slow, id="numba"),
        pytest.param(suite.of_cuda, marks=needs_cxx, id="cuda"),
    ],
)
def test_its_implementations_are_its_formula(pooling, make):
    function, dtype = pooling.MEAN_VARIANCE, torch.float32
    parameter = suite.usual_parameter(function, dtype=dtype)
    for geometry in GEOMETRIES:
        input = suite.images(function, dtype=dtype)
        suite.check(make(function), function, input, parameter, geometry)
        input[0, 1, 4, 4] = np.inf
        grad_output = suite.grad_of(input, geometry)
        output, grad_input, _ = make(function).results(input, parameter, geometry, grad_output)
        assert torch.equal(output.isnan().any((2, 3)), grad_input.isnan().any((2, 3)))
        assert output.isnan().any((2, 3)).sum() == 1


def test_its_layers(pooling):
    own = pooling.MeanVariancePool2d(2, num_features=3)
    guided = pooling.GFGPMeanVariancePool2d(3, 3, 2, 1)
    for layer in (own, guided):
        with use_backend("torch"):
            output = layer(torch.randn(4, 3, 8, 8, requires_grad=True))
        output.sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())


def test_a_network_trains_with_it(pooling, capsys):
    runpy.run_path(str(FOLDER / "train.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.count("GFGPMeanVariancePool2d(2/2)") == 2
    losses = [float(loss) for loss in re.findall(r"loss (.*)", printed)]
    assert losses[-1] < 0.5 * losses[0]


def test_page_shows_every_file():
    shown = re.findall(r"literalinclude\} \.\./(\S+)", PAGE.read_text(encoding="utf-8"))
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert {REPOSITORY / path for path in shown} == set(files)
