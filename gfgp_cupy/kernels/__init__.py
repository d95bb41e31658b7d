"""CUDA C++ sources (``*.cu``) and the launches that pool windows with them.

:mod:`.passes` allocates the results of a pass and describes its launches, with the family of
kernels that fits the windows best: :mod:`.disjoint`, :mod:`.marching_rows`,
:mod:`.marching_channels`, :mod:`.overlapping`, :mod:`.whole_planes` or :mod:`.general`, each a
module beside the source it launches, with the functions of a :class:`.family.Family`. What becomes
of a window is in ``.cu`` files of its own, which :mod:`.formula` adds: ``window_function.cu`` says
what a pooling has to supply, ``max_ent.cu`` what Max-Ent pooling, made for each family, does.

Nothing here needs a GPU or CuPy: a :class:`Launch` only says which kernel runs, how it is
specialised and on what. Backend ``cupy`` executes launches on a GPU; the tests also execute them
on the CPU and compile them for several architectures.
"""

from .launch import Launch

__all__ = ["Launch"]
