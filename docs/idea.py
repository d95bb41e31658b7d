"""Draws the README's picture: ``python docs/idea.py`` writes ``docs/idea.png``.

Above, a photograph pooled by the library at growing λ; below, where GFGP takes λ from. The
photograph is scikit-learn's sample ``china.jpg``, by danielbuechele on Flickr, under CC BY 2.0.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from sklearn.datasets import load_sample_image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package need not be installed

from gfgp_cupy.functional import max_ent_pool2d

KERNEL_SIZE = 8
TITLES = {0: "λ = 0: average", 5: "λ = 5", 20: "λ = 20", 1000: "λ = 1000: max"}

PLAIN, GUIDED = "#f2f2f2", "#fde8c8"  # what every pooling has, and what GFGP adds
LINES = "0.3"
ROUNDED = "round,pad=0,rounding_size=0.1"
WIDTH, HEIGHT = 1.75, 0.8  # of a box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    draw(parser.parse_args().out)


def draw(path: Path) -> None:
    """Writes the picture to ``path``, an image file of a format that matplotlib knows."""
    figure = plt.figure(figsize=(10, 4.3), layout="constrained")
    photographs, architecture = figure.subfigures(2, 1, height_ratios=(2, 2.3))
    photo = temple()
    for axes, (lam, title) in zip(
        photographs.subplots(1, len(TITLES)), TITLES.items(), strict=True
    ):
        draw_image(axes, max_ent_pool2d(photo, lam, KERNEL_SIZE), title)
    draw_architecture(architecture.subplots())
    figure.savefig(path, dpi=120)
    plt.close(figure)


def temple() -> Tensor:
    """The photograph without its margins: [3, H, W] from 0 to 1."""
    photo = torch.from_numpy(load_sample_image("china.jpg") / 255.0).float()
    return photo.permute(2, 0, 1)[:, 40:392, 48:592]


def draw_image(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0))
    axes.set_title(title)
    axes.axis("off")


def draw_architecture(axes: Axes) -> None:
    """The layer as a diagram: x goes straight to the pooling, and by way of its mean to λ."""
    axes.set(xlim=(0, 10.8), ylim=(0, 2.5), aspect="equal")
    axes.axis("off")
    top, bottom = 2.0, 0.5
    mean, first, second, activation, result = 1.0, 3.2, 5.4, 7.6, 9.8
    draw_box(axes, mean, bottom, "feature map x\nN × C × H × W", PLAIN)
    draw_box(axes, mean, top, "mean over H, W\nN × C", GUIDED)
    draw_box(axes, first, top, "W₁: C → C/2\nBatchNorm, ReLU", GUIDED)
    draw_box(axes, second, top, "W₂: C/2 → C\nBatchNorm", GUIDED)
    draw_box(axes, activation, top, "sigmoid\nor softplus", GUIDED)
    draw_box(axes, activation, bottom, "Max-Ent pooling\nof each window", PLAIN)
    draw_box(axes, result, bottom, "y\nN × C × oH × oW", PLAIN)
    draw_arrow(axes, (mean, bottom + HEIGHT / 2), (mean, top - HEIGHT / 2))
    for left, right in ((mean, first), (first, second), (second, activation)):
        draw_arrow(axes, (left + WIDTH / 2, top), (right - WIDTH / 2, top))
    draw_arrow(axes, (activation, top - HEIGHT / 2), (activation, bottom + HEIGHT / 2))
    for left, right in ((mean, activation), (activation, result)):
        draw_arrow(axes, (left + WIDTH / 2, bottom), (right - WIDTH / 2, bottom))
    axes.text(activation + 0.1, (top + bottom) / 2, "λ: N × C", va="center")


def draw_box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """A box with ``text`` around the point (x, y)."""
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    box = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=ROUNDED, facecolor=color, edgecolor=LINES)
    axes.add_patch(box)
    axes.text(x, y, text, ha="center", va="center")


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=14, shrinkA=2, shrinkB=2, color=LINES
    )
    axes.add_patch(arrow)


if __name__ == "__main__":
    main()
