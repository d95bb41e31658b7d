"""Guided pooling in a network of one's own, which learns scikit-learn's handwritten digits.

Run it in the clone after ``pip install '.[cpu,train]'``; it takes a few seconds on a CPU.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gfgp_cupy import GFGPMaxEntPool2d


class DigitNet(nn.Module):
    """Images [N, 1, 8, 8] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            convolution(1, 32),
            GFGPMaxEntPool2d(32, kernel_size=2),  # in nn.MaxPool2d(2)'s place: 8 × 8 to 4 × 4
            convolution(32, 64),
            GFGPMaxEntPool2d(64, kernel_size=2),  # 4 × 4 to 2 × 2
        )
        self.classifier = nn.Linear(64 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


def convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    loss_of = nn.CrossEntropyLoss()
    net.train()
    for epoch in range(epochs):
        total = 0.0
        # Pieces of equal size, for the head's BatchNorm cannot learn from a last one of one image.
        for batch in torch.randperm(len(images)).chunk(20):
            loss = loss_of(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}: mean loss {total / len(images):.3f}")


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels, digits = load_digits(return_X_y=True)  # [N, 64] from 0 to 16, [N]
    images = torch.tensor(pixels / 16, dtype=torch.float32, device=device).view(-1, 1, 8, 8)
    labels = torch.tensor(digits, device=device)
    order = torch.randperm(len(images))
    training, test = order[:1440], order[1440:]

    net = DigitNet().to(device)
    train(net, images[training], labels[training], epochs=5)

    net.eval()
    with torch.no_grad():
        correct = (net(images[test]).argmax(1) == labels[test]).sum().item()
    print(f"{correct} of {len(test)} new digits are right")


if __name__ == "__main__":
    main()
