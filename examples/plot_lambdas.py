"""What guided layers choose: λ of each image and channel, recorded and drawn.

Run it in the clone after ``pip install '.[cpu,train]'``, with the name of the picture to write; it
takes a few seconds on a CPU.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gfgp_cupy import GFGPMaxEntPool2d, record_lambdas


def trained_network(images: Tensor, labels: Tensor) -> nn.Module:
    """A small network of two guided layers after some steps, each over all of the images."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        GFGPMaxEntPool2d(16, kernel_size=2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        GFGPMaxEntPool2d(32, kernel_size=2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def draw(lambdas: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """λ [N, C] of each layer: left, all of them; right, the channels' means for each digit."""
    figure = Figure(figsize=(9, 2.5 * len(lambdas)), layout="constrained")
    rows = figure.subplots(len(lambdas), 2, squeeze=False, sharex="col", width_ratios=(1, 2))
    for (histogram, by_digit), (layer, lam) in zip(rows, lambdas.items(), strict=True):
        histogram.hist(lam.flatten().numpy(), bins=40, range=(0, 1))
        histogram.set(title=f"layer {layer}", ylabel="images × channels")
        means = torch.stack([lam[labels == digit].mean(0) for digit in range(10)])
        # Each column, a channel, from 0 to 1, so that layers of any width lie below each other.
        picture = by_digit.imshow(
            means.numpy(), aspect="auto", vmin=0, vmax=1, extent=(0, 1, 9.5, -0.5)
        )
        by_digit.set(title=f"layer {layer}: mean λ", yticks=range(10), xticks=[], ylabel="digit")
        figure.colorbar(picture, ax=by_digit, label="λ")
    rows[-1][0].set_xlabel("λ")
    rows[-1][1].set_xlabel("channels")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the λ that guided layers choose.")
    parser.add_argument("picture", type=Path, metavar="OUT.png", help="the picture to write")
    path = parser.parse_args().picture

    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)  # [N, 64] from 0 to 16, [N]
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(digits)
    net = trained_network(images[:1000], labels[:1000])

    net.eval()
    with torch.no_grad(), record_lambdas(net) as lambdas:
        net(images[1000:])
    for layer, lam in lambdas.items():
        print(f"layer {layer}: λ {list(lam.shape)} from {lam.min():.2f} to {lam.max():.2f}")
    draw(dict(lambdas), labels[1000:], path)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
