"""Global-feature-guided maximum-entropy pooling for PyTorch, without a build step."""

from . import functional, poolings
from .backends import backend_report, use_backend
from .compilation import compile_kernels
from .layers import GFGPMaxEntPool2d, MaxEntPool2d
from .poolings import (
    GatedPool2d,
    GaussianPool2d,
    GeneralizedMeanPool2d,
    GFGPGatedPool2d,
    GFGPGaussianPool2d,
    GFGPGeneralizedMeanPool2d,
    GFGPLogSumExpPool2d,
    GFGPMixedPool2d,
    LogSumExpPool2d,
    MixedPool2d,
    SoftPool2d,
)
from .published import GaussianPooling2d, GaussianPoolingCuda2d, MaxEntPoolingCuda2d
from .record import record_lambdas, record_parameters
from .surgery import replace_pooling

__all__ = [
    "GFGPGatedPool2d",
    "GFGPGaussianPool2d",
    "GFGPGeneralizedMeanPool2d",
    "GFGPLogSumExpPool2d",
    "GFGPMaxEntPool2d",
    "GFGPMixedPool2d",
    "GatedPool2d",
    "GaussianPool2d",
    "GaussianPooling2d",
    "GaussianPoolingCuda2d",
    "GeneralizedMeanPool2d",
    "LogSumExpPool2d",
    "MaxEntPool2d",
    "MaxEntPoolingCuda2d",
    "MixedPool2d",
    "SoftPool2d",
    "backend_report",
    "compile_kernels",
    "functional",
    "poolings",
    "record_lambdas",
    "record_parameters",
    "replace_pooling",
    "use_backend",
]

__version__ = "0.2.0"
