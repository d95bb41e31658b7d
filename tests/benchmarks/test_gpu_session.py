"""The session on a GPU: what it runs, that it fits into its time, and that no test is forgotten."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    gpu_session,
    networks,
    operators,
    poolings,
    profile_target,
    sanitizer_target,
    second_session,
    summary,
)
from benchmarks.environment import Environment
from benchmarks.pooling_costs import read_costs
from benchmarks.results import (
    PassTime,
    PoolingResults,
    PoolingSettings,
    Spread,
    read_results,
    write_results,
)
from benchmarks.stages import Phase
from tests.support import gpu_memory
from tests.support.gpu_memory import GIB, claim_gpu_memory
from training.records.environment import REPOSITORY

FIRST_SECONDS, SECOND_SECONDS = 495, 315
LEAST_FIRST_SECONDS = 450
"""385 have been needed."""

START_SECONDS = 10
"""For the scripts' own start and for writing what there is to write."""

MOST_FILES = 8

PARSERS = {
    "benchmarks/operators.py": operators.make_parser,
    "benchmarks/poolings.py": poolings.make_parser,
    "benchmarks/networks.py": networks.make_parser,
    "benchmarks/summary.py": summary.make_parser,
    "benchmarks/sanitizer_target.py": sanitizer_target.make_parser,
    "benchmarks/profile_target.py": profile_target.make_parser,
}


@pytest.fixture
def first(tmp_path):
    """The phases of a first session, all benchmarks of which have written their results."""
    phases = []
    for phase in gpu_session.first_phases(tmp_path / "out", tmp_path / "scratch"):
        phases.append(phase)
        (tmp_path / "out").mkdir(exist_ok=True)
        for name in (*gpu_session.POOLING_RUNS, "networks"):
            (tmp_path / "out" / f"{name}.json").touch()
    return phases


def second(tmp_path):
    """The phases of a second session."""
    write_results(
        results({("64x8x8:2/2/0", "max_ent_pool2d", "forward"): 0.5}),
        tmp_path / "pooling-float32-contiguous.json",
    )
    return second_session.second_phases(tmp_path / "out", tmp_path / "scratch", tmp_path)


def stages_of(phases):
    return [stage for phase in phases for track in phase.tracks for stage in track]


def words(stage):
    return list(map(str, stage.command))


# ---------------------------------------------------------------- time and files


def test_sessions_end_in_time_whatever_their_stages_do(first, tmp_path):
    longest = [
        sum(phase.longest for phase in phases) + START_SECONDS
        for phases in (first, second(tmp_path))
    ]
    assert LEAST_FIRST_SECONDS <= longest[0] <= FIRST_SECONDS
    assert longest[1] <= SECOND_SECONDS


def test_the_documents_tell_the_limits():
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    for seconds in (FIRST_SECONDS, SECOND_SECONDS):
        assert f"in less than {seconds} seconds" in gpu_session.__doc__
        assert f"in less than {seconds} s\n" in readme
    assert f"less than {FIRST_SECONDS} and {SECOND_SECONDS} seconds" in readme


def test_the_profile_does_not_depend_on_what_the_poolings_take(tmp_path):
    names = [stage.name for stage in stages_of(second(tmp_path))]
    assert names.index("ncu") < min(map(names.index, second_session.RUNS))


def test_what_is_timed_ends_by_itself(first, tmp_path):
    """Before the stage's limit, at which what is not whole would be lost."""
    timed = {*gpu_session.POOLING_RUNS, "networks", *second_session.RUNS}
    for stage in stages_of([*first, *second(tmp_path)]):
        if stage.name in timed:
            command = words(stage)
            assert float(command[command.index("--seconds") + 1]) + START_SECONDS <= stage.seconds
            timed.remove(stage.name)
    assert not timed


def test_only_initcheck_depends_on_what_time_is_left(first, tmp_path):
    for phase in (*first, *second(tmp_path)):
        for track in phase.tracks:
            assert (
                sum(stage.seconds for stage in track if stage.name != "initcheck") <= phase.seconds
            ), [stage.name for stage in track]


