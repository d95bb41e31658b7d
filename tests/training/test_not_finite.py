"""Losses, gradients and weights that are not finite: the run stops, or the step is left out."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from tests.support.command_line import error_here, output_here, read_log
from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import create_tiny_network
from tests.support.warm_python import run_warm
from train_imagenet import parse_settings
from training.checkpoints.partial_epoch import begin_epoch
from training.errors import UserError
from training.loading.batches import Batch
from training.loading.global_batches import GlobalBatches
from training.passes import train_one_epoch
from training.processes.ranks import Process
from training.recipes import RECIPES
from training.records.metrics import ScoreSums
from training.run import Run
from training.step import make_training_step

ONE = Process(0, 1, torch.device("cpu"))
CLASSES = 5
IMAGES = 7


class RootOfSquare(nn.Module):
    """The magnitude, in a form whose gradient at 0 is nan, as of many a hand-written loss."""

    def forward(self, input):
        return (input * input).sqrt()


class LoudCorner(nn.Module):
    """Adds an image's corner pixel to one class and subtracts it from the others.

    The loss can be made infinite by an image whose gradient is finite.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        corner = images[:, 0, 0, :1]
        signs = torch.tensor([1.0] + [-1.0] * (CLASSES - 1))
        return self.network(images[:, :, 1:]) + corner * signs


def network(middle=None):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), middle or nn.BatchNorm2d(4)),
        *(nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES)),
    )


def batch(seed, images=IMAGES, processes=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, 6, 6, generator=generator)
    targets = torch.randint(CLASSES, (images,), generator=generator)
    return Batch(pixels, targets, images * processes)


def poisoned(seed, value=math.nan, image=5, **options):
    """A batch with ``value`` in one pixel of one image."""
    content = batch(seed, **options)
    content.images[image, 0, 0, 0] = value
    return content


def step_of(model, *options, process=ONE):
    model(batch(0).images)  # which gives the last layer its size
    options = ["--cpu", "--lr", "0.1", "--on-nan", "skip", *options]
    return make_training_step(model, None, Run(parse_settings(options), process, seed=0))


def state_of(step):
    """Everything of a step that a checkpoint holds."""
    state = {
        "weights": step.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "average": {} if step.averaged is None else step.averaged.state_dict(),
    }
    return copy.deepcopy(state)


def assert_same(actual, expected):
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


OPTIONS = [
    (),
    ("--accum-steps", "3"),
    ("--amp", "fp16"),
    ("--ema", "0.75"),
    ("--accum-steps", "2", "--amp", "fp16", "--ema", "0.75"),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_skipped_step_is_as_if_not_taken(options, value, place):
    """Before there is any momentum, in between, and at the end."""
    with_bad, without = (step_of(network(), *options) for _ in range(2))
    sums, expected = ScoreSums(ONE.device), ScoreSums(ONE.device)
    batches = [batch(1), batch(2)]
    for content in batches:
        assert without(content, expected)
    batches.insert(place, poisoned(3, value))
    assert [with_bad(content, sums) for content in batches] == [
        number != place for number in range(3)
    ]
    assert_same(state_of(with_bad), state_of(without))
    scores = sums.scores()
    assert scores == replace(expected.scores(), skipped_steps=1)
    assert scores.images == 2 * IMAGES


def test_without_skip_such_a_step_spoils_the_run():
    """So that the test above is not one of a batch that does no harm."""
    step, sums = step_of(network(), "--on-nan", "stop"), ScoreSums(ONE.device)
    assert step(poisoned(3), sums)
    assert not sums.scores().is_finite
    for name, tensor in step.model.state_dict().items():
        assert tensor.dtype == torch.long or not tensor.isfinite().all(), name


def black_image():
    content = batch(4)
    content.images[5] = 0
    return content


def test_gradient_that_is_not_finite_is_skipped_too():
    step, sums = step_of(network(RootOfSquare())), ScoreSums(ONE.device)
    before = state_of(step)
    assert not step(black_image(), sums)
    assert not all(each.grad.isfinite().all() for each in step.model.parameters())
    assert_same(state_of(step), before)


def test_gradient_that_overflows_in_float16_is_the_scalers():
    """It lowers the scale, which is no fault of the images: the step counts."""
    step, sums = step_of(network(), "--amp", "fp16"), ScoreSums(ONE.device)
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**24})
    before = copy.deepcopy(step.model.state_dict())
    assert step(batch(1), sums)
    assert step.scaler.get_scale() == 2.0**23
    assert (sums.scores().images, sums.scores().skipped_steps) == (IMAGES, 0)
    assert torch.equal(step.model[0].weight, before["0.weight"])
    assert not torch.equal(step.model[1].running_mean, before["1.running_mean"])


