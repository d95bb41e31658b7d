"""The mark of tests that run the CUDA sources on the CPU."""

import pytest

from benchmarks.cuda_on_cpu import compiler_available

__all__ = ["needs_cxx"]

needs_cxx = pytest.mark.skipif(
    not compiler_available(), reason="needs Linux and a C++ compiler: g++ on PATH, or $CXX"
)
