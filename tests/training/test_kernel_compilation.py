"""The trainer compiles a run's kernels before its first step."""

import re

import pytest
import torch
from PIL import Image
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d, SoftPool2d
from tests.support.command_line import output_here
from tests.support.implementations import needs_cuda
from tests.support.recorded_launches import recorded_launches
from tests.support.tiny_network import SMALL_DIGITS
from train_imagenet import parse_settings
from training.kernel_compilation import compile_kernels_of_run, image_shapes
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import training_images, validation_images
from training.processes.ranks import Process
from training.recipes import RECIPES
from training.records.metrics import ScoreSums
from training.run import Run
from training.step import make_training_step

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class GreyImages:
    """Images of one grey, each of a size of its own."""

    shard_sizes = None

    def __init__(self, count):
        self.count = count

    def image(self, index):
        return Image.new("RGB", (40 + index, 50))

    def name(self, index):
        return str(index)

    def target(self, index):
        return 0

    def __len__(self):
        return self.count


def loader(count, size, recipe="digits", rank=0, world_size=1, images=training_images):
    process = Process(rank, world_size, CPU)
    batches = GlobalBatches(count, size, process)
    return BatchLoader(images(GreyImages(count), RECIPES[recipe], 0), batches, 0, process, seed=0)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("images", [training_images, validation_images])
@pytest.mark.parametrize(
    ("count", "size", "rank", "world_size", "parts"),
    [(6, 3, 0, 1, 1), (7, 5, 0, 1, 3), (11, 8, 1, 2, 2), (5, 4, 1, 2, 1)],
)
def test_shapes_are_those_of_the_batches(count, size, rank, world_size, parts, recipe, images):
    batches = loader(count, size, recipe, rank, world_size, images)
    state = torch.get_rng_state()
    shapes = image_shapes(batches, parts)
    assert torch.equal(torch.get_rng_state(), state)
    seen = [tuple(part.shape) for batch in batches for part in batch.images.tensor_split(parts)]
    assert len(shapes) == len(set(shapes))
    assert set(shapes) == {shape for shape in seen if shape[0] > 0}


def test_steps_and_evaluation_launch_what_was_compiled():
    model = nn.Sequential(
        SoftPool2d(2),
        nn.Conv2d(3, 3, 3, stride=2),
        GFGPMaxEntPool2d(3, 3, 2, 1),
        nn.Flatten(),
        nn.Linear(48, 5),
    )
    options = ["--config-name", "digits", "--accum-steps", "2", "--channels-last"]
    settings = parse_settings(options)
    with recorded_launches() as recorded:
        model = model.to(memory_format=settings.memory_format)
        train, val = loader(10, 6), loader(5, 4)
        compile_kernels_of_run(model, Run(settings, Process(0, 1, CUDA), seed=0), train, val)
        assert not recorded.launched
        step = make_training_step(model, None, Run(settings, Process(0, 1, CPU), seed=0))
        for batch in train:
            step(batch, ScoreSums(CPU))
        in_training = set(recorded.launched)
        with torch.no_grad():
            for batch in val:
                step.forward(model.eval(), batch.images)
    assert in_training < recorded.launched == recorded.compiled


def test_the_line_that_says_so(capsys):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), GFGPMaxEntPool2d(3, 2))
    of_run = loader(4, 2), loader(4, 2)
    for device, rank, options in [
        (CPU, 0, []),
        (CUDA, 1, []),
        (CUDA, 0, ["--compile"]),
        (CUDA, 0, []),
    ]:
        assert not capsys.readouterr().out
        with recorded_launches():
            run = Run(parse_settings(options), Process(rank, 2, device), seed=0)
            compile_kernels_of_run(model, run, *of_run)
    line = r"compiled \d+ GPU programs in \d+\.\d s for evaluation, \d+ .* for training\n"
    assert re.fullmatch(line, capsys.readouterr().out)


@needs_cuda
def test_a_run_on_a_gpu_says_so(tmp_path):
    options = [option for option in SMALL_DIGITS if option != "--cpu"]
    options[options.index("skip")] = "max_ent"
    output = output_here(*options, "--epochs", 1, "--out-dir", tmp_path)
    assert re.search(r"compiled \d+ GPU programs in .* for training", output)
