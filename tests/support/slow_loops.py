"""Max-Ent pooling and its gradients, the formulas written as loops over windows in float64.

Every implementation is compared with these. Beside each exact value stands the scale of the
rounding errors that computing it in floating point makes, so that comparisons need no guessed
tolerances; see :func:`tests.support.rounding.assert_rounding_only`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gfgp_cupy.geometry import PoolGeometry

__all__ = ["Exact", "max_ent_pool2d", "max_ent_pool2d_gradients", "output_size", "spread"]

SINGLE = 2.0**-24  # unit roundoff of float32


@dataclass(frozen=True)
class Exact:
    """A float64 result, and what the rounding errors of computing it are proportional to.

    With unit roundoff u and q = 1 + |λ| (max x − min x) of a window:

    - a weight p has a relative error of order q u, since its exponent has a size up to q;
    - y moves by that times the window's range, and by u max|x|;
    - p (1 + λ (x − y)) moves by p's error and by λ times y's;
    - v moves by p's error; y's own error e enters as e², for Σ p (x − y) = 0;
    - √v moves by half of v's relative error, and near zero by e.
    """

    value: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Window:
    """One window of every plane: where it is, and [N, C, h, w] arrays of what is in it."""

    at: tuple[int, int]
    rows: slice
    columns: slice
    x: np.ndarray
    lam: np.ndarray  # [N, C, 1, 1], like y and the two below
    p: np.ndarray
    y: np.ndarray
    range: np.ndarray
    largest: np.ndarray

    @property
    def exponent(self) -> np.ndarray:
        return 1 + abs(self.lam) * self.range

    @property
    def v(self) -> np.ndarray:
        return (self.p * (self.x - self.y) ** 2).sum(axis=(2, 3), keepdims=True)


def output_size(geometry: PoolGeometry, *sizes: int) -> tuple[int, ...]:
    """What ``torch.nn.functional.max_pool2d``, or ``max_pool3d``, makes of a plane or a volume."""
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(sizes)]
    full = torch.empty(1, 1, *sizes, device="meta")
    return tuple(pool(full, *geometry[:3], ceil_mode=geometry.ceil_mode).shape[2:])


def max_ent_pool2d(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Exact:
    """y of [N, C, H, W] ``input`` and any ``lam`` that broadcasts to the output."""
    size = output_size(geometry, *input.shape[2:])
    value, scale = np.zeros((2, *input.shape[:2], *size))
    for window in _windows(input, lam, geometry):
        at = (..., *window.at)
        value[at] = window.y[..., 0, 0]
        scale[at] = (window.largest + window.exponent * window.range)[..., 0, 0]
    return Exact(torch.from_numpy(value), torch.from_numpy(scale))


def spread(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Exact:
    """√v, the standard deviation of each window."""
    size = output_size(geometry, *input.shape[2:])
    value, scale = np.zeros((2, *input.shape[:2], *size))
    for window in _windows(input, lam, geometry):
        at = (..., *window.at)
        value[at] = np.sqrt(window.v)[..., 0, 0]
        scale[at] = (np.sqrt(window.v) * window.exponent + window.largest)[..., 0, 0]
    return Exact(torch.from_numpy(value), torch.from_numpy(scale))


def max_ent_pool2d_gradients(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> tuple[Exact, Exact]:
    """The gradients of ``input`` and of ``lam`` (in its own shape)."""
    grads = _array(grad_output)
    dx, dx_scale = np.zeros((2, *input.shape))
    dlam, dlam_scale = np.zeros((2, *grads.shape))
    for window in _windows(input, lam, geometry):
        at = (..., *window.at)
        g = grads[at][..., None, None]
        p, deviation = window.p, window.x - window.y
        dx[:, :, window.rows, window.columns] += g * p * (1 + window.lam * deviation)
        dx_scale[:, :, window.rows, window.columns] += (
            abs(g)
            * p
            * (
                (1 + abs(window.lam) * window.range) * window.exponent
                + abs(window.lam) * (window.largest + window.exponent * window.range)
            )
        )
        dlam[at] = (g * window.v)[..., 0, 0]
        dlam_scale[at] = (abs(g) * (window.v * window.exponent + SINGLE * window.largest**2))[
            ..., 0, 0
        ]
    return (
        Exact(torch.from_numpy(dx), torch.from_numpy(dx_scale)),
        Exact(_summed_to(lam.shape, dlam), _summed_to(lam.shape, dlam_scale)),
    )


def _windows(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Iterator[Window]:
    x = _array(input)
    height, width = x.shape[2:]
    out_h, out_w = output_size(geometry, height, width)
    lams = np.broadcast_to(_array(lam), (*x.shape[:2], out_h, out_w))
    for out_row in range(out_h):
        for out_column in range(out_w):
            top = out_row * geometry.stride[0] - geometry.padding[0]
            left = out_column * geometry.stride[1] - geometry.padding[1]
            rows = slice(max(top, 0), min(top + geometry.kernel_size[0], height))
            columns = slice(max(left, 0), min(left + geometry.kernel_size[1], width))
            window = x[:, :, rows, columns]
            lam_here = lams[:, :, out_row, out_column, None, None]
            p = _softmax(lam_here * window)
            yield Window(
                (out_row, out_column),
                rows,
                columns,
                window,
                lam_here,
                p,
                y=(p * window).sum(axis=(2, 3), keepdims=True),
                range=np.ptp(window, axis=(2, 3), keepdims=True),
                largest=abs(window).max(axis=(2, 3), keepdims=True),
            )


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=(2, 3), keepdims=True))
    return e / e.sum(axis=(2, 3), keepdims=True)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _summed_to(shape: torch.Size, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).sum_to_size(shape)
