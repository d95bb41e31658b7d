"""All networks of the survey, of the libraries that are installed."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec

from experiments.survey.network import Network

LIBRARIES: Mapping[str, str] = {
    "torchvision": "torchvision",
    "timm": "timm",
    "transformers": "transformers",
    "smp": "segmentation_models_pytorch",
    "ultralytics": "ultralytics",
    "monai": "monai",
}
"""The modules, by the names that the networks' titles begin with."""


def networks_of(libraries: Mapping[str, str]) -> Iterator[Network]:
    """Yield the networks of those of ``libraries`` that are installed."""
    for name, module in libraries.items():
        if find_spec(module) is not None:
            yield from import_module(f"experiments.survey.{name}_networks").networks()
