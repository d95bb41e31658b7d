"""Files of ``torch.save``, read without running code that is in them."""

import argparse
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.errors import UserError


def read_file(option: str, path: str) -> Any:
    """Return what ``torch.save`` wrote to ``path``, the file of ``option``; run no code of it.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not as it was written.
    """
    if not Path(path).is_file():
        raise UserError(f"{option} {path}: no such file")
    try:
        _check_sums(path)
        with torch.serialization.safe_globals(_safe_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that then cannot be read
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message tells how to load the file all the same, and run what is in it.
        raise UserError(
            f"{option} {path}: is no checkpoint that can be read, damaged or with more in it than "
            "tensors and plain values, which could run code"
        ) from error
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{option} {path}: is no checkpoint that can be read ({one_line(error)})"
        ) from error
    except Exception as error:  # a damaged file can raise anything while it is read
        # Such as a KeyError with the number of a byte, which would tell nobody anything.
        raise UserError(
            f"{option} {path}: is no checkpoint that can be read, damaged or not written by "
            "torch.save"
        ) from error


def safetensors_texts(path: str) -> dict[str, str]:
    """Return what a safetensors file has beside its tensors; nothing of a file of another kind."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > Path(path).stat().st_size or file.read(1) != b"{":
            return {}
        header = json.loads(b"{" + file.read(length - 1))
    return header.get("__metadata__", {})


def _check_sums(path: str) -> None:
    """Raise BadZipFile if a part of the file has changed since ``torch.save`` wrote it.

    Such a file is a zip archive with a checksum (CRC-32) of each part, which ``torch.load`` does
    not look at; files of the format before torch 1.6 have none.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
        if altered is not None:
            raise zipfile.BadZipFile(f"altered since it was written: {altered}")


def one_line(error: Exception) -> str:
    """Return the first lines of the error's message in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


class _Inert:
    """Stands for an object of a published checkpoint's ``args`` that is of no use here."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# The published ``args`` hold the recipe's transforms, whose classes may be of any version of
# torchvision or not be installed at all (``utils.mytransforms``).
_PUBLISHED_TRANSFORMS = (
    *(
        f"torchvision.transforms.transforms.{name}"
        for name in (
            "CenterCrop",
            "ColorJitter",
            "Compose",
            "Normalize",
            "RandomHorizontalFlip",
            "RandomResizedCrop",
            "Resize",
            "ToTensor",
        )
    ),
    "torchvision.transforms.functional.InterpolationMode",
    "utils.mytransforms.Lighting",
)


def _safe_globals() -> list[Any]:
    numpy_scalar = np.float64(0).__reduce__()[0]  # makes a number of a type and its bytes
    return [
        argparse.Namespace,
        *((_Inert, name) for name in _PUBLISHED_TRANSFORMS),
        *((numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        np.dtype,
        *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")),
    ]
