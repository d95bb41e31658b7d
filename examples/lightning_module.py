"""Guided pooling in a network that Lightning trains, on scikit-learn's handwritten digits.

Run it in the clone after ``pip install '.[cpu,train]' lightning``; it takes a few seconds on a CPU.
"""

import lightning  # pyright: ignore[reportMissingImports]
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from gfgp_cupy import GFGPMaxEntPool2d


class DigitClassifier(lightning.LightningModule):
    """Images [N, 1, 8, 8] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            GFGPMaxEntPool2d(32, kernel_size=2),  # in nn.MaxPool2d(2)'s place: 8 × 8 to 4 × 4
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
            GFGPMaxEntPool2d(64, kernel_size=2),  # 4 × 4 to 2 × 2
            *(nn.Flatten(), nn.Linear(64 * 2 * 2, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("right", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    lightning.seed_everything(0)
    pixels, digits = load_digits(return_X_y=True)  # [N, 64] from 0 to 16, [N]
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    training, test = random_split(TensorDataset(images, torch.tensor(digits)), [1440, 357])

    trainer = lightning.Trainer(max_epochs=5, logger=False, enable_checkpointing=False)
    # Whole batches alone, for the head's BatchNorm cannot learn from a last one of one image.
    trainer.fit(DigitClassifier(), DataLoader(training, 72, shuffle=True, drop_last=True))
    trainer.test(trainer.lightning_module, DataLoader(test, 357))


if __name__ == "__main__":
    main()
