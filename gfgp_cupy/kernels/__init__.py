"""CUDA C++ sources (``*.cu``) and the launches that compute Max-Ent pooling with them.

Nothing here needs a GPU or CuPy: a :class:`Launch` only says which kernel runs, how it is
specialised and on what. Backend ``cupy`` executes launches on a GPU; the tests also execute them
on the CPU and compile them for every architecture.
"""

from .launch import Launch
from .plan import gather, pool_forward, window_statistics

__all__ = ["Launch", "gather", "pool_forward", "window_statistics"]
