"""A torchvision network with guided pooling in its max pooling's place, fine-tuned on new classes.

Run it in the clone after ``pip install '.[cpu,train]'``; it takes a few seconds on a CPU. It starts
from fresh weights, so that it needs no download; ``weights="DEFAULT"`` starts from ImageNet's.
"""

import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gfgp_cupy import replace_pooling

SIZE = 32
STEPS = 11
BATCH_SIZE = 32


def load_images() -> tuple[Tensor, Tensor]:
    """Some images [N, 3, SIZE, SIZE] and their classes [N], in place of a data set of one's own."""
    pixels, digits = load_digits(return_X_y=True)  # [N, 64] from 0 to 16, [N]
    images = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8)
    images = nn.functional.interpolate(images, size=SIZE, mode="bilinear")
    return images.expand(-1, 3, -1, -1), torch.tensor(digits)


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = load_images()

    # Weights first, poolings second, the optimizer last.
    net = torchvision.models.resnet18(weights=None)  # weights="DEFAULT": trained on ImageNet
    print(replace_pooling(net, sample_shape=(2, 3, SIZE, SIZE)))
    net.fc = nn.Linear(net.fc.in_features, 10)
    net.to(device).train()

    # What is new learns faster than what was there.
    is_new = ("maxpool.", "fc.")
    new = [tensor for name, tensor in net.named_parameters() if name.startswith(is_new)]
    old = [tensor for name, tensor in net.named_parameters() if not name.startswith(is_new)]
    optimizer = torch.optim.AdamW([{"params": old, "lr": 5e-4}, {"params": new, "lr": 5e-3}])
    loss_of = nn.CrossEntropyLoss()
    for step in range(STEPS):
        batch = torch.randint(len(images), (BATCH_SIZE,))
        loss = loss_of(net(images[batch].to(device)), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