@dataclass
class Batches:
    """In the place of a ``BatchLoader``."""

    contents: Iterable[Batch]
    images: int = 10 * IMAGES

    def __iter__(self):
        return iter(self.contents)


def epoch_of(step, *contents):
    return train(step, Batches(contents))


def train(step, batches):
    return train_one_epoch(
        step=step,
        batches=batches,
        batches_of_epoch=10,
        title="epoch 1/1",
        under_way=begin_epoch(0, None, step.run, sampler=GlobalBatches(10 * IMAGES, IMAGES, ONE)),
        check=lambda: None,
    )


def test_each_skip_is_told_with_its_batch(capsys):
    scores = epoch_of(step_of(network(), "--print-freq", "1"), poisoned(1), batch(2), poisoned(3))
    assert (scores.images, scores.skipped_steps) == (IMAGES, 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/1, batch 1: ")
    assert lines[1].startswith("epoch 1/1, batch 3: ")


def test_ten_skips_in_a_row_end_the_run(capsys):
    """Not ten in all; and not the ones that come before one that counts."""
    nine = [poisoned(seed) for seed in range(9)]
    scores = epoch_of(step_of(network()), *nine, batch(9), *nine)
    assert scores.skipped_steps == 18
    capsys.readouterr()
    with pytest.raises(UserError, match="10 steps in a row"):
        epoch_of(step_of(network()), batch(9), *nine, poisoned(9), batch(9))
    assert capsys.readouterr().out.count("skipped") == 10


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_gradient_that_no_scale_makes_finite_ends_the_run(on_nan):
    """The loss is finite, and the scaler of float16 leaves out each step."""
    step = step_of(network(RootOfSquare()), "--amp", "fp16", "--on-nan", on_nan)
    with pytest.raises(UserError, match=r"the gradient was not finite .* pass --amp bf16"):
        epoch_of(step, *(black_image() for _ in range(31)))


def test_steps_that_find_the_scale_do_not_end_the_run():
    step = step_of(network(), "--amp", "fp16")
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**40})
    scores = epoch_of(step, *(batch(seed) for seed in range(30)))
    assert (scores.images, scores.skipped_steps) == (30 * IMAGES, 0)
    assert step.scaler.get_scale() > 1


def test_stop_is_at_the_next_line_of_scores():
    def contents():
        yield from (batch(1), poisoned(2), batch(3))
        raise AssertionError("went on behind the line that was due")

    step = step_of(network(), "--on-nan", "stop", "--print-freq", "3")
    with pytest.raises(UserError, match="the loss is not finite"):
        train(step, Batches(contents()))


def test_epoch_without_a_step_that_counts_ends_the_run():
    with pytest.raises(UserError, match=r"no step .* all 3 were skipped"):
        epoch_of(step_of(network()), *(poisoned(seed) for seed in range(3)))


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_weights_that_overflow_in_the_last_step_end_the_run(on_nan):
    """The loss before them was finite, and there is no batch behind them."""
    model = network()
    nn.init.constant_(model[0].weight, 1e6)  # from where weight decay makes a long step
    step = step_of(model, "--on-nan", on_nan, "--lr", "1e38")
    with pytest.raises(UserError, match="the weights are not finite"):
        epoch_of(step, batch(1))


