"""benchmarks/poolings.py on tiny shapes: every pooling is measured, no number is looked at."""

import dataclasses

import pytest

from benchmarks import poolings
from benchmarks.pooling_costs import Copy, page, read_costs
from gfgp_cupy import use_backend
from tests.support.cuda_on_cpu import needs_cxx

TINY = ("--shapes", "8x8x8:2/2/0", "--batch-size", "1", "--rounds", "2")


@needs_cxx
def test_every_pooling_is_measured(tmp_path, capsys):
    out, table = tmp_path / "costs.json", tmp_path / "page.md"
    with use_backend("torch"):  # Numba would compile them all
        code = poolings.main([*TINY, "--traffic", "--layout", "channels_last", "--out", str(out)])
    costs, printed = read_costs(out), capsys.readouterr()
    assert code == (1 if costs.beyond_the_limits() else 0)
    names = [*poolings.functions(), *poolings.FIXED]
    assert [each.pooling for each in costs.times] == names
    assert costs.times[0].ratio == 1
    assert all(each.forward_ms > 0 and each.peak_bytes > 0 for each in costs.times)
    kernels = {name for name, each in poolings.functions().items() if each.cuda is not None}
    assert {(each.dtype, each.pooling) for each in costs.traffic} == {
        (dtype, name) for dtype in poolings.DTYPES for name in kernels
    }
    assert all(0.99 < each.forward < 2 and 0.99 < each.backward < 2 for each in costs.traffic)
    assert poolings.main(["--read", str(out), "--table", str(table)]) == 0
    assert table.read_text("utf-8").strip() == page([costs]).strip() == printed.out.strip()


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    out = tmp_path_factory.mktemp("poolings") / "costs.json"
    with use_backend("torch"):
        poolings.main([*TINY, "--out", str(out)])
    return read_costs(out)


def test_limits(costs):
    first = costs.times[0]
    for wrong, words in (
        ({"ratio": 1.51}, "1.51 of Max-Ent pooling's time"),
        ({"peak_bytes": first.allowed_bytes + 1}, "bytes, allowed are"),
    ):
        within = dataclasses.replace(costs, times=[first])
        beyond = dataclasses.replace(costs, times=[dataclasses.replace(first, **wrong)])
        assert within.beyond_the_limits() == []
        (told,) = beyond.beyond_the_limits()
        assert words in told


def test_on_a_gpu_times_are_told_beside_a_copy_and_have_no_limit(costs):
    assert costs.copies == []
    slow = dataclasses.replace(costs.times[0], forward_ms=1.0, backward_ms=4.0, ratio=20.0)
    on_gpu = dataclasses.replace(costs, copies=[Copy("8x8x8:2/2/0", 1.0)], times=[slow])
    assert on_gpu.beyond_the_limits() == []
    # A pass has to move 1.25 and 2.25 times the input, a copy moves it twice.
    assert "| 1.00 (62%) | 4.00 (28%) | 20.00 |" in page([on_gpu])
    on_cpu = dataclasses.replace(on_gpu, copies=[])
    assert len(on_cpu.beyond_the_limits()) == 1
    assert "| 1.00 | 4.00 | 20.00 |" in page([on_cpu])
