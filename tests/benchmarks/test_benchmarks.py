"""The benchmarks run to their end and report what they measured; no test looks at a time."""

import gc
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread

from benchmarks import input_pipeline, measurement, networks, operators, summary
from benchmarks.contenders import composition, make_contenders
from benchmarks.measurement import MIN_REPEATS
from benchmarks.memory import Allocations, allocations_of
from benchmarks.results import read_results, write_results
from benchmarks.rounds import Inputs, Turns, backward, time_round
from benchmarks.shapes import NETWORKS, Shape, select_shapes
from benchmarks.timing import Cache, timer_of
from gfgp_cupy.functional import max_ent_pool2d
from tests.support.paths import REPOSITORY

CPU = torch.device("cpu")
TILING, OVERLAPPING = "4x8x6:2/2/0", "6x9x9:3/2/1"
CONTENDERS = {
    "max_ent_pool2d", "GFGP fused", "GFGP composed", "eager composition", "compiled composition",
    "max_pool2d", "avg_pool2d", "copy",
}  # fmt: skip


@pytest.fixture(scope="module")
def results_file(tmp_path_factory):
    """Of the script, called from elsewhere, where ``torch.compile`` finds no C++ compiler.

    It times 16 contenders, so the tests that look at it are slow ones.
    """
    folder = tmp_path_factory.mktemp("benchmark")
    path = folder / "pooling.json"
    options = (
        *("--device", "cpu", "--dtype", "float64", "--layout", "channels_last"),
        *("--shapes", TILING, OVERLAPPING, "--batch-size", "2", "--seconds", "0.1"),
    )
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "operators.py", *options, "--out", path],
        cwd=folder,
        env={
            **os.environ,
            "CXX": str(folder / "no-compiler"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path


# ---------------------------------------------------------------- operators.py


@pytest.mark.slow
def test_every_contender_is_measured_or_explained(results_file):
    results = read_results(results_file)
    measured = {(one.shape, one.contender, one.direction) for one in results.times}
    explained = {(one.shape, one.contender): one.reason for one in results.unavailable}
    assert set(explained) == {(shape, "compiled composition") for shape in (TILING, OVERLAPPING)}
    assert "compiler" in explained[TILING, "compiled composition"].lower()
    assert not any(one.failed for one in results.unavailable)
    assert measured == {
        (shape, name, direction)
        for shape in (TILING, OVERLAPPING)
        for name in CONTENDERS - {"compiled composition"}
        for direction in ("forward", "backward", "both")
        if name != "copy" or direction == "forward"
    }
    assert {(one.shape, one.contender) for one in results.memory} == {
        (shape, name) for shape, name, direction in measured if direction == "both"
    }
    assert {(one.shape, one.contender) for one in results.first_calls} == {
        (shape, name) for shape, name, _ in measured
    }


@pytest.fixture
def failing(monkeypatch):
    """Leaves a few contenders, and makes that of the given name fail at each shape."""

    def fail(name):
        def raises(input):
            raise RuntimeError("out of\nresources")

        def few(shape, **options):
            return [
                replace(one, forward=raises) if one.name == name else one
                for one in make_contenders(shape, **options)
                if one.name in ("copy", "max_pool2d", "avg_pool2d")
            ]

        monkeypatch.setattr(measurement, "make_contenders", few)

    return fail


TINY = ("--device", "cpu", "--shapes", TILING, OVERLAPPING, "--batch-size", "2", "--repeats", "1")


def test_a_contender_that_fails_takes_no_other_times_away(failing, tmp_path, capsys):
    failing("avg_pool2d")
    assert operators.main([*TINY, "--out", str(tmp_path / "out.json")]) == 1
    results = read_results(tmp_path / "out.json")
    both = {TILING, OVERLAPPING}
    assert {(one.shape, one.contender) for one in results.times} == {
        (shape, name) for shape in both for name in ("copy", "max_pool2d")
    }
    assert {one.shape for one in results.unavailable} == both
    assert {(one.contender, one.reason, one.failed) for one in results.unavailable} == {
        ("avg_pool2d", "RuntimeError: out of resources", True)
    }
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert f"failed: avg_pool2d at {OVERLAPPING}, avg_pool2d at {TILING}" in told


def test_what_was_found_is_kept_where_what_all_are_compared_with_fails(failing, tmp_path):
    failing("copy")
    with pytest.raises(RuntimeError, match="resources"):
        operators.main([*TINY, "--out", str(tmp_path / "out.json")])
    assert read_results(tmp_path / "out.json").settings.shapes == [TILING, OVERLAPPING]


@pytest.mark.slow
def test_time_that_is_up_leaves_enough_repeats(results_file):
    for one in read_results(results_file).times:
        assert one.seconds.repeats >= MIN_REPEATS
        spread = one.seconds
        assert 0 < spread.min <= spread.q1 <= spread.median <= spread.q3 <= spread.max


@pytest.mark.slow
def test_settings_and_environment(results_file):
    results = read_results(results_file)
    assert (results.settings.dtype, results.settings.layout) == ("float64", "channels_last")
    assert (results.settings.device, results.settings.batch_size) == ("cpu", 2)
    assert results.settings.shapes == [TILING, OVERLAPPING]
    assert results.settings.rotated_bytes >= 4 * results.settings.cache_bytes > 0
    environment = results.environment
    assert environment.torch == torch.__version__
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.device
    assert environment.driver is None
    assert environment.backend in ("numba", "torch")
    # The command can be repeated, and holds no folder of this machine.
    assert environment.command.startswith("python benchmarks/operators.py --device cpu ")
    assert f"--shapes {TILING} {OVERLAPPING}" in environment.command
    assert str(results_file.parent) not in repr((environment, results.settings))


@pytest.mark.slow
def test_bytes_are_those_of_the_least_traffic(results_file):
    """The least traffic, with X and O in float64 and max pooling's indices in int64."""
    x, o = 2 * 4 * 8 * 6 * 8, 2 * 4 * 4 * 3 * 8
    least = {
        "max_ent_pool2d": (x + o, 2 * x + o),
        "GFGP fused": (2 * x + 2 * o, 2 * x + 3 * o),
        "GFGP composed": (2 * x + o, 6 * x + o),
        "eager composition": (x + o, 2 * x + o),
        "max_pool2d": (x + 2 * o, x + 2 * o),
        "avg_pool2d": (x + o, x + o),
        "copy": (2 * x, 0),
    }
    results = read_results(results_file)
    (copy,) = (one for one in results.times if (one.shape, one.contender) == (TILING, "copy"))
    for one in results.times:
        if one.shape == TILING:
            forward, both = least[one.contender][0], sum(least[one.contender])
            expected = {"forward": forward, "backward": both - forward, "both": both}
            assert one.floor_bytes == expected[one.direction], one
            rate = one.floor_bytes / one.seconds.median
            assert one.bytes_per_second == pytest.approx(rate)
            assert one.fraction_of_copy == pytest.approx(rate / copy.bytes_per_second)


@pytest.mark.slow
def test_memory_that_is_known(results_file):
    use = {one.contender: one for one in read_results(results_file).memory if one.shape == TILING}
    x, o = 2 * 4 * 8 * 6 * 8, 2 * 4 * 4 * 3 * 8
    assert {(one.input_bytes, one.output_bytes) for one in use.values()} == {(x, o)}
    assert use["avg_pool2d"].saved_bytes == 0
    assert use["avg_pool2d"].peak_bytes == o + x
    assert use["max_pool2d"].saved_bytes == o  # indices of 8 bytes, as float64 has
    assert use["max_pool2d"].peak_bytes == o + o + x
    assert use["max_ent_pool2d"].saved_bytes <= 2 * o
    assert use["eager composition"].saved_bytes >= 2 * x


@pytest.mark.slow
def test_a_file_is_read_as_it_was_written(results_file, tmp_path):
    results = read_results(results_file)
    write_results(results, tmp_path / "again.json")
    assert read_results(tmp_path / "again.json") == results
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]
    content = {**json.loads(results_file.read_text()), "schema": 0}
    (tmp_path / "old.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"old\.json.*schema 0"):
        read_results(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shapes", "resnet51"), "resnet51"),
        (("--shapes", "4x8x8:3/1/2"), "padding"),
        (("--shapes", "4x1x1:2/2/0"), "no output"),
        (("--batch-size", "1"), "at least 2"),
        (("--seconds", "0"), "above 0"),
        (("--repeats", "1.5"), "whole number"),
        (("--dtype", "int8"), "int8"),
    ],
)
def test_refused_options(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        operators.main(options)
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- its parts


def test_shapes_are_those_of_the_networks():
    """Those of 224x224 images, under ``pool="max_ent"``."""
    assert {name: [str(shape) for shape in shapes] for name, shapes in NETWORKS.items()} == {
        "resnet50": [
            "64x224x224:2/2/0", "64x112x112:3/2/1", "512x56x56:2/2/0", "1024x28x28:2/2/0",
            "2048x14x14:2/2/0",
        ],
        "vgg16": [
            "64x224x224:2/2/0", "128x112x112:2/2/0", "256x56x56:2/2/0", "512x28x28:2/2/0",
            "512x14x14:2/2/0",
        ],
        "densenet169": [
            "64x224x224:2/2/0", "64x112x112:3/2/1", "128x56x56:2/2/0", "256x28x28:2/2/0",
            "640x14x14:2/2/0",
        ],
    }  # fmt: skip
    shapes = select_shapes([*NETWORKS, "64x112x112:3/2/1", "3x4x5:1/1/0"])
    assert len(shapes) == len(set(shapes)) == 13
    assert shapes[-1] == Shape(3, 4, 5, 1, 1, 0)


@pytest.mark.parametrize("text", [TILING, OVERLAPPING])
def test_contenders_compute_what_they_are_named_for(text):
    shape = Shape.parse(text)
    window = (shape.kernel_size, shape.stride, shape.padding)
    contenders = {one.name: one for one in make_contenders(shape, 2, torch.float64, CPU)}
    assert set(contenders) == CONTENDERS
    input = torch.randn(2, shape.channels, shape.height, shape.width, dtype=torch.float64)
    outputs = {
        name: one.forward(input)
        for name, one in contenders.items()
        if name != "compiled composition"
    }
    (lam,) = contenders["max_ent_pool2d"].parameters
    expected = max_ent_pool2d(input, lam, *window)
    torch.testing.assert_close(outputs["max_ent_pool2d"], expected)
    torch.testing.assert_close(outputs["eager composition"], expected)
    torch.testing.assert_close(composition(input, lam, *window), expected)
    torch.testing.assert_close(outputs["GFGP fused"], outputs["GFGP composed"])
    assert torch.equal(outputs["max_pool2d"], F.max_pool2d(input, *window))
    assert torch.equal(outputs["avg_pool2d"], F.avg_pool2d(input, *window))
    assert torch.equal(outputs["copy"], input)


def test_fused_and_composed_layers_share_their_gradients():
    shape = Shape.parse(TILING)
    contenders = {one.name: one for one in make_contenders(shape, 4, torch.float64, CPU)}
    input = torch.randn(4, 4, 8, 6, dtype=torch.float64, requires_grad=True)
    gradients = []
    for name in ("GFGP fused", "GFGP composed"):
        output = contenders[name].forward(input)
        gradients.append(backward(contenders[name], output, input, torch.ones_like(output)))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_turns_share_nothing_until_all_had_theirs(layout):
    memory = torch.arange(1000.0)
    turns = Turns(memory, (2, 3, 5, 4), layout)
    first, *others = tensors = [turns.next() for _ in range(8)]  # 120 elements in steps of 128
    format = getattr(torch, f"{layout}_format", getattr(torch, layout, None))
    assert all(one.shape == (2, 3, 5, 4) for one in tensors)
    assert all(one.is_contiguous(memory_format=format) for one in tensors)
    elements = [set(one.flatten().tolist()) for one in tensors]
    assert all(len(one) == 120 for one in elements)
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(elements[:7], 2))
    assert torch.equal(others[-1], first)


def test_a_round_times_every_pass_once():
    shape = Shape.parse(TILING)
    contenders = [
        one
        for one in make_contenders(shape, 2, torch.float32, CPU)
        if one.name != "compiled composition"
    ]
    inputs = Inputs.of(torch.randn(10_000), shape, 2, "contiguous")
    cache = Cache(CPU, 1024)
    times = time_round(contenders, inputs, timer_of(CPU), cache, random.Random(0))
    assert set(times) == CONTENDERS - {"compiled composition"}
    for name, (forward, backward_seconds) in times.items():
        assert forward > 0
        assert (backward_seconds is None) == (name == "copy")


def test_allocations():
    def call():
        kept = torch.ones(1000)
        released = torch.ones(3000)
        return kept * released.sum()  # 4 bytes and 4000 bytes more

    before = torch.ones(500)
    first = allocations_of(call, CPU)
    del before
    assert first == allocations_of(call, CPU)
    assert first.kept == 4000
    assert 4000 + 12000 + 4000 <= first.peak <= 4000 + 12000 + 4000 + 1000
    assert allocations_of(lambda: None, CPU) == Allocations(0, 0)


@pytest.mark.gpu
def test_garbage_that_a_call_collects_is_not_counted_off():
    cycle = [torch.empty(1000, device="cuda")]
    cycle.append(cycle)
    gc.collect()  # what it keeps, it does not soon look at again
    del cycle
    assert allocations_of(gc.collect, torch.device("cuda")) == Allocations(0, 0)


# ---------------------------------------------------------------- networks.py, summary.py


@pytest.fixture(scope="module")
def networks_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "networks.json"
    networks.main(
        [
            *("--device", "cpu", "--arch", "resnet18", "--image-size", "32", "--batch-size", "2"),
            *("--pools", "skip", "max_ent", "--amp", "bfloat16", "--layout", "channels_last"),
            *("--repeats", "2", "--out", str(path)),
        ]
    )
    return path


def test_networks(networks_file):
    results = read_results(networks_file)
    assert [(one.arch, one.pool, one.task) for one in results.times] == [
        ("resnet18", pool, task)
        for pool in ("skip", "max_ent")
        for task in ("training", "inference")
    ]
    for one in results.times:
        assert one.seconds.repeats == 2
        assert one.images_per_second == pytest.approx(2 / one.seconds.median)
    assert results.settings.amp == "bfloat16"


def test_networks_are_on_disk_after_each_round(tmp_path, monkeypatch):
    path, written = tmp_path / "networks.json", []
    timer_of = networks.timer_of

    def noting(device):
        timer = timer_of(device)

        def timed(call):
            written.append(read_results(path).times[0].seconds.repeats if path.exists() else 0)
            return timer(call)

        return timed

    monkeypatch.setattr(networks, "timer_of", noting)
    networks.main(
        [
            *("--device", "cpu", "--arch", "resnet18", "--image-size", "32", "--batch-size", "2"),
            *("--pools", "skip", "--repeats", "3", "--out", str(path)),
        ]
    )
    assert written == [0, 0, 1, 1, 2, 2]  # before each of the two tasks of a round
    assert [one.name for one in tmp_path.iterdir()] == ["networks.json"]


def test_a_pooling_that_fails_takes_no_other_times_away(tmp_path, monkeypatch, capsys):
    path, make = tmp_path / "networks.json", networks.make_network

    def failing(options, pool):
        if pool == "max_ent":
            raise RuntimeError("out of resources")
        return make(options, pool)

    monkeypatch.setattr(networks, "make_network", failing)
    tiny = ("--device", "cpu", "--arch", "resnet18", "--image-size", "32", "--batch-size", "2")
    once = (*tiny, "--repeats", "1", "--out", str(path))
    assert networks.main([*once, "--pools", "max_ent"]) == 1
    assert not path.exists()
    assert networks.main([*once, "--pools", "max_ent", "skip"]) == 1
    assert {one.pool for one in read_results(path).times} == {"skip"}
    assert "failed: max_ent\n" in capsys.readouterr().err


def test_results_go_to_a_folder_that_is_missing(networks_file, tmp_path):
    path = tmp_path / "new" / "folder" / "networks.json"
    write_results(read_results(networks_file), path)
    assert path.read_bytes() == networks_file.read_bytes()


def test_a_training_step_trains():
    options = networks.make_parser().parse_args(
        [
            *("--device", "cpu", "--arch", "resnet18", "--image-size", "32", "--batch-size", "2"),
        ]
    )
    network = networks.make_network(options, "max_ent")
    before = [parameter.clone() for parameter in network.model.parameters()]
    network.inference()
    assert all(map(torch.equal, before, network.model.parameters()))
    network.training()
    assert not any(map(torch.equal, before, network.model.parameters()))


def test_the_report_of_no_results_says_so(tmp_path):
    assert summary.main(["--table", str(tmp_path / "report.md")]) == 0
    assert (tmp_path / "report.md").read_text() == "There are no results.\n"


@pytest.mark.slow
def test_report(results_file, networks_file, tmp_path):
    table, plot = tmp_path / "table.md", tmp_path / "plot.png"
    summary.main(
        [str(results_file), str(networks_file), "--table", str(table), "--plot", str(plot)]
    )
    text = table.read_text()
    assert results_file.name in text
    assert networks_file.name in text
    results = read_results(results_file)
    for one in results.times:
        (row,) = re.findall(rf"^\| {one.shape} \| {one.direction} \|.*$", text, re.MULTILINE)
        assert f"{1000 * one.seconds.median:.3g} (" in row
    (unmeasured,) = re.findall(r"^Not measured: compiled composition .*$", text, re.MULTILINE)
    assert TILING in unmeasured
    assert OVERLAPPING in unmeasured
    for one in read_results(networks_file).times:
        assert f"| {one.pool} | {one.task} | {one.images_per_second:.4g} |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    pixels = imread(plot)
    assert pixels.shape[1] >= 1000
    assert pixels.std() > 0.05


def test_report_without_files_prints_the_table(networks_file, capsys):
    summary.main([str(networks_file)])
    assert "| max_ent | training |" in capsys.readouterr().out


@pytest.mark.slow
def test_table_does_not_need_matplotlib(networks_file, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from benchmarks import summary; "
        "summary.main(sys.argv[1:])"
    )
    table = tmp_path / "table.md"
    command = (sys.executable, "-c", code, str(networks_file), "--table", str(table))
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300)
    assert "| max_ent | training |" in table.read_text()


