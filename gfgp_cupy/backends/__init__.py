"""The implementations that serve the operators, and the choice between them.

A backend is one module or package of this one, with the functions of :class:`Backend`, which says
what they take and give; ``selection.BACKENDS`` names them all.
"""

# No `import torch` here: the submodule of that name becomes this package's attribute `torch`.
from .contract import Backend
from .selection import backend_module, backend_report, resolved, select_backend, use_backend
from .small_case import run_small_case

__all__ = [
    "Backend",
    "backend_module",
    "backend_report",
    "resolved",
    "run_small_case",
    "select_backend",
    "use_backend",
]
