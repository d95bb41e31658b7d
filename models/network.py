"""What every network of ``create_model`` has beside its layers: it can be saved as a folder."""

import json
from collections.abc import Mapping
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from models.model_card import OURS, Measured, model_card
from models.packages import imported
from models.readable import readable

CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "README.md"


class Network(nn.Module):
    """A network that is saved as by ``huggingface_hub.PyTorchModelHubMixin``.

    Attributes:
        config: what ``config.json`` holds: the arguments of ``create_model`` by their names, and
            what else was saved with the network. Empty of one that was made otherwise.
        make: a function that makes a network as this one was made by ``create_model``.
    """

    # In comments, for torch.jit.script refuses a module whose class has annotations such as these.
    config = MappingProxyType({})  # type: Mapping[str, Any]
    make = None  # type: Any

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        measured: Measured | None = None,
    ) -> None:
        """Save the network as a folder, which ``models.from_pretrained`` and the Hub take.

        In it are ``config.json``, the weights as ``model.safetensors`` and a model card,
        ``README.md``. A card that is there already is left as it is, unless it is one of these.

        Args:
            save_directory: made where there is none.
            config: more to be saved in ``config.json``, ``id2label`` for instance, the names of
                the classes by their numbers; anything that JSON holds.
            measured: figures of these weights, for the card, as a
                :class:`models.model_card.Measured`. Without them it says that none were measured.

        Raises:
            MissingPackageError: safetensors is not installed.
            OSError: the file system refuses the folder or a file.
            TypeError: ``measured`` is something else.
            ValueError: the layers are not those that ``create_model`` made any more, or ``config``
                is of another network, or has no name for each class.

        Example:
            >>> import tempfile, models
            >>> net = models.create_model("resnet18", pool="max_ent", num_classes=2)
            >>> folder = tempfile.mkdtemp()
            >>> net.save_pretrained(folder, config={"id2label": {0: "cat", 1: "dog"}})
            >>> models.from_pretrained(folder).config["id2label"]["1"]
            'dog'
        """
        files = imported("safetensors.torch", "save_pretrained")
        if measured is not None and not isinstance(measured, Measured):
            raise TypeError(
                f"measured must be a models.model_card.Measured, got {measured!r}: pass "
                "Measured(err1=…, err5=…, data=…, epoch=…), its errors in percent"
            )
        self._check_layers()
        config = {**self.config, **(config or {})}
        self._check_config(config)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        # All of it first: what cannot be encoded leaves no file behind.
        weights = files.save(tensors, metadata={"format": "pt"})
        text = readable(json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
        page = model_card(config, measured).encode()
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS_NAME).write_bytes(weights)
        (folder / CONFIG_NAME).write_bytes(text)
        card = folder / CARD_NAME
        if not card.exists() or OURS.encode() in card.read_bytes():
            card.write_bytes(page)

    def _check_layers(self) -> None:
        """Raise ValueError unless ``create_model`` makes the same layers from ``config``."""
        if self.make is None:
            raise ValueError(
                "save_pretrained saves networks of models.create_model, and this one was made "
                "otherwise: save its state_dict()"
            )
        with torch.device("meta"):
            made = self.make()
        layers = (repr(network).splitlines() for network in (made, self))
        for was, now in zip_longest(*layers, fillvalue=""):
            if was != now:
                raise ValueError(
                    f"the network was changed after models.create_model: {now.strip()!r} in place "
                    f"of {was.strip()!r}: save its state_dict(), or make it with these layers"
                )

    def _check_config(self, config: Mapping[str, Any]) -> None:
        """Raise ValueError if ``config`` is not of this network."""
        for name in ("name", "pool", "num_classes"):
            if config[name] != self.config[name]:
                raise ValueError(
                    f"config has {name}={config[name]!r}, the network {self.config[name]!r}: "
                    f"leave {name} out"
                )
        labels, classes = config.get("id2label"), config["num_classes"]
        if labels is not None and not (isinstance(labels, Mapping) and len(labels) == classes):
            raise ValueError(
                f"config has id2label={labels!r}: pass a dict of {classes} names by their numbers"
            )
