"""Which images a run learns from, and how they are read."""

from dataclasses import dataclass

from training.argument_types import natural_int, positive_float, positive_int
from training.options.option import option


@dataclass(frozen=True)
class DataOptions:
    """See ``training.options.Options``."""

    dataset: str = option(
        "data",
        "digits, fashion-mnist, imagenet; imagenet, and with --data any other name, is any folder "
        "of images, digits come with scikit-learn (default: imagenet if --data is given, "
        "otherwise digits)",
        metavar="NAME",
    )
    data: str = option(
        "data",
        "folder that holds train/CLASS/ and val/CLASS/ or val_dir/CLASS/ with images; or "
        "Fashion-MNIST's four IDX files, gzipped or not; or the WebDataset shards of the training "
        "images: paths, http addresses or pipe: commands such as shards/train-{0000..0156}.tar; or "
        "hf:FOLDER, of Hugging Face's datasets or Parquet files (default: "
        "./datasets/imagenet12/images/ or /usr/share/datasets/fashion-mnist/; digits have none)",
        metavar="DIR",
    )
    val_data: str | None = option(
        "data", "the shards of the validation images, where --data names shards", metavar="SHARDS"
    )
    num_classes: int | None = option(
        "data",
        "outputs of the network (default: the number of classes in the data)",
        parse=positive_int,
    )
    workers: int = option(
        "data",
        "processes that decode images, over all processes of this machine (default: the cores "
        "that the run may use, 12 at most; 0 for digits and fashion-mnist)",
        short="j",
        parse=natural_int,
        tells=False,
    )
    on_bad_image: str = option(
        "data",
        "skip: go on without images that cannot be read, as long as they are no more than 1%% of "
        "all, and list them in bad_images.txt in --out-dir; in training another image takes the "
        "place of each, an evaluation does not count them (default: %(default)s)",
        default="error",
        choices=("error", "skip"),
    )
    image_size: int | None = option(
        "data",
        "height and width of the network's input, in training and evaluation (default: the "
        "recipe's)",
        parse=positive_int,
        metavar="PIXELS",
        from_recipe=True,
    )
    val_size: int | None = option(
        "data",
        "resize validation images to this, the short side of photographs, before the central crop "
        "(default: --image-size over --crop-pct)",
        parse=positive_int,
        metavar="PIXELS",
        from_recipe=True,
    )
    crop_pct: float | None = option(
        "data",
        "or say which share of it the central crop is (default: the recipe's)",
        parse=positive_float,
        metavar="SHARE",
        from_recipe=True,
    )
    interpolation: str | None = option(
        "data",
        "of all resizing (default: the recipe's)",
        choices=("nearest", "bilinear", "bicubic"),
        from_recipe=True,
    )
    decode: str | None = option(
        "data",
        "full: whole JPEGs, resized by PIL, as published; fast: at a half, quarter or eighth of "
        "the resolution where a training crop is large, and resized by torchvision, for less time "
        "in the workers and slightly different pixels (default: the recipe's)",
        choices=("full", "fast"),
        from_recipe=True,
    )
