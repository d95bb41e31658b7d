"""What of the cupy backend can be tried without a GPU: how streams and tensors cross to CuPy."""

import ctypes
import weakref

import pytest
import torch
from torch.utils.dlpack import to_dlpack

from gfgp_cupy.backends import cupy as backend
from tests.kernel_cases import DTYPES

DL_CUDA = 2

capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = ctypes.py_object, ctypes.c_char_p


class DLManagedTensor(ctypes.Structure):
    """Its first fields, as far as the type of the device."""

    _fields_ = ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32)


def as_if_on_a_gpu(tensor):
    capsule = to_dlpack(tensor)
    DLManagedTensor.from_address(capsule_pointer(capsule, b"dltensor")).device_type = DL_CUDA
    return capsule


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_tensors_cross_without_a_copy(monkeypatch, dtype, layout):
    monkeypatch.setattr(backend, "to_dlpack", as_if_on_a_gpu)
    memory = torch.zeros(2, 3, 4, 5, dtype=dtype).to(memory_format=layout).requires_grad_()
    for tensor in (memory, memory[1:], memory.detach()[:, :, 1:], memory[:, :1, :1, 1:2]):
        with torch.no_grad():
            assert backend._pointer(tensor).ptr == tensor.data_ptr()


def test_pointer_keeps_the_memory(monkeypatch):
    monkeypatch.setattr(backend, "to_dlpack", as_if_on_a_gpu)
    tensor = torch.zeros(3)
    storage = weakref.ref(tensor.untyped_storage())
    pointer = backend._pointer(tensor)
    del tensor
    assert storage() is not None and pointer.ptr == storage().data_ptr()
    del pointer
    assert storage() is None


@pytest.mark.parametrize("address", [0, 0x7F00_1234_5678])
def test_streams_cross_with_any_version_of_pytorch(address):
    assert backend._stream(address).ptr == address
