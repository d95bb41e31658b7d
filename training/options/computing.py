"""How a step is computed."""

from dataclasses import dataclass

from training.argument_types import positive_int
from training.options.option import option


@dataclass(frozen=True)
class ComputingOptions:
    """See ``training.options.Options``."""

    amp: str = option(
        "computing",
        "compute in bfloat16 or float16 where that is safe (default: %(default)s)",
        default="off",
        choices=("off", "bf16", "fp16"),
    )
    channels_last: bool = option("computing", "keep channels innermost in memory", default=False)
    compile: bool = option("computing", "compile the network (torch.compile)", default=False)
    accum_steps: int = option(
        "computing",
        "pass each process's share of a batch through the network in N parts, which takes less "
        "memory; --batch-size stays the images a step, and an epoch's last batch is left out where "
        "it has fewer than 2 images a part (default: %(default)s)",
        default=1,
        parse=positive_int,
    )
    sync_bn: bool = option(
        "computing",
        "normalise by the statistics of all processes' images (GPUs only)",
        default=False,
    )
    on_nan: str = option(
        "computing",
        "where the loss or the gradient is nan or infinite: stop (seen at the next line of "
        "scores, before any checkpoint), or skip the step, which leaves weights and running "
        "statistics as they were, and stop after 10 in a row or an epoch with no other; skip "
        "waits for the device at each step (default: %(default)s)",
        default="stop",
        choices=("stop", "skip"),
    )
