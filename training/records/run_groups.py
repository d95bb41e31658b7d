"""Recorded runs in groups of the same settings, and what tells the groups apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.records.history import EpochRecord

LONGEST_VALUE = 32


@dataclass(frozen=True)
class RecordedRun:
    """A run that ``train_imagenet.py`` left.

    Attributes:
        name: of its folder.
        settings: what was trained, by the options' names; empty without a config.json.
        history: a record per epoch, at least one.
    """

    name: str
    settings: Mapping[str, Any]
    history: Sequence[EpochRecord]


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seeds; often a single one.

    Attributes:
        label: what tells it from the other groups.
        settings: those that the groups differ in, by the options' names; as in the runs, not
            every group has each.
        runs: in the order that they were given.
    """

    label: str
    settings: Mapping[str, Any]
    runs: Sequence[RecordedRun]


def group_runs(runs: Sequence[RecordedRun]) -> list[RunGroup]:
    """Return ``runs`` in groups, in the order of their first ones.

    A run without settings is a group of its own.

    Example:
        >>> runs = [RecordedRun(f"max{seed}", {"pool": "max", "seed": seed}, ()) for seed in (0, 1)]
        >>> runs.append(RecordedRun("avg0", {"pool": "avg", "seed": 0}, ()))
        >>> [group.label for group in group_runs(runs)]
        ['pool=max (2 runs)', 'pool=avg']
    """
    names = differing(runs)
    grouped: dict[tuple[str, ...], list[RecordedRun]] = {}
    for run in runs:
        # By their text, for a setting may be a list.
        key = tuple(f"{name}={run.settings[name]!r}" for name in names if name in run.settings)
        grouped.setdefault(key if run.settings else ("", run.name), []).append(run)
    settings = [
        {name: runs[0].settings[name] for name in names if name in runs[0].settings}
        for runs in grouped.values()
    ]
    labels = _labels(settings, [*grouped.values()])
    return [RunGroup(*each) for each in zip(labels, settings, grouped.values(), strict=True)]


def differing(runs: Sequence[RecordedRun]) -> list[str]:
    """Return the names of the settings but the seed that the runs with them differ in.

    Example:
        >>> first = RecordedRun("a", {"pool": "max", "seed": 0}, ())
        >>> differing([first, RecordedRun("b", {"pool": "avg"}, ())])
        ['pool']
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "seed")
    values = {name: [run.settings[name] for run in runs if name in run.settings] for name in names}
    return [name for name in names if any(value != values[name][0] for value in values[name])]


def shortened(value: object) -> str:
    """Return the value's text or, of a long one such as a path, its end.

    Example:
        >>> shortened("max_ent"), shortened("/data/of/the/laboratory/imagenet12/images")
        ('max_ent', '…he/laboratory/imagenet12/images')
    """
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"…{text[1 - LONGEST_VALUE :]}"


def _in_words(name: str, value: object) -> str:
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name}={shortened(value)}"


def _labels(
    settings: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[RecordedRun]]
) -> list[str]:
    """Return the settings of each group or, where they do not tell it from the others, its name."""
    labels = [
        ", ".join(_in_words(name, value) for name, value in each.items()) for each in settings
    ]
    named = []
    for label, runs in zip(labels, groups, strict=True):
        count = f"{len(runs)} runs"
        if label and labels.count(label) == 1:
            named.append(label if len(runs) == 1 else f"{label} ({count})")
        elif len(runs) == 1:
            named.append(f"{label} {shortened(runs[0].name)}".strip())
        else:
            named.append(f"{label} {shortened(runs[0].name)} … ({count})".strip())
    return named
