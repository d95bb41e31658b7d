"""The examples in docstrings are true."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import benchmarks
import experiments
import gfgp_cupy
import models
import training

NEED_OTHER_PACKAGES = "experiments.survey"


def examples() -> list[doctest.DocTest]:
    """Those of every module of the packages."""
    names = [
        info.name
        for package in (benchmarks, experiments, gfgp_cupy, models, training)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.name.startswith(NEED_OTHER_PACKAGES)
    ]
    finder = doctest.DocTestFinder()
    return [
        test
        for name in names
        for test in finder.find(importlib.import_module(name), extraglobs={"torch": torch})
        if test.examples
    ]


EXAMPLES = examples()


@pytest.mark.parametrize("example", [pytest.param(test, id=test.name) for test in EXAMPLES])
def test_example(example):
    results = doctest.DocTestRunner().run(example)
    assert results.attempted > 0
    assert results.failed == 0


def test_public_names_have_examples():
    with_examples = {test.name.rpartition(".")[2] for test in EXAMPLES}
    public = {
        getattr(package, name).__name__  # an alias has the example of what it stands for
        for package in (gfgp_cupy, gfgp_cupy.functional, models)
        for name in package.__all__
        if not inspect.ismodule(getattr(package, name))
    }
    assert public <= with_examples
