"""Runs the project's CUDA C++ kernels on a CPU, and compiles them with NVRTC; no GPU needed.

Test equipment, never a run-time path. ``cuda_on_cpu.h`` tells how a kernel must be written.
"""

import pytest

from .run import LaunchError, Traffic, compiler_available, run_launch

__all__ = ["LaunchError", "Traffic", "compiler_available", "needs_cxx", "run_launch"]

needs_cxx = pytest.mark.skipif(
    not compiler_available(), reason="needs Linux and a C++ compiler: g++ on PATH, or $CXX"
)
