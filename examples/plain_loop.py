"""Guided pooling in a network of one's own, which a plain loop trains on handwritten digits.

Run it in the clone after ``pip install '.[cpu,train]'``; it takes a few seconds on a CPU.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from gfgp_cupy import GFGPMaxEntPool2d


def digit_network() -> nn.Module:
    """Images [N, 1, 8, 8] to logits [N, 10]."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        GFGPMaxEntPool2d(32, kernel_size=2),  # in nn.MaxPool2d(2)'s place: 8 × 8 to 4 × 4
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        GFGPMaxEntPool2d(64, kernel_size=2),  # 4 × 4 to 2 × 2
        *(nn.Flatten(), nn.Linear(64 * 2 * 2, 10)),
    )


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels, digits = load_digits(return_X_y=True)  # [N, 64] from 0 to 16, [N]
    images = torch.tensor(pixels / 16, dtype=torch.float32, device=device).view(-1, 1, 8, 8)
    labels = torch.tensor(digits, device=device)
    training, test = torch.randperm(len(images)).split(1440)

    net = digit_network().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for epoch in range(5):
        total = 0.0
        # Pieces of equal size, for the head's BatchNorm cannot learn from a last one of one image.
        for batch in training[torch.randperm(len(training))].chunk(20):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}: mean loss {total / len(training):.3f}")

    net.eval()
    with torch.no_grad():
        correct = (net(images[test]).argmax(1) == labels[test]).sum().item()
    print(f"{correct} of {len(test)} new digits are right")


if __name__ == "__main__":
    main()
