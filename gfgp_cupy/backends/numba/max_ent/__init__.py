"""Max-Ent pooling: its arithmetic for each family, and for :mod:`..long_windows` as that of any
window function."""

from __future__ import annotations

from .function import message_of, output_of, received, sensitivity_of, summary_of, theta_of

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]
