"""config.json: its command is the run's, it keeps every start, and says what is not one."""

import json
import shlex
import shutil
import subprocess
from dataclasses import asdict, replace

import pytest
import torch

import gfgp_cupy
from train_imagenet import parse_settings
from training.errors import UserError
from training.processes.ranks import Process
from training.records.config import command_of, config_of, read_config, write_config
from training.records.environment import GitState, git_state
from training.run import Run

CPU = Process(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def config():
    return config_of(Run(parse_settings([]), CPU, seed=0), train_images=5)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--dataset imagenet --data 'a folder' --arch resnet50 --lr 0.05 --seed 3 --cpu",
        "--multiprocessing-distributed --world-size 2 --rank 1 --dist-url tcp://a:80 --nproc 3",
        "--epochs 2 -b 16 --save-last-checkpoint --tensorboard --resume 'it''s.tar' -j 0 --gpu 0",
        "--optimizer adamw --opt-betas 0.9,0.95 --opt-eps 1e-07 --clip-grad 1 --weight-decay 0 "
        "--weight-decay-on weights --head-lr 0.1 --loss bce --bce-threshold 0.2 --ema 0.99",
        "--lr-schedule milestones --lr-milestones 30,60 --lr-gamma 0.2 --no-lr-per-step --lr 1e-05",
        "--dataset digits --out-dir=-out --rand-augment --trivial-augment 0 --warmup-epochs 0",
        "--data x --dataset my-images --dist-url tcp://host:90 --resume auto -a vgg16bow",
        "--dataset fashion-mnist --config-name digits --workers 3 --evaluate --pretrained",
    ],
)
def test_command_has_the_settings(options):
    settings = parse_settings(shlex.split(options))
    program, script, *arguments = shlex.split(command_of(settings))
    assert (program, script) == ("python", "train_imagenet.py")
    assert parse_settings(arguments) == settings


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ""),
        ("--dataset digits --config-name digits --workers 0 -a resnet50 --amp off", ""),
        ("--data x --dataset imagenet --config-name imagenet --lr 0.1", "--data x --lr 0.1"),
        ("--world-size 1 --rank 0 --dist-url tcp://127.0.0.1:8080 --resume ''", ""),
        ("--dataset imagenet --data ./datasets/imagenet12/images/", "--dataset imagenet"),
        ("--cpu --no-cpu --seed 3", "--seed 3"),
    ],
)
def test_command_has_no_more_than_that_takes(options, expected):
    command = command_of(parse_settings(shlex.split(options)))
    assert command == f"python train_imagenet.py {expected}".rstrip()


@pytest.mark.parametrize("workers", ["", "--workers 3"])
def test_command_tells_the_workers_of_shards_on_whatever_machine(monkeypatch, workers):
    """They decide the order of the images there; by default they are as many as the CPU's cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(3))
    settings = parse_settings(shlex.split(f"--data t.tar --val-data v.tar {workers}"))
    command = command_of(settings)
    expected = "--data t.tar --val-data v.tar --workers 3"
    assert command == f"python train_imagenet.py {expected}"
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(5))
    assert parse_settings(shlex.split(expected)) == settings
    assert "--workers" not in command_of(parse_settings(["--data", "images"]))


def test_content(tmp_path):
    settings = parse_settings(["--batch-size", "16", "--cpu"])
    write_config(
        config_of(Run(settings, CPU, seed=7), train_images=5),
        tmp_path / "config.json",
        resumed=False,
    )
    content = read_config(tmp_path / "config.json")
    assert content["settings"] == asdict(replace(settings, seed=7))
    assert "--seed 7" in content["command"]
    assert content["recipe"]["momentum"] == settings.recipe.momentum
    assert content["recipe"]["train_transform"] == settings.recipe.train_transform.__name__
    versions = content["versions"]
    assert set(versions) >= {"python", "torch", "torchvision", "cupy", "numba", "gfgp_cupy"}
    assert (versions["torch"], versions["gfgp_cupy"]) == (torch.__version__, gfgp_cupy.__version__)
    assert (content["processes"], content["train_images"]) == (1, 5)
    assert content["threads"] == torch.get_num_threads()
    assert content["device"] and content["backend"] in ("numba", "torch")


def test_first_start_stays_first_and_a_fresh_run_starts_anew(tmp_path, config):
    path = tmp_path / "config.json"
    configs = [replace(config, settings={"seed": seed}) for seed in range(4)]
    write_config(configs[0], path, resumed=True)  # from a checkpoint of another folder
    write_config(configs[1], path, resumed=True)
    write_config(configs[2], path, resumed=True)
    content = read_config(path)
    assert content["settings"]["seed"] == 0
    assert [each["settings"]["seed"] for each in content["resumed"]] == [1, 2]
    write_config(configs[3], path, resumed=False)
    assert read_config(path)["settings"]["seed"] == 3
    assert "resumed" not in read_config(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 1, "recipe": {}}', "\xff"])
def test_file_that_is_no_config(tmp_path, config, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"config\.json: is no config\.json"):
        read_config(path)
    with pytest.raises(UserError, match=r"config\.json"):
        write_config(config, path, resumed=True)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        read_config(path)


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_state_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr("training.records.environment.REPOSITORY", tmp_path)
    assert git_state() == GitState(None, None)
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "log", "-1", "--format=%H")
    (tmp_path / "results.csv").write_text("1")
    assert git_state() == GitState(commit, False)
    (tmp_path / "code.py").write_text("2")
    assert git_state() == GitState(commit, True)


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == GitState(None, None)
    assert json.dumps(
        asdict(config_of(Run(parse_settings([]), CPU, seed=0), train_images=5)), default=str
    )
