"""The experiments: their statistics, their files, and a run of a few images."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import train_imagenet
from experiments import fashion_mnist, results_page
from experiments.comparison import PairedDifference, Spread, compare, complete_seeds, holm
from experiments.lambdas import LayerLambdas, layer_lambdas, position_between
from experiments.rows import Row, read_rows, write_rows
from experiments.runs import Recipe
from experiments.tables import differences_table, results_table
from gfgp_cupy import MaxEntPool2d
from models import create_model
from tests.support.command_line import read_log
from tests.training.images.test_fashion_mnist import write_files
from training.data import load_data, make_train_batches
from training.errors import UserError
from training.processes.ranks import Process
from training.records.config import CONFIG_NAME, read_config
from training.run import Run
from training.seeding import derive_seed, seed_everything

CPU = Process(0, 1, torch.device("cpu"))

ROW = Row(
    pool="max",
    seed=0,
    arch="resnet18",
    top1_error=20.5,
    top5_error=0.25,
    loss=0.5625,
    eval_images=10_000,
    parameters=11_181_642,
    epochs=4,
    batch_size=64,
    lr=0.02,
    train_images=9216,
    seconds=90.5,
    commit="0123abc",
    dirty="False",
    torch="2.14.1+cu130",
    torchvision="0.29.1",
    numba="0.68.1",
    python="3.11.7",
    backend="numba",
    device='Processor, with a comma and a "quote"',
    threads=1,
    started="2026-01-02T03:04:05+00:00",
)


def test_spread_divides_by_one_less_than_the_count():
    # Deviations -3, -1, -1, 0, 5 of the mean: squares 9 + 1 + 1 + 0 + 25 = 36, over 4.
    assert Spread.of([2.0, 4.0, 4.0, 5.0, 10.0]) == Spread(mean=5.0, deviation=3.0)


def test_paired_difference_by_hand():
    # Differences -1, -2, -3: mean -2, deviation 1, t = -2 √3 with 2 degrees of freedom, for which
    # p = 1 - |t| / √(2 + t²) and the 97.5% point is 0.95 √(2 / (1 - 0.95²)) = 4.30265.
    found = PairedDifference.of("max", [10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (found.pool, found.mean, found.lower, found.seeds) == ("max", -2.0, 3, 3)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert (found.low, found.high) == pytest.approx((-2 - half, -2 + half))


def test_a_seed_of_equal_errors_is_not_lower():
    assert PairedDifference.of("max", [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]).lower == 1


def test_holm_by_hand():
    # In order: 4 × 0.01, 3 × 0.02, 2 × 0.03 (as large as the one before), 1 × 0.9.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_comparison_names_each_other_pooling_and_allows_for_their_number():
    values = {"a": [5.0, 7.0, 8.0], "b": [1.0, 2.0, 4.5], "c": [5.5, 6.5, 8.5]}
    found = compare(values, "b")
    assert [each.pool for each in found] == ["a", "c"]
    assert [each.p_holm for each in found] == holm([each.p for each in found])
    assert all(each.mean < 0 and each.lower == 3 for each in found)
    assert [each.p_holm for each in found] != [each.p for each in found]


def runs_of(errors):
    """Rows of the top-1 errors by pooling and seed."""
    return [
        replace(ROW, pool=pool, seed=seed, top1_error=error)
        for pool, by_seed in errors.items()
        for seed, error in by_seed.items()
    ]


def test_only_seeds_of_every_pooling_are_compared():
    rows = runs_of({"max": {2: 20.0, 0: 21.0, 1: 22.0}, "max_ent": {1: 19.0, 2: 18.0, 7: 1.0}})
    runs = complete_seeds(rows)
    assert {pool: [row.seed for row in found] for pool, found in runs.items()} == {
        "max": [1, 2],
        "max_ent": [1, 2],
    }
    assert [row.top1_error for row in runs["max"]] == [22.0, 20.0]
    with pytest.raises(UserError, match="1 seeds have a row"):
        complete_seeds(row for row in rows if (row.pool, row.seed) != ("max", 1))
    with pytest.raises(UserError, match="different recipes"):
        complete_seeds([*rows, replace(ROW, seed=9, lr=0.1)])


def test_rows_come_back_from_the_file_as_they_were(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [ROW, replace(ROW, pool="max_ent", seed=1, top1_error=0.1 + 0.2)]
    write_rows(rows, path)
    assert read_rows(Row, path) == rows
    with pytest.raises(UserError, match=r"rows\.csv: holds no rows of LayerLambdas"):
        read_rows(LayerLambdas, path)
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(Row, tmp_path / "none.csv")


def test_tables_by_hand():
    runs = complete_seeds(runs_of({"max": {0: 20.0, 1: 22.0}, "max_ent": {0: 19.0, 1: 20.5}}))
    assert "| `max` | 21.00 ± 1.41 | 0.25 ± 0.00 | 0.562 ± 0.000 |" in results_table(runs)
    # Differences -1, -1.5: t = -5 with one degree of freedom, p = 2 arctan(1 / 5) / π.
    errors = {pool: [row.top1_error for row in rows] for pool, rows in runs.items()}
    table = differences_table(compare(errors, "max_ent"))
    assert table.splitlines()[-1] == ("| `max` | -1.25 | -4.43 to +1.93 | 2 of 2 | 0.13 | 0.13 |")


def test_table_takes_its_place_in_the_page():
    page = "before\n<!-- a -->\nold\ntable\n<!-- end of a -->\nafter <!-- end of a -->\n"
    expected = "before\n<!-- a -->\nnew\n<!-- end of a -->\nafter <!-- end of a -->\n"
    assert results_page.with_tables(page, {"a": "new"}) == expected
    with pytest.raises(UserError, match="has no <!-- b -->"):
        results_page.with_tables(page, {"b": "new"})


def test_committed_page_has_the_committed_results():
    page = (results_page.REPOSITORY / "docs" / "results.md").read_text()
    runs = complete_seeds(read_rows(Row, results_page.RESULTS / "fashion_mnist.csv"))
    lambdas = read_rows(LayerLambdas, results_page.RESULTS / "fashion_mnist_lambdas.csv")
    assert results_page.with_tables(page, results_page.tables(runs, lambdas)) == page


def test_spread_of_lambda_over_channels_and_over_images():
    # Channel means 0.25 and 0.75; within the first channel 0.25 apart from it, in the second none.
    lam = torch.tensor([[0.0, 0.75], [0.5, 0.75]])
    found = layer_lambdas("max_ent", 3, "pool", lam, 0.5)
    assert (found.images, found.mean, found.least, found.most) == (2, 0.5, 0.0, 0.75)
    assert found.between_channels == pytest.approx(0.25)
    assert found.between_images == pytest.approx(math.sqrt(0.25**2 / 2))


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1)])
def test_position_is_0_at_the_average_and_1_at_the_maximum(window):
    kernel, stride, padding = window
    x = torch.rand(2, 3, 8, 8)
    layer = MaxEntPool2d(kernel, stride, padding)
    average = nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)(x)
    largest = nn.MaxPool2d(kernel, stride, padding)(x)
    assert position_between(x, average, layer) == pytest.approx(0, abs=1e-6)
    assert position_between(x, largest, layer) == pytest.approx(1)
    assert position_between(x, 0.75 * average + 0.25 * largest, layer) == pytest.approx(0.25)


def test_every_pooling_trains_on_the_same_images_in_the_same_order(tmp_path):
    write_files(tmp_path)
    batches = {}
    for pool in fashion_mnist.POOLS:
        recipe = Recipe("resnet18", str(tmp_path), epochs=2, batches=2, batch_size=8, lr=0.1)
        settings = train_imagenet.parse_settings(recipe.train_options(pool, 5, tmp_path / "out"))
        create_model("resnet18", pool, 10)  # draws more random numbers for some than for others
        loader = make_train_batches(load_data(settings), Run(settings, CPU, settings.seed))
        loader.set_epoch(1)
        batches[pool] = list(loader)
    for found in batches.values():
        for batch, expected in zip(found, batches["skip"], strict=True):
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.targets, expected.targets)
    first, second = batches["skip"]
    assert not torch.equal(first.images, second.images)


def test_every_pooling_but_the_guided_starts_from_the_same_weights():
    starts = {}
    for pool in fashion_mnist.POOLS:
        seed_everything(derive_seed(5, "weights"))
        starts[pool] = create_model("resnet18", pool, 10).state_dict()
    for pool in set(fashion_mnist.POOLS) - {"max_ent"}:
        assert all(torch.equal(starts[pool][name], starts["max"][name]) for name in starts["max"])


@pytest.mark.slow  # trains and evaluates in processes of their own: 20 s on an idle core
def test_runs_of_a_few_images(tmp_path):
    write_files(tmp_path)
    out, results, lambdas = (tmp_path / name for name in ("runs", "rows.csv", "lambdas.csv"))
    options = [
        *("--epochs", "2", "--batches", "2", "--batch-size", "8", "--lr", "0.01"),
        *("--data", str(tmp_path), "--runs", str(out)),
        *("--results", str(results), "--lambdas", str(lambdas), "--seeds", "3"),
    ]
    (out / "max_ent-seed3").mkdir(parents=True)
    (out / "max_ent-seed3" / "log.csv").write_text("of a run that was interrupted")
    # A run that is there already: of the same recipe, and so not made again.
    there = replace(ROW, pool="skip", seed=3, epochs=2, batch_size=8, lr=0.01, train_images=32)
    write_rows([there], results)
    assert fashion_mnist.main([*options, "--pools", "skip", "max_ent"]) == 0
    assert [path.name for path in out.iterdir()] == ["max_ent-seed3"]
    unchanged, row = read_rows(Row, results)
    assert unchanged == there
    assert (row.pool, row.seed, row.train_images, row.eval_images) == ("max_ent", 3, 32, 6)
    assert row.parameters > 11_181_642
    last = read_log(out / "max_ent-seed3")[-1]  # the validation has all six images, too
    assert row.top1_error == pytest.approx(float(last["val_err1"]), abs=0.01)
    assert row.top5_error == pytest.approx(float(last["val_err5"]), abs=0.01)
    assert row.loss == pytest.approx(float(last["val_loss"]), abs=0.0002)
    config = read_config(out / "max_ent-seed3" / CONFIG_NAME)
    assert (row.commit, row.torch) == (str(config["git"]["commit"]), config["versions"]["torch"])
    layers = read_rows(LayerLambdas, lambdas)
    assert [each.layer for each in layers] == [
        *("pool1", "pool", "layer2.0.pooling", "layer3.0.pooling", "layer4.0.pooling"),
    ]
    assert all(0 < each.least <= each.mean <= each.most < 1 for each in layers)
    assert all(0 < each.position < 1 and each.images == 6 for each in layers)


def test_other_recipe_is_refused_before_any_run(tmp_path, capsys):
    results = tmp_path / "rows.csv"
    write_rows([ROW], results)
    options = ["--lr", "0.5", "--data", str(tmp_path), "--results", str(results)]
    options += ["--runs", str(tmp_path / "runs")]
    assert fashion_mnist.main(options) == 2
    assert "has rows of another recipe" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # starts a process: 6 s on an idle core
def test_failure_of_the_trainer_is_told(tmp_path, capsys):
    options = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs")]
    options += ["--results", str(tmp_path / "rows.csv"), "--pools", "max", "--seeds", "0"]
    assert fashion_mnist.main(options) == 2
    assert "holds no train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_runs_are_on_the_device_asked_for(tmp_path, device):
    """``train_imagenet.py`` takes a GPU unless it is told not to."""
    recipe = Recipe("resnet18", "data", epochs=2, batches=2, batch_size=8, lr=0.1, device=device)
    for options in (
        recipe.train_options("max", 0, tmp_path),
        recipe.evaluate_options("max", tmp_path),
    ):
        assert ("--cpu" in options) == (device == "cpu")
