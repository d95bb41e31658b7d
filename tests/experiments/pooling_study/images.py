"""Images for the tests of the study."""

import torch

from experiments.pooling_study.tasks import Images


def random_images(count, size=16, margin=2):
    """Images of classes 0 to 9 in turn, each lighter than the last."""
    targets = torch.arange(count) % 10
    pixels = torch.randint(0, 40, (count, 1, size + 2 * margin, size + 2 * margin))
    return Images((pixels + 20 * targets[:, None, None, None]).byte(), targets, margin)
