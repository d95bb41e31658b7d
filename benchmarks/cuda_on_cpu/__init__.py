"""Runs the project's CUDA C++ kernels on a CPU, and counts what they load and store; no GPU needed.

For measuring and for tests, never a run-time path. ``cuda_on_cpu.h`` tells how a kernel must be
written.
"""

from .run import LaunchError, Traffic, compiler_available, run_launch

__all__ = ["LaunchError", "Traffic", "compiler_available", "run_launch"]
