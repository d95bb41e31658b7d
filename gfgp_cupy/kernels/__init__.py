"""CUDA C++ sources (``*.cu``) and the launches that compute Max-Ent pooling with them.

Nothing here needs a GPU or CuPy: a :class:`Launch` only says which kernel runs, how it is
specialised and on what. Backend ``cupy`` executes launches on a GPU; the tests also execute them
on the CPU and compile them for every architecture.
"""

from .launch import Launch

__all__ = ["Launch"]
