"""What tests of poolings share."""

import pytest

from gfgp_cupy import use_backend


@pytest.fixture
def by_the_formula():
    """Composed of PyTorch's operators. The shared suite (test_window_functions.py) holds the
    backends against the formulas; to compile those here in float64, too, takes long."""
    with use_backend("torch"):
        yield