def test_sessions_leave_at_most_eight_files(first, tmp_path):
    out = str(tmp_path / "out")
    for phases in (first, second(tmp_path)):
        written = {
            word for stage in stages_of(phases) for word in words(stage) if word.startswith(out)
        }
        assert len(written) + len(["session.log"]) <= MOST_FILES


def test_commands_are_understood(first, tmp_path):
    understood = set()
    for stage in stages_of([*first, *second(tmp_path)]):
        command = words(stage)
        for script, make_parser in PARSERS.items():
            if script in command:
                make_parser().parse_args(command[command.index(script) + 1 :])
                understood.add(script)
    assert understood == PARSERS.keys()


def test_the_report_is_of_the_results_that_are_there(tmp_path):
    made = tmp_path / "pooling-bfloat16-contiguous.json"
    made.touch()
    command = words(gpu_session.report(tmp_path))
    assert [word for word in command if word.endswith(".json")] == [str(made)]


def test_the_script_starts_from_anywhere(tmp_path):
    done = run([sys.executable, REPOSITORY / "benchmarks" / "gpu_session.py", "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--after" in done.stdout


# ---------------------------------------------------------------- the tests that need a GPU


def test_the_marker_is_the_only_way_to_need_a_gpu():
    """A test that skips itself in another way would not be among those that the session runs."""
    # These ask, and run without one as well.
    either_way = {
        "gfgp_cupy/backends/test_cupy.py", "gfgp_cupy/backends/test_selection.py",
        "gfgp_cupy/test_record.py", "test_train_imagenet.py",
    }  # fmt: skip
    asking = set()
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and "skip" in ast.unparse(call.func):
                assert "cuda" not in ast.unparse(call), f"{path.name}: {ast.unparse(call)}"
        asks = {"is_available", "device_count"} & {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch.cuda"
        }
        if asks:
            asking.add(str(path.relative_to(REPOSITORY / "tests")))
    assert asking <= either_way


def test_stages_of_tests_leave_none_out(first, tmp_path):
    """Together they run all files, and each mark of those with the mark."""
    stages = stages_of([*first, *second(tmp_path)])
    chosen = [words(stage) for stage in stages if "pytest" in stage.command]
    assert [command[command.index("-m", 2) + 1 :][0] for command in chosen] == [
        "gpu and not whole_gpu",
        "gpu and not whole_gpu",
        "whole_gpu",
        "gpu and not whole_gpu",
    ]
    operator, rest, alone, later = ([word for word in words if "tests" in word] for words in chosen)
    assert rest == [*(f"--ignore={file}" for file in (*operator, *later)), "tests"]
    marked = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if "@pytest.mark.whole_gpu" in path.read_text() and path.name != Path(__file__).name
    }
    assert marked == set(alone)


@pytest.mark.slow
def test_tests_are_found_where_little_is_installed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_MOST)
    _, rest = gpu_session.tests()
    done = run(
        [*rest.command, "--collect-only", "-qq"], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout[-2000:]
    found = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found >= {
        f"tests/{name}.py" for name in
        ("gfgp_cupy/backends/test_selection", "gfgp_cupy/test_functional",
         "gfgp_cupy/test_guided_pooling", "gfgp_cupy/test_layers",
         "gfgp_cupy/test_operator_transforms", "gfgp_cupy/test_record",
         "gfgp_cupy/surgery/test_replace", "training/records/test_usage")
    }  # fmt: skip
    # Also a test that needs a GPU, and images; the log tells that it was left out, and why.
    assert (
        "SKIPPED [1] tests/training/test_kernel_compilation.py: ModuleNotFoundError: import of PIL"
        in done.stdout
    )


def run(command, cwd=REPOSITORY, **options):
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600, **options
    )


WITHOUT_MOST = """
import sys
for name in ("numba", "torchvision", "PIL", "matplotlib", "sklearn", "timm", "tqdm", "scipy",
             "onnx", "onnxruntime", "onnxscript", "tensorboard", "webdataset"):
    sys.modules[name] = None  # to import it is now an ImportError
"""


