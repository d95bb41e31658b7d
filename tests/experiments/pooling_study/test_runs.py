"""The study's runs: the plan, one run, and the command that can be stopped at any time."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from multiprocessing import connection

import pytest
import torch

from experiments import guided_pooling
from experiments.pooling_study import runs
from experiments.pooling_study.costs import CostRow
from experiments.pooling_study.pilot import PilotRow, pilot_run, split
from experiments.pooling_study.plan import COMPARED, GUIDED, RECIPES, PlannedRun, plan_of
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import (
    EpochRow,
    ExampleRow,
    LambdaRow,
    RunRow,
    ShiftRow,
    add_outcome,
    left_of,
)
from experiments.pooling_study.runs import Setting, make_run
from experiments.pooling_study.tasks import Task
from experiments.pooling_study.training import Recipe, train_epoch
from experiments.rows import read_rows
from tests.experiments.pooling_study.images import random_images
from tests.support.warm_python import HANG, exit_code, start_warm
from tests.training.images.test_fashion_mnist import write_files
from training.checkpoints.lock import locked
from training.errors import UserError
from training.records.environment import REPOSITORY

RECIPE = Recipe(width=4, epochs=3, batch_size=16, lr=0.05)
NEVER = float("inf")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def setting(request, tmp_path, monkeypatch):
    """Of tasks with few images, and on a GPU the same results every time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    task = Task(random_images(100, margin=2), random_images(60, margin=8))
    monkeypatch.setattr(runs, "TASKS", {"fashion": lambda data: task})
    runs._task_on.cache_clear()
    yield Setting.here("none", request.param, tmp_path, NEVER)
    runs._task_on.cache_clear()


def planned(pooling, network="small_cnn", seed=0):
    return PlannedRun("fashion", network, pooling, seed, RECIPE)


def test_plan_is_every_pooling_under_the_same_seeds():
    found = plan_of("study")
    assert len(found) == len({run.key for run in found}) == 4 * (4 * 8 + 9 * 5)
    for cell, recipe in RECIPES["study"].items():
        of_cell = [run for run in found if (run.task, run.network) == cell]
        assert {run.recipe for run in of_cell} == {recipe}
        seeds = {
            pooling: [run.seed for run in of_cell if run.pooling == pooling] for pooling in POOLINGS
        }
        for pooling in POOLINGS:
            of_the_question = pooling in (GUIDED, *COMPARED)
            assert seeds[pooling] == list(range(8 if of_the_question else 5))
    # Wherever it is stopped, few runs are of no use.
    order = [run.seed for run in found[: 4 * 4 * 8]]
    assert [(seed, len(list(those))) for seed, those in groupby(order)] == [
        (seed, 16) for seed in range(8)
    ]


def test_longer_plan_is_the_questions_runs_on_the_canvas_for_more_epochs():
    longer, study = plan_of("longer"), plan_of("study")
    small, narrow = ("canvas", "small_cnn"), ("canvas", "resnet18")
    # All of a pair before the next.
    assert [run.key for run in longer] == [
        run.key
        for cell in (small, narrow)
        for run in study
        if (run.task, run.network) == cell and run.pooling in (GUIDED, *COMPARED)
    ]
    for cell, epochs in ((small, 36), (narrow, 32)):
        recipes = {run.recipe for run in longer if (run.task, run.network) == cell}
        assert recipes == {replace(RECIPES["study"][cell], epochs=epochs)}


def test_larger_plan_is_of_full_width():
    assert {run.recipe.width for run in plan_of("larger")} == {64}
    assert {run.recipe.epochs for run in plan_of("larger")} == {30}


