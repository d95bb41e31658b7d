"""Batches whose images are mixed with each other, and their targets likewise."""

import torch
from torch import Tensor
from torchvision.transforms import v2


class Mixing:
    """torchvision's ``MixUp`` or ``CutMix``, which is drawn for each batch where there are both.

    H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz, "mixup: Beyond Empirical Risk
    Minimization", 2018; S. Yun et al., "CutMix: Regularization Strategy to Train Strong
    Classifiers with Localizable Features", 2019.

    Args:
        mixup, cutmix: α of the Beta distribution of the weights, 0 for none; not both of them.
        classes: number of outputs of the network.

    Example:
        >>> mixing = Mixing(mixup=0.2, cutmix=0.0, classes=10)
        >>> images, targets, soft = mixing(torch.rand(4, 3, 8, 8), torch.arange(4), seed=0)
        >>> soft.shape, soft.sum(1)
        (torch.Size([4, 10]), tensor([1., 1., 1., 1.]))
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self.steps = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]

    def __call__(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``images`` [N, 3, H, W] mixed, and of each the class index with the largest share
        [N] and the shares of all classes [N, classes].

        They are shuffled: torchvision mixes neighbours, which ``--repeated-augmentation`` makes
        the same. PyTorch's generator is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            order = torch.randperm(len(targets)).to(targets.device)
            step = self.steps[int(torch.randint(len(self.steps), ()))]
            mixed, soft_targets = step(images[order], targets[order])
        return mixed, soft_targets.argmax(dim=1), soft_targets