def run_files(folder, *options, **texts):
    """Runs files of tests with this folder's conftest; returns pytest's exit code and output."""
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    done = run([
        sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-rA",
        "--rootdir", folder, "-c", os.devnull, *options,
    ], cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_missing_package_skips_a_file_and_a_missing_module_of_ours_is_an_error(tmp_path):
    _, printed = run_files(
        tmp_path, "--skip-not-installed", "--continue-on-collection-errors",
        test_other="import no_such_package", test_own="import gfgp_cupy.no_such_module",
        test_third="def test_passes(): pass",
    )  # fmt: skip
    assert "SKIPPED [1] test_other.py: ModuleNotFoundError: No module named 'no_such" in printed
    assert "ERROR test_own.py" in printed
    assert "PASSED test_third.py::test_passes" in printed


@pytest.mark.slow
def test_a_process_whose_gpu_context_is_lost_is_replaced_and_its_failure_is_shown(tmp_path):
    _, printed = run_files(
        tmp_path,
        "-n1",
        "-v",
        "--failures-at-once",
        test_lost="""
import pytest, torch

pytestmark = pytest.mark.gpu(0)  # needs none: this is about what comes after

def synchronize():
    raise RuntimeError("an illegal memory access was encountered")

def test_breaks():
    torch.cuda.synchronize = synchronize
    assert False, "wrong numbers"

def test_after():
    assert torch.cuda.synchronize.__module__ == "torch.cuda"
""",
    )
    assert "PASSED test_lost.py::test_after" in printed
    assert printed.index("AssertionError: wrong numbers") < printed.index("::test_after")


# ---------------------------------------------------------------- memory


@pytest.fixture
def gpu_with(monkeypatch):
    """Makes PyTorch report a GPU's free and total memory; returns what was asked of it."""

    def set_up(free, total):
        asked = []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty_cache"))

        def mem_get_info():
            asked.append("mem_get_info")
            return free, total

        monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
        for name in ("memory_reserved", "memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, lambda: 21 * GIB)
        monkeypatch.setattr(torch.cuda, "list_gpu_processes", lambda: "process 4711")
        return asked

    return set_up


def test_memory_is_asked_for_when_the_cache_is_empty(gpu_with):
    asked = gpu_with(60 * GIB, 79 * GIB)
    claim_gpu_memory(60 * GIB)
    assert asked == ["empty_cache", "mem_get_info"]


def test_a_large_gpu_that_is_full_fails_the_test_and_a_small_one_skips_it(gpu_with):
    outcomes = pytest.fail.Exception, pytest.skip.Exception
    gpu_with(59 * GIB, 79 * GIB)
    message = r"60\.0 GiB.*59\.0 GiB of 79\.0 GiB.*PyTorch holds 21\.0 GiB.*process 4711"
    with pytest.raises(outcomes, match=message) as full:
        claim_gpu_memory(60 * GIB)
    gpu_with(39 * GIB, 40 * GIB)
    with pytest.raises(outcomes, match=r"39\.0 GiB of 40\.0 GiB") as small:
        claim_gpu_memory(60 * GIB)
    assert (full.type, small.type) == outcomes
    assert gpu_memory.LARGE_GPU <= 79 * GIB  # an H100's 80 GB


# ---------------------------------------------------------------- the second session


def results(fractions, **settings):
    """Those of operators.py, whose passes reach the given fractions of a copy's speed."""
    spread = Spread(1.0, 1.0, 1.0, 1.0, 1.0, 3)
    return PoolingResults(
        environment=Environment(
            "GPU", None, None, "2.11", None, None, "3.12", "Linux", "cupy", 1, None, None, "", ""
        ),
        settings=PoolingSettings(
            **{
                "device": "cuda", "dtype": "float32", "layout": "contiguous", "batch_size": 64,
                "shapes": [], "repeats": 3, "seconds": 1.0, "cache_bytes": 1, "rotated_bytes": 4,
                **settings,
            }
        ),
        times=[PassTime(*each, spread, 1, 1.0, fraction) for each, fraction in fractions.items()],
        memory=[], first_calls=[], launches=[], unavailable=[],
    )  # fmt: skip


def test_the_slowest_pass_is_profiled(tmp_path):
    one, other = tmp_path / "pooling-float32-contiguous.json", tmp_path / "pooling-other.json"
    write_results(results({
        ("64x8x8:2/2/0", "max_ent_pool2d", "forward"): 0.5,
        ("64x8x8:2/2/0", "eager composition", "backward"): 0.1,
    }), one)  # fmt: skip
    write_results(results({
        ("64x9x9:3/2/1", "max_ent_pool2d", "backward"): 0.4,
        ("64x9x9:3/2/1", "max_ent_pool2d", "both"): 0.3,
    }, dtype="bfloat16", layout="channels_last"), other)  # fmt: skip
    command, options = profiled(tmp_path)
    assert (str(options.shape), options.direction) == ("64x9x9:3/2/1", "backward")
    assert (options.dtype, options.layout, options.batch_size) == ("bfloat16", "channels_last", 64)
    assert Path(command[0]).name == "ncu"


def profiled(first):
    """What the second session profiles after the results in ``first``: the command, and the
    options of profile_target.py."""
    phases = second_session.second_phases(first / "out", first / "scratch", first)
    (stage,) = (stage for stage in stages_of(phases) if stage.name == "ncu")
    command = words(stage)
    target = command[command.index("benchmarks/profile_target.py") + 1 :]
    return command, profile_target.make_parser().parse_args(target)


@pytest.mark.parametrize("files", [
    {},
    {"pooling-float32-contiguous.json": "cut o"},
    {"pooling-float32-contiguous.json": '{"schema": 0}'},
    {"pooling-float32-contiguous.json": '{"schema": 1, "benchmark": "pooling"}'},
    {"pooling-float32-contiguous.json": "null"},
    {"pooling-float32-contiguous.json": None},
], ids=["none", "cut off", "older", "not whole", "nothing", "no pass"])  # fmt: skip
def test_without_results_a_fixed_pass_is_profiled_and_all_else_is_run(tmp_path, capsys, files):
    for name, text in files.items():
        if text is None:
            write_results(results({("64x8x8:2/2/0", "copy", "forward"): 1.0}), tmp_path / name)
        else:
            (tmp_path / name).write_text(text)
    _, options = profiled(tmp_path)
    printed = capsys.readouterr().out
    assert f"--after {tmp_path}: holds no times of max_ent_pool2d" in printed
    assert str(options.shape) in printed
    names = {stage.name for stage in stages_of(second(tmp_path))}
    phases = second_session.second_phases(tmp_path / "out", tmp_path / "scratch", tmp_path / "no")
    assert {stage.name for stage in stages_of(phases)} == names


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_used(tmp_path, capsys):
    write_results(
        results({("64x9x9:3/2/1", "max_ent_pool2d", "forward"): 0.4}),
        tmp_path / "pooling-float32-contiguous.json",
    )
    (tmp_path / "pooling-bfloat16-contiguous.json").write_text("cut o")
    _, options = profiled(tmp_path)
    assert str(options.shape) == "64x9x9:3/2/1"
    assert "pooling-bfloat16-contiguous.json is left out: " in capsys.readouterr().out


# ---------------------------------------------------------------- both sessions on a stand-in GPU

CASES = "float32, layout=torch.contiguous_format, sizes=(2, 16, 16, 16), lam_in_plane=True"
"""Two, of Max-Ent pooling."""
SHAPE = ("--shapes", "2x8x8:2/2/0", "--batch-size", "2")
NETWORK = ("--arch", "resnet18", "--pools", "max_ent", "--image-size", "32", "--batch-size", "2")
SHORTER = {
    "first tests": ("-n1", "-k", "test_empty_batch and cupy-cuda and 3x8x12 and float32"),
    "other tests": ("-n0", "-k", "test_on_a_gpu", "tests/gfgp_cupy/test_layers.py"),
    "tests alone": ("-n0", "-k", "more_than_2_31 and 1x1"),
    "compile for the sanitizer": ("--processes", "2", "--only", CASES),
    "memcheck": ("--only", CASES),
    "racecheck": (),
    "initcheck": (),
    "pooling-bfloat16-channels_last": (*SHAPE, "--repeats", "2"),
    "networks": (*NETWORK, "--repeats", "2"),
    "report": (),
    "tests of window functions": ("-n0", "-k", "any_function_pools_whole_planes and max_ent"),
    "poolings-bfloat16-channels_last": (*SHAPE, "--rounds", "2"),
    "ncu": (),
}
"""What each stage's command gets beside its own arguments. Runs that differ from another stage's in
``--repeats`` alone are left out."""

TOOL = """#!/bin/sh
# In the place of NVIDIA's {name}: refuses what that would refuse, then runs the command, of the
# sanitizer's the first.
run=yes
while true; do
    case "$1 $2" in
        *racecheck|*initcheck) run=no; shift 2 ;;
        {options}) shift 2 ;;
        *) break ;;
    esac
done
case "$1" in -*) echo "$1: unknown option"; exit 255 ;; esac
echo "========= {name}"
[ $run = no ] || exec "$@"
"""
TOOLS = {
    "compute-sanitizer": (
        "--error-exitcode 1", "--tool memcheck", "--kernel-name kns=_pool",
        "--report-api-errors no",
    ),
    "ncu": ("--set full", "--clock-control none", "--profile-from-start off"),
}  # fmt: skip


def shorter(stage):
    command = [word for word in words(stage) if word != "tests"]
    return replace(stage, command=(*command, *SHORTER[stage.name]), seconds=600)


def shortened(make_phases):
    """The same phases with less to do, and all the time they need."""

    def make(*arguments):
        for phase in make_phases(*arguments):
            tracks = [
                [shorter(stage) for stage in track if stage.name in SHORTER]
                for track in phase.tracks
            ]
            left_out = {stage.name for stage in stages_of([phase])} - SHORTER.keys()
            assert all(name.startswith("compile for ") for name in left_out)
            yield Phase(tracks, 1800)

    return make


@pytest.mark.slow
def test_both_sessions_run_on_a_stand_in_gpu(tmp_path, monkeypatch):
    """Every stage's command, imports, arguments, files and report; no number is looked at."""
    (tmp_path / "bin").mkdir()
    for name, options in TOOLS.items():
        tool = tmp_path / "bin" / name
        tool.write_text(TOOL.format(name=name, options="|".join(map(repr, options))))
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "support" / "stand_in_gpu"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = "pooling-bfloat16-channels_last"
    monkeypatch.setattr(gpu_session, "POOLING_RUNS", {run: gpu_session.POOLING_RUNS[run]})
    costs = "poolings-bfloat16-channels_last"
    monkeypatch.setattr(second_session, "RUNS", {costs: second_session.RUNS[costs]})
    for module, name in ((gpu_session, "first_phases"), (second_session, "second_phases")):
        monkeypatch.setattr(module, name, shortened(getattr(module, name)))

    one, two = tmp_path / "one", tmp_path / "two"
    assert gpu_session.main([str(one)]) == 0, (one / "session.log").read_text()[-5000:]
    assert {path.name for path in one.iterdir()} == {
        "session.log",
        f"{run}.json",
        "networks.json",
        "report.md",
    }
    log = (one / "session.log").read_text()
    assert re.search(r"first tests\| =+ [1-9]\d* passed.* in ", log)
    assert re.search(r"other tests\| =+ [1-9]\d* passed.* in ", log)
    assert "40.0 GiB of 40.0 GiB are free" in log
    assert re.search(r"networks\| training: [1-9]\d* GPU programs in ", log)
    times = read_results(one / f"{run}.json").times
    assert {time.contender for time in times} >= {"max_ent_pool2d", "GFGP fused", "copy"}
    assert read_results(one / f"{run}.json").environment.backend == "cupy"
    assert read_results(one / "networks.json").times[0].seconds.repeats == 2
    assert "| max_ent | training |" in (one / "report.md").read_text()

    assert gpu_session.main([str(two), "--after", str(one)]) == 0, (two / "session.log").read_text()
    assert {path.name for path in two.iterdir()} == {"session.log", f"{costs}.json"}
    log = (two / "session.log").read_text()
    assert re.search(r"tests of window functions\| =+ [1-9]\d* passed.* in ", log)
    assert {each.pooling for each in read_costs(two / f"{costs}.json").times} >= {"max_ent", "ada"}
    assert "ncu| ========= ncu" in log
