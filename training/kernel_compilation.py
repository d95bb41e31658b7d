"""The GPU kernels of a run, compiled before its first step."""

import torch
from PIL import Image
from torch import nn

from gfgp_cupy import compile_kernels
from training.loading.batches import BatchLoader
from training.loading.samples import TransformedImages
from training.run import Run


def compile_kernels_of_run(
    model: nn.Module,
    run: Run,
    train_batches: BatchLoader | None,
    val_batches: BatchLoader,
) -> None:
    """Compile what training (None: there is none) and evaluation of ``model`` need, on a GPU.

    Not with ``--compile``: compiled layers call kernels that only the compiler knows.
    """
    settings, process = run.settings, run.process
    if process.device.type != "cuda" or settings.compile:
        return
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    passes = {"evaluation": image_shapes(val_batches)}
    if train_batches is not None:
        passes["training"] = image_shapes(train_batches, settings.accum_steps)
    done = []
    with settings.forward.autocast(process.device):
        for title, shapes in passes.items():
            if shapes:
                result = compile_kernels(
                    model, *shapes, memory_format=memory_format, training=title == "training"
                )
                done += [f"{result} for {title}"] if result.programs else []
    if process.is_main and done:
        print(f"compiled {', '.join(done)}", flush=True)


def image_shapes(batches: BatchLoader, parts: int = 1) -> list[tuple[int, ...]]:
    """Return the shapes of the images that this process's network is given, each once.

    It takes the process's share of a batch in ``parts`` parts; some may be empty.
    """
    rank, world_size = batches.process.rank, batches.process.world_size
    shares = {len(range(rank, size, world_size)) for size in batches.sampler.global_sizes}
    sizes = {size for share in shares for size in (share // parts, -(-share // parts))}
    shape = _image_shape(batches.loader.dataset)
    return [(size, *shape) for size in sorted(sizes - {0}, reverse=True)]


def _image_shape(images: TransformedImages) -> torch.Size:
    """[3, H, W], which a recipe makes of an image of any size."""
    with torch.random.fork_rng(devices=[]):
        return images.transform(Image.new("RGB", (256, 256))).shape