@pytest.mark.parametrize(
    ("pooling", "layers"), [("max", 0), ("max_ent", 3), ("max_ent_constant", 3), ("gauss", 3)]
)
def test_rows_of_a_run(setting, pooling, layers):
    outcome = make_run(planned(pooling), setting)
    assert outcome.run.key == ("fashion", "small_cnn", pooling, 0)
    assert outcome.run.recipe == RECIPE
    assert outcome.run.backend == {"cpu": "numba", "cuda": "cupy"}[setting.device]
    assert [row.done for row in outcome.epochs] == [1, 2, 3]
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss
    # All test images are among those of the epochs, and of the distances.
    assert outcome.epochs[-1].test_error == outcome.run.top1_error
    assert [row.distance for row in outcome.shifts] == list(range(9))
    assert outcome.shifts[0].top1_error == pytest.approx(outcome.run.top1_error, abs=0.01)
    assert [(row.done, row.layer) for row in outcome.lambdas] == [
        (done, layer) for done in range(4 if layers else 0) for layer in range(1, layers + 1)
    ]
    has_guidance = pooling in ("max_ent", "gauss")
    assert len(outcome.examples) == (12 * layers if has_guidance else 0)


def test_only_the_first_seed_has_examples(setting):
    assert make_run(planned("max_ent", seed=1), setting).examples == []


@pytest.mark.parametrize("pooling", ["max_ent", "gauss"])  # the latter draws noise
def test_interrupted_run_ends_as_if_it_had_not_been(setting, monkeypatch, pooling):
    whole = make_run(planned(pooling), setting)
    setting.file_of(planned(pooling)).unlink()

    def interrupted(*args):
        if args[-1] == 2:
            raise KeyboardInterrupt
        return train_epoch(*args)

    monkeypatch.setattr(runs, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_run(planned(pooling), setting)
    monkeypatch.setattr(runs, "train_epoch", train_epoch)
    outcome = make_run(planned(pooling), setting)
    ours, theirs = (replace(each.run, seconds=0.0, started="") for each in (outcome, whole))
    assert ours == theirs
    assert outcome.epochs == whole.epochs
    assert outcome.lambdas == whole.lambdas
    assert outcome.shifts == whole.shifts


def test_no_epoch_is_begun_after_the_deadline(setting, monkeypatch):
    over = replace(setting, deadline=time.time() - 1)
    monkeypatch.setattr(runs, "create_network", None)
    assert make_run(planned("max"), over) is None
    monkeypatch.undo()


def test_epoch_after_which_the_deadline_comes_is_kept(setting, monkeypatch):
    over = iter([False, False, True])
    monkeypatch.setattr(Setting, "is_over", property(lambda _: next(over)))
    assert make_run(planned("max"), setting) is None
    assert setting.file_of(planned("max")).exists()


def test_run_that_was_begun_by_another_recipe_does_not_go_on(setting, monkeypatch):
    over = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Setting, "is_over", property(lambda _: next(over)))
        assert make_run(planned("max"), setting) is None
    other = replace(planned("max"), recipe=replace(RECIPE, epochs=5))
    with pytest.raises(UserError, match=r"begun by Recipe\(width=4, epochs=3.*remove it"):
        make_run(other, setting)


def test_finished_runs_are_not_made_again(tmp_path, setting):
    first, second = planned("max_ent"), planned("max")
    outcome = make_run(first, setting)
    add_outcome(outcome, tmp_path)
    assert left_of([first, second], tmp_path) == [second]
    # As after an interruption between the files: nothing is there twice.
    add_outcome(make_run(second, setting), tmp_path)
    add_outcome(outcome, tmp_path)
    for name, kind, count in (
        ("runs", RunRow, 2),
        ("epochs", EpochRow, 6),
        ("lambdas", LambdaRow, 12),
        ("shifts", ShiftRow, 18),
        ("examples", ExampleRow, 36),
    ):
        assert len(read_rows(kind, tmp_path / f"{name}.csv")) == count
    other = replace(first, recipe=replace(RECIPE, lr=0.1))
    with pytest.raises(UserError, match="choose another folder"):
        left_of([other], tmp_path)


