"""Out of memory: one line that names what was tried, and nothing overwritten."""

import errno
import resource
import sys
import weakref

import pytest
import torch

import train_imagenet
import training.command
from tests.support.command_line import checked_error, error_here, free_dist_url, output_here
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import create_tiny_network
from tests.support.warm_python import exit_code, start_warm
from train_imagenet import parse_settings
from training.command import out_of_memory_line
from training.errors import UserError
from training.processes.out_of_memory import is_out_of_memory, out_of_memory_in_one_line
from training.processes.ranks import Process

SMALL = (
    *("--dataset", "digits", "--arch", "resnet18", "--pool", "skip", "--cpu", "--seed", 0),
    *("--epochs", 1, "--limit-train-batches", 2, "--limit-val-batches", 1),
)
MORE_THAN_THERE_IS = 2**50
ROOM = 2**31
CPU = torch.device("cpu")

needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")


@pytest.fixture(scope="module")
def large_images(tmp_path_factory):
    """Return the options of a run whose step takes 900 images of 224x224 pixels.

    The first layer's output, 1.4 GB for 450 of them, is more than is left of ``ROOM``, which has
    1 GB for all that comes before: what cannot be had is a tensor. Where small pieces are the
    first not to fit, any library may be the one that fails, in words of its own.
    """
    data = write_image_folder(tmp_path_factory.mktemp("data"), train=450, val=1, size=8)
    return ("--data", data, "--arch", "resnet18", "--pool", "skip", "--cpu", "--batch-size", 900)


def command_with_little_memory(options):
    """Be the command with ``ROOM`` beyond the address space that the imports take.

    So have the processes that it starts, as of a shell's ``ulimit -v``.
    """
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    return train_imagenet.main(options)


def error_with_little_memory(tmp_path, *options):
    """Run the command with ``ROOM``; it must refuse. Return the one line of its error."""
    options = [*map(str, options), "--out-dir", str(tmp_path / "out")]
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    code = exit_code(start_warm(command_with_little_memory, options, stdout=out, stderr=err))
    assert not list((tmp_path / "out").glob("*"))
    return checked_error(code, err.read_text())


@needs_limits
@pytest.mark.slow
def test_batch_that_does_not_fit_is_named(tmp_path, large_images):
    message = error_with_little_memory(tmp_path, *large_images, "--accum-steps", 2)
    assert "out of memory on cpu with batches of 900 images in each process" in message
    assert "--batch-size 900, --accum-steps 2, --amp off" in message
    for way_out in ("lower --batch-size", "raise --accum-steps", "--amp bf16"):
        assert way_out in message


@needs_limits
@pytest.mark.slow
def test_batch_that_does_not_fit_two_processes(tmp_path, large_images):
    message = error_with_little_memory(
        tmp_path,
        *("--multiprocessing-distributed", "--nproc", 2, "--dist-url", free_dist_url()),
        *(*large_images, "--dist-backend", "gloo"),
    )
    assert "with batches of 450 images in each process (--batch-size 900" in message


def hungry_models(in_training):
    """Return ``create_model`` whose networks want more memory than there is, in one mode."""

    def want(module, inputs):
        if module.training == in_training:
            torch.empty(MORE_THAN_THERE_IS)

    def create(*args):
        model = create_tiny_network(*args)
        model.register_forward_pre_hook(want)
        return model

    return create


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("in_training", [True, False], ids=["training", "validation"])
def test_run_that_goes_on_leaves_every_file_as_it_was(tmp_path, monkeypatch, in_training):
    options = (*SMALL, "--batch-size", 8, "--amp", "bf16", "--out-dir", tmp_path)
    monkeypatch.setattr(training.command, "create_model", create_tiny_network)
    output_here(*options)
    before = contents(tmp_path)
    monkeypatch.setattr(training.command, "create_model", hungry_models(in_training))
    resume = ("--resume", tmp_path / "checkpoint-epoch1.pth.tar")
    message = error_here(*options, *resume, "--epochs", 2)
    assert "out of memory on cpu with batches of 8 images in each process" in message
    assert "raise --accum-steps" in message and "pass --amp" not in message
    assert contents(tmp_path) == before

    if not in_training:
        message = error_here(*options, *resume, "--evaluate")
        assert "with batches of 8 images" in message
        assert "--accum-steps" not in message


def test_what_says_that_memory_is_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(MORE_THAN_THERE_IS)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    unsupported = "could not create a primitive descriptor for a convolution forward propagation"
    assert not is_out_of_memory(RuntimeError(unsupported))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_the_failed_pass_held_is_let_go():
    """Before anything is said of it."""
    held = []

    @out_of_memory_in_one_line(out_of_memory_line)
    def work(settings, process):
        activations = torch.ones(1)
        held.append(weakref.ref(activations))
        torch.empty(MORE_THAN_THERE_IS)

    with pytest.raises(UserError, match="out of memory on cpu") as caught:
        work(parse_settings(["--cpu"]), Process(0, 1, CPU))
    assert caught.value.__cause__ is not None
    assert held[0]() is None


@pytest.mark.parametrize("error", [RuntimeError("Invalid device id"), UserError("--lr")])
def test_other_errors_stay_as_they_are(error):
    @out_of_memory_in_one_line(lambda: "out of memory")
    def work():
        raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error
