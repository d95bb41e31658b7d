"""Histograms whose bins stay where they are: which bin a value is in, and quantiles."""

import numpy as np
import pytest
import torch

from training.records.histograms import histogram_of


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (0.0, 0.0, 0.02),
        (0.01, 0.0, 0.02),
        (0.5, 0.48, 0.5),
        (1.0, 0.98, 1.0),
        (1.01, 1.0, 1.1),
        (-0.01, -0.02, 0.0),
        (-1.0, -1.0, -0.98),
        (-1.01, -1.1, -1.0),
    ],
)
def test_bin_of_a_value(value, low, high):
    histogram = histogram_of(torch.tensor([value], dtype=torch.float64))
    assert (histogram.low, histogram.high, histogram.count) == (low, high, 1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 50.0])
def test_every_value_is_in_the_bin_that_counts_it(scale):
    values = torch.randn(5000, dtype=torch.float64) * scale
    histogram = histogram_of(values)
    assert histogram.total == 5000
    assert (histogram.low[1:] >= histogram.high[:-1]).all()
    for low, high, count in zip(histogram.low, histogram.high, histogram.count, strict=True):
        inside = (
            (values > low) & (values <= high) if high > 0 else (values >= low) & (values < high)
        )
        assert inside.sum() == count


def test_bins_do_not_move_with_the_values():
    few, many = (histogram_of(torch.rand(count) * 3 - 1) for count in (20, 2000))
    edges = {*zip(many.low, many.high, strict=True)}
    assert {*zip(few.low, few.high, strict=True)} <= edges


def test_huge_values_are_in_the_last_bins():
    histogram = histogram_of(torch.tensor([-1e30, 1e9, 1e30]))
    assert histogram.count.tolist() == [1, 2]
    assert histogram.high[-1] == -histogram.low[0] >= 1e6


def test_values_that_are_not_finite_are_not_counted():
    histogram = histogram_of(torch.tensor([1.0, np.inf, 2.0, np.nan]))
    assert histogram.total == 2
    empty = histogram_of(torch.tensor([np.inf, np.nan]))
    assert empty.total == 0
    assert np.isnan(empty.quantiles([0.1, 0.9])).all()


@pytest.mark.parametrize(
    "values", [torch.rand(4000), torch.rand(4000) ** 4, torch.randn(4000), torch.randn(4000) * 20]
)
def test_quantiles(values):
    """Each is in the bin of the value that it is by definition, the k-th smallest of them."""
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    ordered = values.double().sort().values
    for found, share in zip(histogram_of(values).quantiles(shares), shares, strict=True):
        of_one = histogram_of(ordered[round(share * len(values)) - 1])
        assert of_one.low <= found <= of_one.high


def test_quantiles_within_a_bin_are_spread_evenly():
    histogram = histogram_of(torch.full((4,), 3.0))
    (low,), (high,) = histogram.low, histogram.high
    expected = [low + share * (high - low) for share in (0.25, 0.5, 1.0)]
    assert histogram.quantiles([0.25, 0.5, 1.0]) == pytest.approx(expected)


def test_contiguous_bins_have_all_counts():
    histogram = histogram_of(torch.randn(50) * 3)
    counts, edges = histogram.contiguous()
    assert (np.diff(edges) > 0).all()
    assert counts[counts > 0].tolist() == histogram.count.tolist()
    assert edges[1:][counts > 0].tolist() == histogram.high.tolist()
    assert edges[:-1][counts > 0].tolist() == histogram.low.tolist()
