"""The implementations that serve the operators, one module each, and the choice between them.

A backend is one module of this package with three functions: ``forward``, ``backward`` and
``unavailable(device)``, which says in words why the backend cannot serve a device, or ``None``.
"""

# No `import torch` here: the submodule of that name becomes this package's attribute `torch`.
from .selection import backend_module, backend_report, select_backend, use_backend

__all__ = ["backend_module", "backend_report", "select_backend", "use_backend"]
