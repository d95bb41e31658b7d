"""The other poolings of the literature, one file each, and the factory of all by name."""

from ..guided import GuidedPool2d
from .adaptive import (
    AdaptiveGeneralizedMeanPool2d,
    GFGPAdaptiveGeneralizedMeanPool2d,
    GFGPGlobalGeneralizedMeanPool2d,
    GlobalGeneralizedMeanPool2d,
    adaptive_generalized_mean_pool2d,
)
from .gated import GatedPool2d, GFGPGatedPool2d, gated_pool2d
from .gaussian import GaussianPool2d, GFGPGaussianPool2d, gaussian_pool2d
from .generalized_mean import (
    GeneralizedMeanPool2d,
    GFGPGeneralizedMeanPool2d,
    generalized_mean_pool2d,
)
from .log_sum_exp import GFGPLogSumExpPool2d, LogSumExpPool2d, log_sum_exp_pool2d
from .mixed import GFGPMixedPool2d, MixedPool2d, mixed_pool2d
from .registry import create_pooling, list_poolings
from .soft import SoftPool2d, soft_pool2d

__all__ = [
    "AdaptiveGeneralizedMeanPool2d",
    "GFGPAdaptiveGeneralizedMeanPool2d",
    "GFGPGatedPool2d",
    "GFGPGaussianPool2d",
    "GFGPGeneralizedMeanPool2d",
    "GFGPGlobalGeneralizedMeanPool2d",
    "GFGPLogSumExpPool2d",
    "GFGPMixedPool2d",
    "GatedPool2d",
    "GaussianPool2d",
    "GeneralizedMeanPool2d",
    "GlobalGeneralizedMeanPool2d",
    "GuidedPool2d",
    "LogSumExpPool2d",
    "MixedPool2d",
    "SoftPool2d",
    "adaptive_generalized_mean_pool2d",
    "create_pooling",
    "gated_pool2d",
    "gaussian_pool2d",
    "generalized_mean_pool2d",
    "list_poolings",
    "log_sum_exp_pool2d",
    "mixed_pool2d",
    "soft_pool2d",
]
