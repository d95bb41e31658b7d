"""Global-feature-guided maximum-entropy pooling for PyTorch, without a build step."""

from . import functional, poolings
from .adaptive import (
    AdaptiveMaxEntPool2d,
    GFGPAdaptiveMaxEntPool2d,
    GFGPGlobalMaxEntPool2d,
    GlobalMaxEntPool2d,
)
from .backends import backend_report, use_backend
from .compilation import compile_kernels
from .layers import GFGPMaxEntPool2d, MaxEntPool2d
from .poolings import (
    AdaptiveGeneralizedMeanPool2d,
    GatedPool2d,
    GaussianPool2d,
    GeneralizedMeanPool2d,
    GFGPAdaptiveGeneralizedMeanPool2d,
    GFGPGatedPool2d,
    GFGPGaussianPool2d,
    GFGPGeneralizedMeanPool2d,
    GFGPGlobalGeneralizedMeanPool2d,
    GFGPLogSumExpPool2d,
    GFGPMixedPool2d,
    GlobalGeneralizedMeanPool2d,
    LogSumExpPool2d,
    MixedPool2d,
    SoftPool2d,
)
from .published import GaussianPooling2d, GaussianPoolingCuda2d, MaxEntPoolingCuda2d
from .record import record_lambdas, record_parameters
from .surgery import replace_pooling

__all__ = [
    "AdaptiveGeneralizedMeanPool2d",
    "AdaptiveMaxEntPool2d",
    "GFGPAdaptiveGeneralizedMeanPool2d",
    "GFGPAdaptiveMaxEntPool2d",
    "GFGPGatedPool2d",
    "GFGPGaussianPool2d",
    "GFGPGeneralizedMeanPool2d",
    "GFGPGlobalGeneralizedMeanPool2d",
    "GFGPGlobalMaxEntPool2d",
    "GFGPLogSumExpPool2d",
    "GFGPMaxEntPool2d",
    "GFGPMixedPool2d",
    "GatedPool2d",
    "GaussianPool2d",
    "GaussianPooling2d",
    "GaussianPoolingCuda2d",
    "GeneralizedMeanPool2d",
    "GlobalGeneralizedMeanPool2d",
    "GlobalMaxEntPool2d",
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
