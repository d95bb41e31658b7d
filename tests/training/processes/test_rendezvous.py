"""Machines and addresses from the environment, as the published command line takes them."""

import pytest

from train_imagenet import parse_settings
from training.errors import UserError

MANY = {"MASTER_ADDR": "host", "MASTER_PORT": "90", "WORLD_SIZE": "3", "RANK": "2"}
URL = "tcp://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ("", {}, (1, 0, URL)),
        ("", MANY, (1, 0, URL)),  # a cluster's own variables are let be
        ("--world-size -1 --rank -1", {}, (1, 0, URL)),
        ("--world-size -1 --rank -1", MANY, (3, 2, URL)),
        ("--dist-url env://", {}, (1, 0, URL)),
        ("--dist-url env://", MANY, (3, 2, "tcp://host:90")),
        ("--dist-url env:// --world-size -1 --rank -1", MANY, (3, 2, "tcp://host:90")),
        ("--dist-url env:// --world-size 4 --rank 1", MANY, (4, 1, "tcp://host:90")),
        (
            "--dist-url env:// --multiprocessing-distributed",
            {"MASTER_ADDR": "fe80::1", "MASTER_PORT": "90"},
            (1, 0, "tcp://[fe80::1]:90"),
        ),
        ("--world-size 2 --rank 1 --dist-url tcp://a:80", MANY, (2, 1, "tcp://a:80")),
    ],
)
def test_place_of_this_machine(monkeypatch, options, environ, expected):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    placement = parse_settings(options.split()).placement
    assert (placement.machines, placement.machine, placement.dist_url) == expected
    assert placement.is_distributed is (expected[0] > 1 or "--multi" in options)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MASTER_PORT", None, "the environment has no MASTER_PORT"),
        ("MASTER_ADDR", None, "the environment has no MASTER_ADDR"),
        ("WORLD_SIZE", "two", "WORLD_SIZE must be a whole number, not 'two'"),
    ],
)
def test_environment_that_cannot_be(monkeypatch, name, value, words):
    for variable, text in {**MANY, name: value}.items():
        if text is not None:
            monkeypatch.setenv(variable, text)
    with pytest.raises(UserError, match=words):
        parse_settings(["--dist-url", "env://"])