def standardised(image):
    """The image with a mean of 0 and a deviation of 1; nan where all pixels are the same."""
    pixels = transforms.functional.to_tensor(image)
    return (pixels - pixels.mean()) / pixels.std()


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Options of a run with batch normalisation of 16 images, whose recipe cannot take a blank."""
    monkeypatch.setattr("training.command.create_model", create_tiny_network)
    recipe = replace(
        RECIPES["digits"],
        train_transform=lambda recipe: standardised,
        val_transform=lambda recipe: standardised,
    )
    monkeypatch.setitem(RECIPES, "standardised", recipe)
    data = write_image_folder(tmp_path / "data", train=8, val=2)
    return (
        *("--data", data, "--config-name", "standardised", "--arch", "resnet18", "--workers", 0),
        *("--pool", "skip", "--batch-size", 4, "--epochs", 2, "--seed", 3, "--cpu"),
    )


def blank(tmp_path, split, number=1):
    path = tmp_path / "data" / split / "class1" / f"1_{number}.JPEG"
    assert path.exists()
    Image.fromarray(np.full((40, 48, 3), 255, np.uint8)).save(path)


def test_run_goes_on_without_the_batches_of_a_blank_image(tmp_path, command):
    blank(tmp_path, "train")
    out, resumed = tmp_path / "out", tmp_path / "resumed"
    printed = output_here(*command, "--on-nan", "skip", "--out-dir", out)
    lines = printed.splitlines()
    for epoch in (1, 2):
        assert sum(line.startswith(f"epoch {epoch}/2, batch ") for line in lines) == 1
        (line,) = (line for line in lines if line.startswith(f"epoch {epoch}/2: lr"))
        assert line.endswith(", skipped steps 1")
    assert [float(row["skipped_steps"]) for row in read_log(out)] == [1, 1]
    content = torch.load(out / "checkpoint-epoch2.pth.tar", weights_only=True)
    for name, tensor in content["state_dict"].items():
        assert tensor.isfinite().all(), name

    first = out / "checkpoint-epoch1.pth.tar"
    output_here(*command, "--on-nan", "skip", "--out-dir", resumed, "--resume", first)
    last = torch.load(resumed / "checkpoint-epoch2.pth.tar", weights_only=True)
    assert_same(last["state_dict"], content["state_dict"])
    assert [float(row["skipped_steps"]) for row in read_log(resumed)] == [1, 1]


def test_run_stops_at_a_blank_image_and_writes_nothing(tmp_path, command):
    blank(tmp_path, "train")
    message = error_here(*command, "--out-dir", tmp_path / "out")
    assert "epoch 1/2: the loss is not finite" in message
    assert not (tmp_path / "out").exists()


def test_skipping_stops_where_every_batch_has_a_blank_image(tmp_path, command):
    for number in range(8):
        blank(tmp_path, "train", number)
    options = ("--on-nan", "skip", "--out-dir", tmp_path / "out", "--batch-size", 12)
    assert "epoch 1/2: no step had a finite loss" in error_here(*command, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_validation_stops_at_a_blank_image(tmp_path, command, on_nan):
    blank(tmp_path, "val")
    message = error_here(*command, "--on-nan", on_nan, "--out-dir", tmp_path / "out")
    assert "epoch 1/2 validation: the loss is not finite" in message
    assert not (tmp_path / "out").exists()


def shares(rank, bad):
    """Three batches of one of two processes; the second is poisoned for rank 1, if ``bad``."""
    contents = [batch(10 * rank + number, processes=2) for number in range(3)]
    if bad is not None and rank == 1:
        contents[1] = poisoned(11, bad, processes=2)
    elif bad is None:
        del contents[1]
    return contents


def run_process(rank, folder):
    torch.set_num_threads(1)
    process = Process(rank, 2, torch.device("cpu"))
    results = {}
    with gloo_group(folder, rank, world_size=2):
        for accum_steps in ("1", "2"):
            for bad in (None, math.nan, 3e38):
                options = ("--accum-steps", accum_steps, "--ema", "0.75")
                step = step_of(LoudCorner(network()), *options, process=process)
                sums = ScoreSums(process.device)
                taken = [step(content, sums) for content in shares(rank, bad)]
                results[accum_steps, bad] = taken, state_of(step), sums.scores_of_all(process)
    torch.save(results, folder / f"{rank}.pt")


@pytest.mark.slow
def test_all_processes_skip_what_one_of_them_cannot_take(tmp_path):
    """Even a loss that is infinite for one while the gradient, which all share, is finite."""
    loud, sums = step_of(LoudCorner(network()), "--on-nan", "stop"), ScoreSums(ONE.device)
    loud(poisoned(11, 3e38), sums)
    assert sums.scores().loss == math.inf
    assert all(each.grad.isfinite().all() for each in loud.model.parameters())

    run_warm(run_process, (tmp_path,), 2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for accum_steps in ("1", "2"):
        for bad in (math.nan, 3e38):
            for result in results:
                taken, state, scores = find(result, accum_steps, bad)
                _, expected, scores_without = find(result, accum_steps, None)
                assert taken == [True, False, True]
                assert_same(state, expected)
                assert scores == replace(scores_without, skipped_steps=1)
            states = [find(result, accum_steps, bad)[1] for result in results]
            for name, _ in loud.model.named_parameters():
                assert torch.equal(*(state["weights"][name] for state in states)), name


def find(result, accum_steps, bad):
    """The entry of ``result``, whose nan is another object than ``bad``."""
    (found,) = (value for key, value in result.items() if repr(key) == repr((accum_steps, bad)))
    return found