def test_input_pipelines_are_on_disk_after_each_round(tmp_path, monkeypatch):
    path, written = tmp_path / "input.json", []
    shuffled = random.Random.sample

    def noting(*arguments):
        written.append(read_results(path).times[0].seconds.repeats if path.exists() else 0)
        return shuffled(*arguments)

    monkeypatch.setattr(random.Random, "sample", noting)
    options = ("--images", "3", "--size", "60", "40", "--repeats", "3")
    input_pipeline.main([*options, "--out", str(path)])
    assert written == [0, 1, 2]


def test_input_pipeline_benchmark(tmp_path):
    path, table, plot = (tmp_path / name for name in ("input.json", "table.md", "plot.png"))
    threads = torch.get_num_threads()
    options = ("--images", "3", "--size", "60", "40", "--repeats", "2", "--seconds", "1")
    assert input_pipeline.main([*options, "--out", str(path)]) == 0
    assert torch.get_num_threads() == threads
    results = read_results(path)
    assert results.settings.size == [60, 40]
    assert results.settings.bytes_per_image > 0
    pipelines = [one.pipeline for one in results.times]
    assert pipelines == [
        *(input_pipeline.PLAIN, input_pipeline.TIMM),
        *(input_pipeline.WORKER, input_pipeline.FAST_WORKER, input_pipeline.ON_CPU),
    ]
    for one in results.times:
        assert one.seconds.repeats == one.speedup.repeats == 2
        assert math.isclose(one.images_per_second, 3 / one.seconds.median)
    assert results.times[0].speedup.min == results.times[0].speedup.max == 1
    assert summary.main([str(path), "--table", str(table), "--plot", str(plot)]) == 0
    assert "3 JPEG files of 60×40" in table.read_text()
    assert all(f"| {name} |" in table.read_text() for name in pipelines)
    assert imread(plot).std() > 0
