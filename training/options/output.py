"""What a run leaves, and where."""

from dataclasses import dataclass

from training.argument_types import positive_int, services
from training.options.option import option


@dataclass(frozen=True)
class OutputOptions:
    """See ``training.options.Options``."""

    out_dir: str = option(
        "output",
        "where the checkpoints go, and config.json, log.csv, lambdas.csv and the curves, or "
        "evaluation.json (default: %(default)s)",
        default="./",
        metavar="DIR",
    )
    pdf_filename: str = option(
        "output",
        "the curves, in --out-dir; a PNG file goes beside it (default: %(default)s)",
        default="train_epochs.pdf",
        metavar="NAME",
    )
    save_last_checkpoint: bool = option(
        "output", "keep only the newest checkpoint and model_best.pth.tar", default=False
    )
    keep_checkpoints: int | None = option(
        "output",
        "keep only the newest N checkpoints and model_best.pth.tar (default: all)",
        parse=positive_int,
    )
    tensorboard: bool = option(
        "output",
        "write the curves, λ and the loss within the epochs for TensorBoard as well, to "
        "tensorboard/ in --out-dir",
        default=False,
    )
    log: str | None = option(
        "output",
        "tell Weights & Biases (wandb) or MLflow (mlflow) of the run, or both (wandb,mlflow), "
        "through their own packages and as their environment variables say",
        metavar="SERVICE",
        parse=services,
    )
    print_freq: int = option(
        "output",
        "batches between two lines where there is no terminal for a progress bar, and between two "
        "records within an epoch of --tensorboard and --log (default: %(default)s)",
        default=100,
        short="p",
        parse=positive_int,
    )
