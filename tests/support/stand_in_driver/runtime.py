"""CuPy's view of the CUDA runtime, with one GPU in it.

CuPy's modules call each other through C function pointers, which a module takes from the other's
``__pyx_capi__`` when it is imported. The entries replaced here are all that a kernel's way needs;
every other one still belongs to the real runtime, which finds no driver and says so.
"""

import ctypes
import functools
import sys

__all__ = ["COMPUTE_CAPABILITY", "replace_runtime"]

COMPUTE_CAPABILITY = (9, 0)

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # of cudaDeviceAttr

_C_INT, _OBJECT, _FUNCTION = ctypes.c_int, ctypes.py_object, ctypes.PYFUNCTYPE

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype = ctypes.c_char_p
_capsule_name.argtypes = (ctypes.py_object,)


def _device_count(_=0):
    return 1


def _current_device(_=0):
    return 0


def _set_device(device, _=0):
    if device != 0:
        raise ValueError(f"the stand-in has one GPU, got device {device}")


def _device_attribute(attribute, device, _=0):
    _set_device(device)
    return dict(
        zip((COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR), COMPUTE_CAPABILITY, strict=True)
    )[attribute]


def _nothing():
    return None


SKIP = "int __pyx_skip_dispatch"
ENTRIES = {
    "getDevice": (f"int ({SKIP})", _FUNCTION(_C_INT, _C_INT), _current_device),
    "getDeviceCount": (f"int ({SKIP})", _FUNCTION(_C_INT, _C_INT), _device_count),
    "setDevice": (f"PyObject *(int, {SKIP})", _FUNCTION(_OBJECT, _C_INT, _C_INT), _set_device),
    "deviceGetAttribute": (
        f"int (int, int, {SKIP})",
        _FUNCTION(_C_INT, _C_INT, _C_INT, _C_INT),
        _device_attribute,
    ),
    "_ensure_context": ("PyObject *(void)", _FUNCTION(_OBJECT), _nothing),
}
"""Name, the C signature that Cython gives it, the same for ctypes, and what it does here."""

_kept = []  # what C code points to


@functools.cache
def replace_runtime() -> None:
    """Replaces the entries, for all of CuPy that is imported from now on.

    Raises:
        RuntimeError: CuPy is imported already, or its entries are not those known here.
    """
    if "cupy.cuda.function" in sys.modules:
        raise RuntimeError("CuPy is imported already: the stand-in driver has to be there first")
    from cupy_backends.cuda.api import runtime

    for name, (signature, prototype, function) in ENTRIES.items():
        original = runtime.__pyx_capi__[name]
        if _capsule_name(original).decode() != signature:
            raise RuntimeError(f"CuPy's {name} is {_capsule_name(original)}, not {signature}")
        pointer, capsule_name = prototype(function), signature.encode()
        _kept.extend((pointer, capsule_name))
        runtime.__pyx_capi__[name] = _new_capsule(
            ctypes.cast(pointer, ctypes.c_void_p), capsule_name, None
        )
        if hasattr(runtime, name):
            setattr(runtime, name, function)
