"""What the convolutions of the published networks start from."""

from typing import Any

from torch import nn


def reset_convolutions(network: nn.Module, **kaiming: Any) -> None:
    """Draw the weights of every convolution anew, the GFGP heads' included.

    Args:
        network: its modules in their order take the random numbers.
        kaiming: as for ``torch.nn.init.kaiming_normal_``; fan in and leaky ReLU without.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, **kaiming)