def test_pilot_is_scored_on_images_that_it_does_not_learn_from(monkeypatch):
    images = random_images(60)
    learned, held_out = split(images)
    assert (len(learned), len(held_out)) == (50, 10)
    assert held_out.targets.tolist() == images.targets[50:].tolist()
    unknown = images.targets % 9
    unknown[50:] = 9
    task = Task(replace(images, targets=unknown), None)
    monkeypatch.setattr("experiments.pooling_study.pilot.TASKS", {"fashion": lambda data: task})
    rows = pilot_run("fashion", "small_cnn", RECIPE, "none")
    assert [(row.done, row.epochs, row.lr) for row in rows] == [
        (1, 3, 0.05),
        (2, 3, 0.05),
        (3, 3, 0.05),
    ]
    # Of those of a class that there is nothing to learn of.
    assert rows[-1].held_out_error == 100


COMMAND = [sys.executable, str(REPOSITORY / "experiments" / "guided_pooling.py")]


@pytest.fixture
def options(tmp_path):
    """Of a command that finds few images."""
    write_files(tmp_path, train=200, val=20)
    return ["--data", str(tmp_path), "--results", str(tmp_path / "results"), "--jobs", "2"]


def interrupted_at_its_first_line(options, folder):
    """Interrupt the command; return what it has printed, and its standard error."""
    folder.mkdir()
    lines, err = folder / "lines", folder / "stderr"
    os.mkfifo(lines)
    stream = os.open(lines, os.O_RDONLY | os.O_NONBLOCK)
    command = start_warm(guided_pooling.main, options, stdout=lines, stderr=err)
    # For its first line, or its end if that is earlier.
    assert connection.wait([command.sentinel, stream], HANG) == [stream], err.read_text()
    command.terminate()
    assert exit_code(command) == 130
    os.set_blocking(stream, True)  # until the last process that writes there has ended
    with open(stream) as printed:
        return printed.read(), err.read_text()


@pytest.mark.slow  # starts processes: some 10 s on an idle core
def test_command_stops_at_its_deadline_and_at_a_signal_and_goes_on(tmp_path, options, capsys):
    results = tmp_path / "results"
    assert guided_pooling.main([*options, "--minutes", "1e-6"]) == 0
    assert capsys.readouterr().out == (
        "--minutes 1e-06: 0 of 308 runs are finished, and 0 are begun, in "
        f"{results / 'unfinished'}; the same command goes on\n"
    )
    out, err = interrupted_at_its_first_line(options, tmp_path / "first")
    assert re.match("1 of 308: fashion, small_cnn, [a-z_]+, seed 0: top-1 error ", out)
    assert err == "guided_pooling.py: interrupted; the same command goes on\n"
    finished = len(out.splitlines())
    assert len(read_rows(RunRow, results / "runs.csv")) >= finished
    # The plan is not run to its end before the command ends.
    assert finished + len([*results.glob("unfinished/*")]) < 308
    again, _ = interrupted_at_its_first_line(options, tmp_path / "again")
    assert int(again.split()[0]) > finished


def test_longer_runs_have_a_folder_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guided_pooling, "outcomes", lambda left, setting, jobs: [])
    assert guided_pooling.main(["longer", "--minutes", "1"]) == 0
    assert capsys.readouterr().out == (
        "--minutes 1: 0 of 64 runs are finished, and 0 are begun, in "
        "results/guided_pooling_longer/unfinished; the same command goes on\n"
    )


def make_pilot_and_costs(options):
    guided_pooling.RECIPES = {"study": {("fashion", "small_cnn"): RECIPE}}
    return guided_pooling.main([*options, "pilot"]) or guided_pooling.main([*options, "costs"])


@pytest.mark.slow
def test_pilot_and_costs_have_their_files(tmp_path, options):
    results, out, err = (tmp_path / name for name in ("results", "stdout", "stderr"))
    assert exit_code(start_warm(make_pilot_and_costs, options, stdout=out, stderr=err)) == 0
    assert {path.name for path in results.iterdir()} == {"pilot.csv", "costs.csv"}
    assert [row.done for row in read_rows(PilotRow, results / "pilot.csv")] == [1, 2, 3]
    costs = read_rows(CostRow, results / "costs.csv")
    assert [(row.task, row.network, row.pooling) for row in costs] == [
        ("fashion", "small_cnn", pooling) for pooling in POOLINGS
    ]
    assert all(row.milliseconds > 0 for row in costs)


