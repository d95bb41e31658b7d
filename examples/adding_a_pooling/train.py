"""Trains a small network on handwritten digits, in which the new pooling is: a few seconds."""

import torch
import torch.nn.functional as F
from mean_variance import GFGPMeanVariancePool2d
from sklearn.datasets import load_digits
from torch import nn

from gfgp_cupy import replace_pooling

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip
print(replace_pooling(network, GFGPMeanVariancePool2d, sample_shape=(2, 1, 8, 8)))

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
targets = torch.tensor(labels)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
for step in range(40):
    batch = torch.randint(len(images), (64,))
    loss = F.cross_entropy(network(images[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 13 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
