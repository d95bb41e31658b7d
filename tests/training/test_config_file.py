"""``--config FILE``: what stands in it is what the command line would say."""

import json
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from tests.support.command_line import error_here, output_here, read_log
from tests.support.tiny_network import SMALL_DIGITS, create_tiny_network
from train_imagenet import parse_settings
from training.command_line import parse_options
from training.errors import UserError
from training.options import flag_of
from training.processes.ranks import Process
from training.recipes import RECIPES
from training.records.config import config_of, read_config, write_config
from training.run import Run

CONTENT = {
    "arch": "resnet18",
    "batch-size": 64,
    "lr": 1e-05,
    "lr_schedule": "milestones",
    "lr-milestones": [30, 60],
    "cpu": True,
    "tensorboard": False,
    "lr_per_step": False,
    "ema": True,
    "amp": "off",
    "seed": None,
    "out_dir": "-out",
}
WORDS = (
    *("--arch", "resnet18", "--batch-size", "64", "--lr", "1e-05", "--lr-schedule", "milestones"),
    *("--lr-milestones", "30,60", "--cpu", "--no-lr-per-step", "--ema", "--amp", "off"),
    "--out-dir=-out",
)


@pytest.fixture(params=[".json", ".yaml", ".yml"])
def path(tmp_path, request):
    path = tmp_path / f"run{request.param}"
    write = json.dumps if request.param == ".json" else yaml.safe_dump
    path.write_text(write(CONTENT))
    return path


def test_file_is_what_the_command_line_would_say(path):
    assert parse_options(["--config", str(path)]) == parse_options(WORDS)


def test_command_line_comes_on_top(path):
    words = ["-b32", "--no-cpu", "--lr-per-step", "--lr", "2", "--no-ema"]
    expected = parse_options([*WORDS, *words])
    assert (expected.batch_size, expected.cpu, expected.lr_per_step) == (32, False, True)
    assert expected.ema is None and parse_options(WORDS).ema is not None
    assert parse_options(["--config", str(path), *words]) == expected
    assert parse_options([*words, "--config", str(path)]) == expected


def test_yaml_as_a_person_writes_it(tmp_path):
    """Words that YAML takes for something else: off is no, 1e-3 no number, 0.9,0.95 a text."""
    path = tmp_path / "run.yaml"
    path.write_text("amp: off\nlr: 1e-3\nopt-betas: 0.9,0.95\ncpu: yes\nema: off\nresume:\n")
    assert parse_options(["--config", str(path)]) == parse_options(
        ["--amp", "off", "--lr", "1e-3", "--opt-betas", "0.9,0.95", "--cpu"]
    )


@pytest.mark.parametrize("word", ["off", "no", "false"])
def test_what_the_recipe_has_is_switched_off(tmp_path, monkeypatch, word):
    """By the file as by the command line, whose word counts."""
    recipe = replace(RECIPES["imagenet-a2"], trivial_augment=31, lr_per_step=True)
    monkeypatch.setitem(RECIPES, "imagenet-a2", recipe)
    path = tmp_path / "run.yaml"
    for name in ("rand_augment", "trivial_augment", "lr_per_step"):
        path.write_text(f"config-name: imagenet-a2\n{name}: {word}\n")
        flag = flag_of(f"no_{name}")
        settings = parse_settings(["--config", str(path)])
        assert settings == parse_settings(["--config-name", "imagenet-a2", flag])
        assert getattr(recipe, name) and not getattr(settings.recipe, name)
        path.write_text(f"config-name: imagenet-a2\n{name}: on\n")
        assert getattr(parse_settings(["--config", str(path)]).recipe, name)
        assert parse_settings(["--config", str(path), flag]) == settings


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("run.json", '{"epoch": 3}', ("unknown key 'epoch'", "did you mean epochs?")),
        ("run.yaml", "batchsize: 3", ("unknown key 'batchsize'", "batch_size")),
        ("run.yaml", "config: other.yaml", ("unknown key 'config'",)),
        ("run.json", '{"epochs": "many"}', ("--epochs", "'many'")),
        ("run.json", '{"epochs": {"first": 1}}', ("epochs must be a value",)),
        ("run.json", '{"cpu": 3}', ("cpu must be true or false, not '3'",)),
        ("run.json", "{", ("is no JSON",)),
        ("run.yaml", "[", ("is no YAML",)),
        ("run.yaml", "- lr", ("must hold options' names and their values",)),
        ("run.txt", "", ("must end in .json, .yaml or .yml",)),
    ],
)
def test_file_that_cannot_be(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    message = error_here("--config", path)
    assert f"--config {path}: " in message
    for word in words:
        assert word in message


def test_file_that_is_not_there(tmp_path):
    for path, reason in (tmp_path / "none.json", "No such file"), (tmp_path, "directory"):
        assert reason in error_here("--config", path)


def test_yaml_that_is_not_installed(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    if path.suffix == ".json":
        assert parse_options(["--config", str(path)]).arch == "resnet18"
    else:
        with pytest.raises(UserError, match="pip install pyyaml"):
            parse_options(["--config", str(path)])


@pytest.mark.parametrize(
    "words",
    [
        "--data x --dataset imagenet12 --resume auto --optimizer lamb --opt-betas 0.9,0.99 --ema",
        "--rand-augment rand-m7-mstd0.5-inc1 --mixup 0.1 --no-lr-per-step --log wandb",
        "--no-rand-augment --no-trivial-augment --no-ema --lr-per-step",
        "--lr-schedule milestones --lr-milestones 1,2 --multiprocessing-distributed --nproc 2",
    ],
)
def test_config_json_has_the_settings(tmp_path, words):
    settings = parse_settings(["--seed", "3", *words.split()])
    run = Run(settings, Process(0, 1, torch.device("cpu")), seed=3)
    write_config(config_of(run, train_images=5), tmp_path / "config.json", resumed=False)
    assert parse_settings(["--config", str(tmp_path / "config.json")]) == settings


def test_config_json_repeats_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr("training.command.create_model", create_tiny_network)
    out, again = tmp_path / "out", tmp_path / "again"
    options = ("--epochs", 2, "--momentum", 0.5, "--clip-grad", 0.1, "--out-dir", out)
    output_here(*SMALL_DIGITS, *options)
    config = out / "config.json"
    assert "holds a run already" in error_here("--config", config)
    output_here("--config", config, "--out-dir", again)
    columns = ("lr", "train_loss", "val_loss")
    rows = [[[row[name] for name in columns] for row in read_log(each)] for each in (out, again)]
    assert rows[0] == rows[1]
    assert read_config(again / "config.json")["settings"]["momentum"] == 0.5