@pytest.mark.slow  # starts Python twice: the script, and a process for its runs
def test_what_a_run_fails_with_is_told(tmp_path):
    options = ["--data", tmp_path, "--results", tmp_path / "results", "--jobs", "1"]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 2
    assert "holds no train-images-idx3-ubyte" in done.stderr


def test_second_command_is_kept_out(tmp_path):
    results, out, err = (tmp_path / name for name in ("results", "stdout", "stderr"))
    command = (guided_pooling.main, ["--results", str(results)])
    with locked(results):  # of this process, so the command must be another
        assert exit_code(start_warm(*command, stdout=out, stderr=err)) == 2
    assert f"--results {results}: process {os.getpid()} on " in err.read_text()
    assert "or choose another --results" in err.read_text()


def test_second_command_is_kept_out_of_the_unfinished_runs(tmp_path):
    unfinished, out, err = (tmp_path / name for name in ("unfinished", "stdout", "stderr"))
    folders = ["--results", str(tmp_path / "other"), "--unfinished", str(unfinished)]
    with locked(unfinished):
        assert exit_code(start_warm(guided_pooling.main, folders, stdout=out, stderr=err)) == 2
    assert "or choose another --unfinished" in err.read_text()


def test_networks_of_finished_runs_are_not_begun_ones(tmp_path, setting, monkeypatch, capsys):
    first, second, third = planned("max_ent"), planned("max"), planned("avg")
    monkeypatch.setattr(guided_pooling, "plan_of", lambda device: [first, second, third])
    results, unfinished = tmp_path / "results", tmp_path / "unfinished"
    results.mkdir()
    add_outcome(make_run(first, setting), results)
    for run in (first, second):  # the first as where a command dies behind its last row
        path = replace(setting, unfinished=unfinished).file_of(run)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    folders = ["--results", str(results), "--unfinished", str(unfinished)]
    assert guided_pooling.main([*folders, "--minutes", "1e-6"]) == 0
    assert "1 of 3 runs are finished, and 1 are begun, in" in capsys.readouterr().out
    assert len([*unfinished.iterdir()]) == 2


def test_gpu_that_is_not_there_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert guided_pooling.main(["--device", "cuda", "--results", str(tmp_path)]) == 2
    assert "--device cuda: PyTorch finds no GPU here" in capsys.readouterr().err


def wait_for_a_process_that_dies():
    with guided_pooling.processes(1) as pool:
        pool.submit(os._exit, 1).result()


def test_process_that_dies_is_told_and_nothing_waits_for_it(tmp_path):
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    assert exit_code(start_warm(wait_for_a_process_that_dies, stdout=out, stderr=err)) == 1
    assert "UserError: a process that made a run died or had too little mem" in err.read_text()


def wait_for_a_process_without_memory():
    with guided_pooling.processes(1) as pool:
        pool.submit(raise_out_of_memory).result()


def raise_out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_too_little_gpu_memory_is_told_and_nothing_waits_for_it(tmp_path):
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    assert exit_code(start_warm(wait_for_a_process_without_memory, stdout=out, stderr=err)) == 1
    assert "UserError: a process that made a run died or had too little mem" in err.read_text()


@pytest.mark.parametrize("work", ["longer", "pilot", "costs"])
def test_only_planned_runs_are_made_on_a_gpu(tmp_path, capsys, work):
    options = ["--device", "cuda", "--results", str(tmp_path / "results"), work]
    assert guided_pooling.main(options) == 2
    assert f"--device cuda: {work} is of the runs on a CPU; leave it out" in capsys.readouterr().err
