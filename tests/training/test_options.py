"""The options: each says all of itself, and the names in their help are those there are."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from models import list_models
from models.pooling import POOL_TYPES
from tests.support.command_line import error_here
from tests.support.paths import REPOSITORY
from train_imagenet import parse_settings
from training import argument_types
from training.command_line import make_parser, parse_options
from training.errors import UserError
from training.forward import AMP_TYPES
from training.images.datasets import DATASETS
from training.loss import LOSSES
from training.not_finite import MOST_SKIPPED_IN_A_ROW
from training.options import GROUPS, OPTIONS, Options, flag_of
from training.recipes import RECIPES, Recipe
from training.records.bad_images import BAD_IMAGES_NAME
from training.records.config import CONFIG_NAME
from training.records.evaluation import EVALUATION_NAME
from training.records.history import LOG_NAME
from training.records.lambdas import LAMBDAS_NAME
from training.records.predictions import CLASSES_NAME, CONFUSION_NAME, PAIRS_NAME
from training.records.tensorboard import FOLDER_NAME
from training.records.trackers import SERVICES
from training.schedules import SCHEDULES
from training.settings import Settings


def test_help_waits_for_no_large_package():
    """Nor does what is said of a wrong command line; each takes seconds to import."""
    large = {"torch", "torchvision", "numpy", "PIL", "matplotlib", "sklearn", "cupy", "numba"}
    for options, code in (["--help"], 0), (["--epochs", "none"], 2):
        program = (
            "import json, sys, train_imagenet\n"
            f"try: code = train_imagenet.main({options})\n"
            "except SystemExit as end: code = end.code\n"
            "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
        )
        *_, last = done.stderr.splitlines()
        ended, modules = json.loads(last)
        assert ended == code, done.stderr
        assert "training.options" in modules
        assert not large & {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("arch", list_models()),
        ("pool", POOL_TYPES),
        ("dataset", DATASETS),
        ("data", [entry.root for entry in DATASETS.values() if entry.root]),
        ("config_name", RECIPES),
        ("lr_schedule", SCHEDULES),
        ("on_bad_image", [BAD_IMAGES_NAME]),
        ("on_nan", [f"after {MOST_SKIPPED_IN_A_ROW} in a row"]),
        ("evaluate", [EVALUATION_NAME, CLASSES_NAME, PAIRS_NAME, CONFUSION_NAME]),
        ("out_dir", [CONFIG_NAME, LOG_NAME, LAMBDAS_NAME, EVALUATION_NAME]),
        ("tensorboard", [f"{FOLDER_NAME}/"]),
        ("log", SERVICES),
    ],
)
def test_help_has_the_names_of_the_registry(name, words):
    for word in words:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", OPTIONS[name].help), word


@pytest.mark.parametrize(
    ("name", "names"), [("arch", list_models()), ("pool", POOL_TYPES), ("config_name", RECIPES)]
)
def test_help_has_no_name_that_is_gone(name, names):
    listed = OPTIONS[name].help.partition(" (default")[0].split(", ")
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize(
    ("name", "names"), [("amp", AMP_TYPES), ("lr_schedule", SCHEDULES), ("loss", LOSSES)]
)
def test_choices_are_those_of_the_registry(name, names):
    assert OPTIONS[name].choices == tuple(names)


def test_services_are_those_of_the_registry():
    assert tuple(SERVICES) == argument_types.SERVICES


def test_what_the_recipe_decides_is_in_every_recipe():
    names = [name for name, option in OPTIONS.items() if option.from_recipe]
    assert {"epochs", "batch_size", "lr"} <= set(names) <= {each.name for each in fields(Recipe)}
    for recipe in RECIPES:
        settings = parse_settings(["--config-name", recipe])
        assert all(getattr(settings, name) is None for name in names)
        assert settings.recipe == RECIPES[recipe]
    given = parse_settings(["--config-name", "digits", "--epochs", "7"]).recipe
    assert (given.epochs, given.batch_size) == (7, RECIPES["digits"].batch_size)


def test_help_has_each_option_in_its_group():
    text, places = make_parser().format_help(), {}
    for name, option in OPTIONS.items():
        letter = f"-{option.short}( {option.metavar})?, " if option.short else ""
        (found,) = re.finditer(rf"^  {letter}{flag_of(name)}(?![\w-])", text, re.MULTILINE)
        places.setdefault(option.group, []).append(found.start())
    titles = {group: text.index(f"\n{title}:\n") for group, title in GROUPS.items()}
    assert list(places) == list(GROUPS)
    for group, next_group in zip(GROUPS, [*list(GROUPS)[1:], None], strict=True):
        end = titles[next_group] if next_group else len(text)
        assert all(titles[group] < place < end for place in places[group])


def test_options_without_a_command_line_are_the_defaults():
    assert parse_options([]) == Options()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("digits", "", "digits", 0)),
        (["--data", "x", "-j", "3"], ("imagenet", "x", "imagenet", 3)),
        (["--dataset", "imagenet"], ("imagenet", DATASETS["imagenet"].root, "imagenet", None)),
        (["--val-data", "x"], ("imagenet", DATASETS["imagenet"].root, "imagenet", None)),
        (["--data", "x", "--config-name", "digits"], ("imagenet", "x", "digits", None)),
        # As published, where a data set's name says nothing of its folder.
        (["--data", "x", "--dataset", "my-images"], ("imagenet", "x", "imagenet", None)),
        (["--data", "x", "--dataset", "fashion-mnist"], ("fashion-mnist", "x", "fashion-mnist", 0)),
    ],
)
def test_open_defaults_are_filled_in(argv, expected):
    settings = parse_settings(argv)
    dataset, data, config_name, workers = expected
    assert (settings.dataset, settings.data, settings.config_name) == (dataset, data, config_name)
    assert settings.workers == workers if workers is not None else 0 < settings.workers <= 12
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        (["--multi", "--world", "2", "--eval"],
         ["--multiprocessing-distributed", "--world-size", "2", "--evaluate"]),
        (["-b32", "-ep", "5", "-avgg16bow"],
         ["--batch-size", "32", "--evaluate", "--print-freq", "5", "--arch", "vgg16bow"]),
        (["--config-n", "digits", "--ema", "--lr=1"],
         ["--config-name", "digits", "--ema", "0.9999", "--lr", "1"]),
        (["--resume", ""], []),
    ],
)  # fmt: skip
def test_options_may_be_shortened(short, whole):
    assert parse_options(short) == parse_options(whole)


def test_rarely_needed_options_come_last():
    *_, last = GROUPS
    names = {name for name, option in OPTIONS.items() if option.group == last}
    assert (last, names) == ("advanced", {"start_epoch", "worker_timeout", "dist_timeout"})
    assert {name for name in names if OPTIONS[name].tells} == {"start_epoch"}


def test_data_beside_a_data_set_that_has_none(tmp_path):
    message = error_here("--dataset", "digits", "--data", tmp_path, "--out-dir", tmp_path / "out")
    assert f"--data {tmp_path}: does not go with --dataset digits, whose images come" in message
    assert "leave it out, or name another --dataset" in message
    assert list(tmp_path.iterdir()) == []


def test_option_that_is_not_one():
    with pytest.raises(UserError, match="--batchsize"):
        parse_options(["--batchsize", "3"])
