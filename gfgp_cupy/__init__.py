"""Global-feature-guided maximum-entropy pooling for PyTorch, without a build step."""

from . import functional
from .backends import backend_report, use_backend
from .layers import GFGPMaxEntPool2d, MaxEntPool2d, MaxEntPoolingCuda2d
from .record import record_lambdas
from .surgery import replace_pooling

__all__ = [
    "GFGPMaxEntPool2d",
    "MaxEntPool2d",
    "MaxEntPoolingCuda2d",
    "backend_report",
    "functional",
    "record_lambdas",
    "replace_pooling",
    "use_backend",
]
