"""A network so small that a test can afford many runs, with all that an exact resume must keep."""

from torch import Tensor, nn

SMALL_DIGITS = (
    *("--dataset", "digits", "--arch", "resnet18", "--pool", "skip", "--cpu"),
    *("--batch-size", 16, "--limit-train-batches", 3, "--limit-val-batches", 2),
)
"""Options of a run on the digits: 3 batches of training and 2 of validation an epoch."""


class TinyNetwork(nn.Module):
    """Running statistics, and random numbers drawn in each step."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(4, classes)

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.norm(self.conv(input)).relu().mean(dim=(2, 3))
        return self.fc(self.dropout(hidden))


def create_tiny_network(arch: str, pool: str, classes: int) -> nn.Module:
    """Take the place of ``models.create_model``."""
    return TinyNetwork(classes)
