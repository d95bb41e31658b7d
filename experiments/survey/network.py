"""What the survey knows of a network before it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

IMAGES = (2, 3, 224, 224)


def call_with_images(model: nn.Module, images: Tensor) -> Any:
    """Call a network of one argument."""
    return model(images)


@dataclass(frozen=True)
class Network:
    """A network of some library, without pre-trained weights.

    Attributes:
        library: distribution and module, such as ``"timm"``.
        name: in the library.
        build: makes it anew.
        group: of the table; the library, or a part of it.
        sample_shape: of the images that it is given.
        call: runs it, in training and in evaluation mode; what it returns in evaluation mode is of
            the same sizes each time.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    group: str
    sample_shape: tuple[int, ...] = IMAGES
    call: Callable[[nn.Module, Tensor], Any] = call_with_images

    @property
    def title(self) -> str:
        """Its name in the results: ``timm:resnet50``."""
        return f"{self.library}:{self.name}"
