"""Groups of runs as a Markdown table."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from training.options import OPTIONS, title_of
from training.records.history import EpochRecord, best_record
from training.records.run_groups import RecordedRun, RunGroup

NOTE = "± is the standard deviation over the runs of a row.\n"


def table_of(groups: Sequence[RunGroup]) -> str:
    """Return a table of the groups' best epochs, means over their runs, the least error in bold.

    Of a run with ``--ema`` the better weights of an epoch count, raw or averaged.
    """
    names = list(dict.fromkeys(name for group in groups for name in group.settings))
    several = any(len(group.runs) > 1 for group in groups)
    header = ["run", *map(_heading, names), *(["runs"] if several else [])]
    header += ["best top-1 error (%)", "its top-5 (%)", "its epoch", "last top-1 (%)", "of"]
    header += ["least val loss", "images/s"]
    rows = [header, ["---"] * len(header)]
    errors = [_mean(group, lambda run: best_record(run.history).best_val_err1) for group in groups]
    for group, error in zip(groups, errors, strict=True):
        top1 = _spread(group, lambda run: best_record(run.history).best_val_err1, digits=2)
        rows.append(
            [
                ", ".join(run.name for run in group.runs),
                *(_cell(group.settings.get(name)) for name in names),
                *([str(len(group.runs))] if several else []),
                f"**{top1}**" if error == min(errors) else top1,
                _spread(group, lambda run: best_record(run.history).best_val_err5, digits=2),
                _range(best_record(run.history).epoch for run in group.runs),
                _spread(group, lambda run: run.history[-1].best_val_err1, digits=2),
                _range(run.history[-1].epoch for run in group.runs),
                _spread(group, _least_loss, digits=4),
                _images_per_second([record for run in group.runs for record in run.history]),
            ]
        )
    table = "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)
    return f"{table}\n{NOTE}" if several else table


def _heading(name: str) -> str:
    return f"`{title_of(name)}`" if name in OPTIONS else title_of(name)


def _cell(value: object) -> str:
    return "" if value is None or value is False else str(value)


def _least_loss(run: RecordedRun) -> float:
    """Return the least validation loss, of raw or averaged weights."""
    losses = [loss for each in run.history for loss in (each.val_loss, each.ema_val_loss)]
    return min(loss for loss in losses if not math.isnan(loss))


def _mean(group: RunGroup, score: Callable[[RecordedRun], float]) -> float:
    return statistics.fmean(score(run) for run in group.runs)


def _spread(group: RunGroup, score: Callable[[RecordedRun], float], digits: int) -> str:
    """Return the mean and, of several runs, the standard deviation (n − 1)."""
    values = [score(run) for run in group.runs]
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def _range(values: Iterable[int]) -> str:
    numbers = sorted(values)
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]}–{numbers[-1]}"


def _images_per_second(history: Sequence[EpochRecord]) -> str:
    known = [each.images_per_second for each in history if not math.isnan(each.images_per_second)]
    return f"{statistics.median(known):.1f}" if known else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
