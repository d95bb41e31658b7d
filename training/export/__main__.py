"""Files for others to use a checkpoint's network: ``python -m training.export --help``."""

import argparse
import sys
from collections.abc import Sequence

from training.argument_types import positive_int
from training.errors import exit_code

FORMATS = ("published", "onnx", "pt2", "safetensors", "hub")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""
    options = make_parser().parse_args(argv)

    def work() -> None:
        # Not at the top: `--help` waits for no PyTorch.
        from training.export.command import export

        print(export(options.checkpoint, options.out, options.format,
                     pool=options.pool, image_size=options.image_size))  # fmt: skip

    return exit_code("training.export", work)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Writes the network of a checkpoint, ours or a published one, for others to "
        "use, and checks what it has written. The names of the classes, the images' size and "
        "their normalisation travel along: docs/deployment.md.",
    )
    parser.add_argument("checkpoint", help="a checkpoint of train_imagenet.py or the published one")
    parser.add_argument("out", help="the file to write, hub's folder; what is there is replaced")
    parser.add_argument(
        "--format", required=True, choices=FORMATS,
        help="a checkpoint that the published code loads, an ONNX model, an archive of "
        "torch.export, the tensors by their names, or a folder for the Hugging Face Hub",
    )  # fmt: skip
    parser.add_argument(
        "--image-size", type=positive_int, metavar="N",
        help="height and width of the images in pixels (default: those of the recipe)",
    )  # fmt: skip
    parser.add_argument(
        "--pool", help="the pooling, for a published checkpoint that does not say it"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
