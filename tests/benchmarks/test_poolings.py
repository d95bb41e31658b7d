"""benchmarks/poolings.py on tiny shapes: every pooling is measured, no number is looked at."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest

from benchmarks import poolings
from benchmarks.pooling_costs import Copy, Time, page, read_costs, write_costs
from gfgp_cupy import use_backend
from tests.support.cxx import needs_cxx

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
    assert {each.rounds for each in costs.times} == {2}
    assert all(each.forward_ms > 0 and each.peak_bytes > 0 for each in costs.times)
    kernels = {name for name, each in poolings.functions().items() if each.cuda is not None}
    assert {(each.dtype, each.pooling) for each in costs.traffic} == {
        (dtype, name) for dtype in poolings.DTYPES for name in kernels
    }
    assert all(0.99 < each.forward < 2 and 0.99 < each.backward < 2 for each in costs.traffic)
    assert poolings.main(["--read", str(out), "--table", str(table)]) == 0
    assert table.read_text("utf-8").strip() == page([costs]).strip() == printed.out.strip()


@pytest.fixture
def few_poolings(monkeypatch):
    """What holds of any number of them takes less time of few."""
    make_few(monkeypatch)


def make_few(monkeypatch):
    few = {name: poolings.functions()[name] for name in ("max_ent", "ada")}
    monkeypatch.setattr(poolings, "functions", lambda: few)


# Of the same kernels as TINY's in the same memory format, which are compiled once.
TWO_SHAPES = ("--shapes", "8x8x8:2/2/0", "8x4x4:2/2/0", "--batch-size", "1")


@needs_cxx
@pytest.mark.usefixtures("few_poolings")
def test_costs_are_on_disk_after_each_shape(tmp_path, monkeypatch):
    out, seen = tmp_path / "new" / "costs.json", []

    def noting(work):
        def noted(shape, *rest):
            costs = read_costs(out) if out.exists() else None
            seen.append(costs and (len(costs.times), {each.shape for each in costs.traffic}))
            return work(shape, *rest)

        return noted

    monkeypatch.setattr(poolings, "measure", noting(poolings.measure))
    monkeypatch.setattr(poolings, "traffic", noting(poolings.traffic))
    with use_backend("torch"):
        options = ("--rounds", "1", "--traffic", "--layout", "channels_last")
        poolings.main([*TWO_SHAPES, *options, "--out", str(out)])
    each = len([*poolings.functions(), *poolings.FIXED])
    assert seen == [None, (each, set()), (2 * each, set()), (2 * each, {"8x8x8:2/2/0"})]
    assert {one.shape for one in read_costs(out).traffic} == {"8x8x8:2/2/0", "8x4x4:2/2/0"}
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.usefixtures("few_poolings")
def test_what_was_measured_is_kept_when_the_rest_is_interrupted(tmp_path, monkeypatch):
    measure, left = poolings.measure, ["first"]

    def interrupted(*arguments):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return measure(*arguments)

    monkeypatch.setattr(poolings, "measure", interrupted)
    with use_backend("torch"), pytest.raises(KeyboardInterrupt):
        poolings.main([*TWO_SHAPES, "--rounds", "1", "--out", str(tmp_path / "costs.json")])
    costs = read_costs(tmp_path / "costs.json")
    assert {each.shape for each in costs.times} == {"8x8x8:2/2/0"}
    assert "| 8x8x8:2/2/0 | max_ent |" in page([costs])


@pytest.mark.usefixtures("few_poolings")
def test_a_pooling_that_fails_takes_no_other_times_away(tmp_path, monkeypatch, capsys):
    pool_windows, ada = poolings.pool_windows, poolings.functions()["ada"]

    def failing(function, *arguments):
        if function is ada:
            raise RuntimeError("out of resources")
        return pool_windows(function, *arguments)

    monkeypatch.setattr(poolings, "pool_windows", failing)
    with use_backend("torch"):
        code = poolings.main([*TWO_SHAPES, "--rounds", "1", "--out", str(tmp_path / "costs.json")])
    assert code == 1
    measured = {(each.shape, each.pooling) for each in read_costs(tmp_path / "costs.json").times}
    both = ("8x8x8:2/2/0", "8x4x4:2/2/0")
    assert measured == {(shape, name) for shape in both for name in ("max_ent", "soft")}
    told = capsys.readouterr().err
    for shape in both:
        assert f"{shape}, ada: failed" in told
        assert f"{shape}, edscw: failed" in told


def test_a_file_is_replaced_by_a_whole_one(costs, tmp_path):
    path = tmp_path / "costs.json"
    write_costs(costs, path)
    with path.open() as earlier:
        write_costs(dataclasses.replace(costs, times=[]), path)
        assert [Time(**each) for each in json.load(earlier)["times"]] == costs.times


def test_each_shape_has_its_share_of_the_time_that_those_before_have_left(monkeypatch):
    clock, deadlines, takes = [100.0], [], [1.0, 15.0, 0.0]

    def measure(shape, options, cache, deadline):
        deadlines.append(deadline)
        clock[0] += takes[len(deadlines) - 1]
        return [], []

    monkeypatch.setattr(poolings, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(poolings, "measure", measure)
    poolings.run(poolings.make_parser().parse_args(["--seconds", "13"]))
    assert deadlines == [100 + 13 / 3, 101 + 12 / 2, 116 - 3]
    deadlines.clear()
    poolings.run(poolings.make_parser().parse_args([]))
    assert deadlines == [math.inf] * 3


@pytest.mark.usefixtures("few_poolings")
def test_time_that_is_up_ends_the_rounds_and_leaves_a_few_of_each_shape(tmp_path, capsys):
    out = tmp_path / "costs.json"
    with use_backend("torch"):
        poolings.main([*TWO_SHAPES, "--rounds", "9", "--seconds", "1e-9", "--out", str(out)])
    assert {(each.shape, each.rounds) for each in read_costs(out).times} == {
        (shape, poolings.MIN_ROUNDS) for shape in ("8x8x8:2/2/0", "8x4x4:2/2/0")
    }
    assert "medians of 3 interleaved rounds" in capsys.readouterr().out


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    out = tmp_path_factory.mktemp("poolings") / "costs.json"
    with use_backend("torch"), pytest.MonkeyPatch.context() as patch:
        make_few(patch)
        poolings.main([*TINY, "--out", str(out)])
    return read_costs(out)


def test_rounds_that_differ_are_told_and_are_all_of_them_in_older_files(costs, tmp_path):
    few = dataclasses.replace(costs.times[1], rounds=1)
    text = page([dataclasses.replace(costs, times=[costs.times[0], few])])
    assert "medians of 1 to 2 interleaved rounds" in text
    content = dataclasses.asdict(costs)
    for each in content["times"]:
        del each["rounds"]
    (tmp_path / "older.json").write_text(json.dumps(content))
    assert read_costs(tmp_path / "older.json") == costs


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
