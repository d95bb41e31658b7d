"""Runs against each other: ``python -m training.compare RUN… [--out-dir DIR]``."""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from training.atomic_write import atomic_write
from training.errors import UserError, exit_code
from training.options import OPTIONS, flag_of
from training.records.config import CONFIG_NAME, read_config
from training.records.curves import save_figure
from training.records.history import LOG_NAME, EpochRecord, best_record, read_log

STEM = "comparison"
PANELS = {"Loss": "loss", "Top-1 error (%)": "err1", "Top-5 error (%)": "err5"}
STYLES = {"val": "-", "train": ":"}


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=f"Plot the curves of runs into {STEM}.pdf and .png, and tabulate their best "
        f"epochs in {STEM}.md. The options that they differ in name them.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="the --out-dir of a run, which may still go on"
    )
    parser.add_argument(
        "--out-dir", default=".", metavar="DIR", help="where the files go (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    folders, out_dir = [Path(run) for run in options.runs], Path(options.out_dir)
    return exit_code("training.compare", lambda: print(compare(folders, out_dir), end=""))


def compare(folders: Sequence[Path], out_dir: Path) -> str:
    """Compare the runs in ``folders``; write the files and return the table.

    Raises:
        UserError: a folder holds no run, or a file cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    table = table_of(runs)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out-dir {out_dir}: cannot be made ({error.strerror})") from error
    save_figure(draw_runs(runs), out_dir / f"{STEM}.pdf")
    with atomic_write(out_dir / f"{STEM}.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    return table


def read_run(folder: Path) -> RecordedRun:
    """Return the run in ``folder``, from its log.csv and, if there is one, its config.json.

    Raises:
        UserError: there is no run, or it has had no epoch.
    """
    history = read_log(folder / LOG_NAME)
    if not history:
        raise UserError(f"{folder / LOG_NAME}: holds no epoch; leave the run out")
    config_path = folder / CONFIG_NAME
    settings = told_settings(read_config(config_path)) if config_path.exists() else {}
    return RecordedRun(folder.resolve().name, settings, history)


def told_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config.json that say what was trained, the recipe's filled in.

    Of a resumed run they are the latest.
    """
    latest = [config, *config.get("resumed", [])][-1]
    return {
        name: latest["recipe"].get(name) if value is None else value
        for name, value in latest["settings"].items()
        if name in OPTIONS and OPTIONS[name].tells
    }


def differing(runs: Sequence[RecordedRun]) -> list[str]:
    """Return the names of the settings that the runs, those that have them, differ in.

    Example:
        >>> first = RecordedRun("a", {"pool": "max", "seed": 0}, ())
        >>> differing([first, RecordedRun("b", {"pool": "avg"}, ())])
        ['pool']
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: [run.settings[name] for run in runs if name in run.settings] for name in names}
    return [name for name in names if any(value != values[name][0] for value in values[name])]


def labels_of(runs: Sequence[RecordedRun]) -> list[str]:
    """Return what tells each run from the others: its settings, or else its name."""
    names = differing(runs)
    labels = [
        ", ".join(f"{name}={run.settings[name]}" for name in names if name in run.settings)
        for run in runs
    ]
    return [
        label if label and labels.count(label) == 1 else f"{label} {run.name}".strip()
        for label, run in zip(labels, runs, strict=True)
    ]


def table_of(runs: Sequence[RecordedRun]) -> str:
    """Return a Markdown table of the runs' best epochs, the least error in bold."""
    names = differing(runs)
    best = [best_record(run.history) for run in runs]
    least = min(record.val_err1 for record in best)
    options = [f"`{flag_of(name)}`" for name in names]
    scores = ["best top-1 error (%)", "its top-5 (%)", "its epoch", "of", "least val loss"]
    rows = [["run", *options, *scores, "images/s"]]
    for run, record in zip(runs, best, strict=True):
        top1 = f"{record.val_err1:.2f}"
        losses = [each.val_loss for each in run.history]
        rows.append(
            [
                run.name,
                *(str(run.settings.get(name, "")) for name in names),
                f"**{top1}**" if record.val_err1 == least else top1,
                f"{record.val_err5:.2f}",
                str(record.epoch),
                str(run.history[-1].epoch),
                f"{min(losses):.4f}",
                _images_per_second(run.history),
            ]
        )
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def draw_runs(runs: Sequence[RecordedRun]) -> Figure:
    """Return the figure of the runs' loss and errors over the epochs, a colour per run."""
    figure = Figure(figsize=(14, 5), layout="constrained")
    labels = labels_of(runs)
    for axes, (title, column) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for run, label, color in zip(runs, labels, _colors(len(runs)), strict=True):
            epochs = [record.epoch for record in run.history]
            for split, style in STYLES.items():
                values = [getattr(record, f"{split}_{column}") for record in run.history]
                name = label if split == "val" else "_"  # matplotlib's mark of no legend entry
                axes.plot(epochs, values, style, marker=".", color=color, label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    handles += [Line2D([], [], color="black", linestyle=style) for style in STYLES.values()]
    names += ["validation", "training"]
    columns = max(1, min(len(names), 150 // (max(map(len, names)) + 5)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return figure


def _colors(count: int) -> list[Any]:
    if count <= 10:
        return list(matplotlib.colormaps["tab10"].colors[:count])
    return [matplotlib.colormaps["turbo"](index / (count - 1)) for index in range(count)]


def _images_per_second(history: Sequence[EpochRecord]) -> str:
    known = [each.images_per_second for each in history if not math.isnan(each.images_per_second)]
    return f"{statistics.median(known):.1f}" if known else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


if __name__ == "__main__":
    sys.exit(main())
