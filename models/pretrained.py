"""Networks from the folders that ``save_pretrained`` writes, here or on the Hugging Face Hub."""

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.network import CONFIG_NAME, WEIGHTS_NAME, Network
from models.packages import imported
from models.registry import create_model

REPOSITORY_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def from_pretrained(
    name_or_folder: str | PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Network:
    """Return the network that ``save_pretrained`` has saved, on the CPU, in evaluation mode.

    Its ``config`` is what ``config.json`` holds; its tensors have the types that were saved. No
    code of the folder is run: nothing but JSON and safetensors is read.

    Args:
        name_or_folder: a folder, else the name of a repository on the Hub, ``"USER/NAME"``.
        revision, cache_dir, token, force_download, local_files_only: of a repository, as in
            ``huggingface_hub.snapshot_download``; a folder needs none of them.

    Raises:
        MissingPackageError: safetensors is not installed, or huggingface_hub, which repositories
            need.
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: the folder is of another library, or its files are damaged or do not fit each
            other.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> create_model("resnet18", num_classes=10).save_pretrained(folder)
        >>> from_pretrained(folder).fc.out_features
        10
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        if not REPOSITORY_ID.fullmatch(str(name_or_folder)):
            raise FileNotFoundError(
                f"{name_or_folder}: no such folder, and not the name of a repository (USER/NAME)"
            )
        hub = imported("huggingface_hub", f"from_pretrained({str(name_or_folder)!r})")
        folder = Path(
            hub.snapshot_download(
                str(name_or_folder),
                allow_patterns=[CONFIG_NAME, WEIGHTS_NAME],
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        )
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    try:
        with torch.device("meta"):  # no initial weights are drawn only to be overwritten
            network = create_model(config["name"], config["pool"], config["num_classes"])
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder}: its files are not of one network of models.create_model "
            f"({' '.join(str(error).split())[:300]})"
        ) from error
    network.config = config
    return network.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    path = _file(folder, CONFIG_NAME)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error})") from error
    if not isinstance(config, dict) or not {"name", "pool", "num_classes"} <= config.keys():
        raise ValueError(
            f"{path}: has no name, pool and num_classes, and so is not of save_pretrained of a "
            "network of models.create_model; use the library that the folder was saved with"
        )
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = _file(folder, WEIGHTS_NAME)
    safetensors = imported("safetensors", "from_pretrained")
    files = imported("safetensors.torch", "from_pretrained")
    try:
        # Copied, for they would change with the file, which the network may be saved to again.
        return {name: tensor.clone() for name, tensor in files.load_file(path).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: has no {name}, and so is no folder of save_pretrained; "
            "weights in other formats are not read"
        )
    return path
