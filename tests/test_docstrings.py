"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import gfgp_cupy

MODULES = (
    "gfgp_cupy.backends.selection",
    "gfgp_cupy.functional",
    "gfgp_cupy.layers",
    "gfgp_cupy.poolings.gated",
    "gfgp_cupy.poolings.generalized_mean",
    "gfgp_cupy.poolings.guided",
    "gfgp_cupy.poolings.log_sum_exp",
    "gfgp_cupy.poolings.mixed",
    "gfgp_cupy.poolings.registry",
    "gfgp_cupy.poolings.soft",
    "gfgp_cupy.poolings.windows",
    "gfgp_cupy.surgery",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    attempted = 0
    for test in doctest.DocTestFinder().find(module, extraglobs={"torch": torch}):
        results = doctest.DocTestRunner().run(test)
        assert results.failed == 0, test.name
        attempted += results.attempted
    assert attempted > 0


def test_every_module_with_examples_is_tested():
    with_examples = {
        info.name
        for info in pkgutil.walk_packages(gfgp_cupy.__path__, "gfgp_cupy.")
        if any(
            test.examples
            for test in doctest.DocTestFinder().find(importlib.import_module(info.name))
        )
    }
    assert with_examples == set(MODULES)
