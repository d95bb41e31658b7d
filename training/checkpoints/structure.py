"""What a checkpoint file must hold to be one: checked in one place, before anything is used.

A file may be made by hand, or by another program. Whether its tensors are those of the network is
seen when they are loaded into it.
"""

import math
import random
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.records.history import PUBLISHED_COLUMNS, stats_key
from training.records.metrics import ScoreSums


def check_structure(content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check the parts of a checkpoint's ``content``, whose ``args`` are ``settings``.

    Raises:
        KeyError, TypeError, ValueError: a part is missing, or is not what it must be; the message
            names it.
    """
    _check_number("epoch", content["epoch"])
    _require(isinstance(content["arch"], str), "arch must be a name", content["arch"])
    for name, check in (("seed", _check_number), ("pool", _check_text)):
        if settings.get(name) is not None:
            check(f"args[{name!r}]", settings[name])
    _check_tensors("state_dict", content["state_dict"])
    _check_optimizer(content["optimizer"])
    partial = content.get("partial_epoch")
    _check_stats(content["stats"], content["epoch"], is_partial=partial is not None)
    for name, check in _OPTIONAL.items():
        if content.get(name) is not None:
            check(name, content[name])


def _check_stats(stats: object, epoch: int, is_partial: bool) -> None:
    _check_dict("stats", stats)
    columns = {key: stats[key] for key in map(stats_key, PUBLISHED_COLUMNS)}
    for key, column in columns.items():
        _require(isinstance(column, (list, tuple)), f"stats[{key!r}] must be a list", column)
    lengths = {len(column) for column in columns.values()}
    _require(len(lengths) == 1, "the lists of stats must be of one length", sorted(lengths))
    (length,) = lengths
    # A run with --start-epoch has fewer, and none within its first epoch.
    least = 0 if is_partial or epoch == 0 else 1
    if not least <= length <= epoch:
        raise ValueError(f"stats must be of {least} to {epoch} epochs, not of {length}")
    for key, column in stats.items():
        for value in column:
            if isinstance(value, str):
                raise TypeError(f"stats[{key!r}] must hold numbers, not {value!r}")


def _check_optimizer(optimizer: object) -> None:
    _check_dict("optimizer", optimizer)
    groups, states = optimizer["param_groups"], optimizer["state"]
    _require(isinstance(groups, list) and groups, "param_groups must be a list", groups)
    for group in groups:
        _check_dict("param_groups[0]", group)
        _require(isinstance(group["params"], list), "params must be a list", group["params"])
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            # Some optimizers have no number there, but none has a text.
            if isinstance(group.get(name), str):
                raise TypeError(f"the optimizer's {name} must be a number, not {group[name]!r}")
    _check_dict("optimizer['state']", states)
    for number, state in states.items():
        _check_dict(f"optimizer['state'][{number!r}]", state)
        for name, value in state.items():
            if isinstance(value, str):
                raise TypeError(f"the optimizer's {name} must be a tensor, not {value!r}")


def _check_partial_epoch(name: str, partial: object) -> None:
    _check_dict(name, partial)
    fields = {"batches", "score_sums", "seconds", "random_states", "order"}
    if partial.keys() - {"train_seconds"} != fields:
        raise ValueError(f"{name} must hold {', '.join(sorted(fields))}")
    _check_number(f"{name}['batches']", partial["batches"], least=1)
    sums = ScoreSums(torch.device("cpu")).sums
    _check_like(f"{name}['score_sums']", partial["score_sums"], sums)
    for key in partial.keys() & {"seconds", "train_seconds"}:
        seconds = partial[key]
        is_time = isinstance(seconds, Real) and 0 <= seconds < math.inf
        _require(is_time, f"{name}[{key!r}] must be a number from 0 on", seconds)
    _check_dict(f"{name}['order']", partial["order"])
    for key, value in partial["order"].items():
        what = f"{name}['order'][{key!r}] must be a whole number"
        _require(value is None or isinstance(value, int), what, value)
    states = partial["random_states"]
    _require(isinstance(states, list) and states, f"{name}['random_states'] must be a list", states)
    if len(states) != partial["order"]["processes"]:
        raise ValueError(f"{name} must have a random state of each of its processes")
    for state in states:
        _check_random_state(f"{name}['random_states']", state)


def _check_random_state(name: str, state: object) -> None:
    """Check one of ``training.seeding.random_state``: a generator of each kind takes it."""
    _check_dict(name, state)
    _check_like(f"{name}[…]['torch']", state["torch"], torch.get_rng_state())
    if "cuda" in state:
        _require(isinstance(state["cuda"], Tensor), f"{name}[…]['cuda'] must be a tensor", None)
    try:
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(("MT19937", *state["numpy"]))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{name} cannot be gone on from: {error}") from error


def _check_classes(name: str, classes: object) -> None:
    is_list = isinstance(classes, (list, tuple)) and all(isinstance(each, str) for each in classes)
    _require(is_list and classes, f"{name} must be a list of names", classes)
    if len(set(classes)) != len(classes):
        raise ValueError(f"{name} must be different names")


def _check_lineage(name: str, lineage: object) -> None:
    _require(isinstance(lineage, (list, tuple)), f"{name} must be a list", lineage)
    for position in lineage:
        is_pair = isinstance(position, (list, tuple)) and len(position) == 2
        _require(is_pair, f"{name} must hold pairs of epochs and batches", position)
        for number in position:
            _check_number(name, number)


def _check_scaler(name: str, scaler: object) -> None:
    _check_dict(name, scaler)
    for key, value in scaler.items():
        _require(isinstance(value, Real), f"{name}[{key!r}] must be a number", value)


def _check_tensors(name: str, tensors: object) -> None:
    _require(isinstance(tensors, dict) and tensors, f"{name} must be a dict of tensors", tensors)
    for key, value in tensors.items():
        _require(isinstance(key, str), f"{name} must have names", key)
        _require(isinstance(value, Tensor), f"{name}[{key!r}] must be a tensor", value)


def _check_number(name: str, value: object, least: int = 0) -> None:
    if not isinstance(value, int) or not least <= value < 2**63:
        raise TypeError(f"{name} must be a whole number from {least} on, not {value!r}")


def _check_text(name: str, value: object) -> None:
    _require(isinstance(value, str), f"{name} must be a name", value)


def _check_dict(name: str, value: object) -> None:
    _require(isinstance(value, dict), f"{name} must be a dict", value)


def _check_like(name: str, value: object, own: Tensor) -> None:
    """Check that the value is a tensor of the shape and type of our own."""
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (own.shape, own.dtype):
        raise TypeError(f"{name} must be a tensor {list(own.shape)} of {own.dtype}")


def _require(holds: object, what: str, value: object) -> None:
    if not holds:
        raise TypeError(f"{what}, not {type(value).__name__}")


_OPTIONAL: dict[str, Callable[[str, object], None]] = {
    "scaler": _check_scaler,
    "ema": _check_tensors,
    "steps": _check_number,
    "partial_epoch": _check_partial_epoch,
    "classes": _check_classes,
    "lineage": _check_lineage,
}
