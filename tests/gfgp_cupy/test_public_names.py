"""The names and arguments that programs rely on, as the design fixes them.

Further arguments may follow, if none of them must be given; those listed keep their places, their
names and their defaults.
"""

import inspect
from functools import reduce

import pytest

import gfgp_cupy
import models

NO_DEFAULT = inspect.Parameter.empty
WINDOW = {"kernel_size": NO_DEFAULT, "stride": None, "padding": 0, "ceil_mode": False}
LEARNED = {**WINDOW, "num_features": None, "init_lambda": 1.0, "learnable": True}
GUIDED = {"num_features": NO_DEFAULT, **WINDOW, "activation": "sigmoid", "hidden_features": None}
ADAPTIVE = {"num_features": None, "init_lambda": 1.0, "learnable": True}
INPUT = {"input": NO_DEFAULT}
GAUSSIAN = {**WINDOW, "hidden_features": None, "stochasticity": "CN"}
PUBLISHED = {"num_features": NO_DEFAULT, **WINDOW}

ARGUMENTS = {
    "gfgp_cupy.functional.max_ent_pool2d": {**INPUT, "lam": NO_DEFAULT, **WINDOW},
    "gfgp_cupy.functional.gaussian_pool2d": {
        **INPUT, "weight": NO_DEFAULT, **WINDOW, "count_include_pad": False,
    },
    "gfgp_cupy.MaxEntPool1d": LEARNED,
    "gfgp_cupy.MaxEntPool2d": LEARNED,
    "gfgp_cupy.MaxEntPool3d": LEARNED,
    "gfgp_cupy.GFGPMaxEntPool1d": GUIDED,
    "gfgp_cupy.GFGPMaxEntPool2d": GUIDED,
    "gfgp_cupy.GFGPMaxEntPool3d": GUIDED,
    "gfgp_cupy.GFGPGaussianPool2d": {"num_features": NO_DEFAULT, **GAUSSIAN},
    "gfgp_cupy.AdaptiveMaxEntPool2d": {"output_size": NO_DEFAULT, **ADAPTIVE},
    "gfgp_cupy.AdaptiveMaxEntPool3d": {"output_size": NO_DEFAULT, **ADAPTIVE},
    "gfgp_cupy.GlobalMaxEntPool1d": ADAPTIVE,
    "gfgp_cupy.GlobalMaxEntPool2d": ADAPTIVE,
    "gfgp_cupy.MaxEntPoolingCuda2d": {
        **PUBLISHED, "activation": "sigmoid", "hidden_node": None,
    },
    "gfgp_cupy.GaussianPoolingCuda2d": {
        **PUBLISHED, "count_include_pad": False, "hidden_node": None,
        "stochasticity": "HWCN", "eps": 1e-6,
    },
    "gfgp_cupy.GaussianPooling2d": {
        **PUBLISHED, "count_include_pad": True, "hidden_node": None,
        "stochasticity": "HWCN", "eps": 1e-6,
    },
    "gfgp_cupy.poolings.create_pooling": {
        "pool": NO_DEFAULT, "num_features": NO_DEFAULT, **WINDOW,
    },
    "gfgp_cupy.poolings.list_poolings": {},
    "gfgp_cupy.poolings.soft_pool2d": {**INPUT, **WINDOW},
    "gfgp_cupy.replace_pooling": {"model": NO_DEFAULT, "pool": "max_ent"},
    "gfgp_cupy.use_backend": {"name": NO_DEFAULT},
    "gfgp_cupy.backend_report": {},
    "models.create_model": {"name": NO_DEFAULT, "pool": "max_ent", "num_classes": 1000},
    "models.list_models": {},
}  # fmt: skip

BY_KEYWORD = {
    "gfgp_cupy.replace_pooling": {
        "strided_convs": False, "where": None, "sample_shape": (2, 3, 224, 224),
    },
}  # fmt: skip


def parameters_of(name):
    package, *path = name.split(".")
    found = reduce(getattr, path, {"gfgp_cupy": gfgp_cupy, "models": models}[package])
    return list(inspect.signature(found).parameters.values())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_keep_their_places_and_defaults(name):
    fixed = ARGUMENTS[name]
    found = parameters_of(name)
    by_position = [each for each in found if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [(each.name, each.default) for each in by_position[: len(fixed)]] == list(fixed.items())
    assert [each.name for each in found[len(fixed) :] if each.default is NO_DEFAULT] == []


@pytest.mark.parametrize("name", BY_KEYWORD)
def test_keywords_keep_their_defaults(name):
    found = {each.name: each.default for each in parameters_of(name)}
    assert BY_KEYWORD[name].items() <= found.items()
