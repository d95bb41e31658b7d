"""Runs against each other: ``python -m training.compare RUN… [--out-dir DIR]``."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.readable import readable
from training.atomic_write import atomic_write
from training.errors import UserError, exit_code
from training.options import OPTIONS
from training.records.comparison_figure import draw_groups
from training.records.comparison_table import table_of
from training.records.config import CONFIG_NAME, read_config
from training.records.figure_files import save_figure
from training.records.history import LOG_NAME, read_log
from training.records.run_groups import RecordedRun, group_runs

STEM = "comparison"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit code, 2 if the user has to change it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=f"Plot the curves of runs into {STEM}.pdf and .png, and tabulate their best "
        f"epochs in {STEM}.md. Runs that differ in --seed alone are shown by their mean and "
        "standard deviation. The options, and the numbers of machines and training "
        "images, that the others differ in name them.",
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
        UserError: no folder holds a run, or a file cannot be written.
    """
    groups = group_runs(read_runs(folders))
    table = readable(table_of(groups))
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out-dir {out_dir}: cannot be made ({error.strerror})") from error
    save_figure(draw_groups(groups), out_dir / f"{STEM}.pdf")
    with atomic_write(out_dir / f"{STEM}.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    return table


def read_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """Return the runs in ``folders``; name those that are none on the standard error.

    Raises:
        UserError: there is no run at all.
    """
    runs, skipped = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            skipped.append(str(error))
    if not runs:
        raise UserError("; ".join(skipped))
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    return runs


def read_run(folder: Path) -> RecordedRun:
    """Return the run in ``folder``, from its log.csv and, if there is one, its config.json.

    Raises:
        UserError: there is no run, or it has had no epoch.
    """
    history = read_log(folder / LOG_NAME)
    if not history:
        raise UserError(f"{folder / LOG_NAME}: holds no epoch")
    config_path = folder / CONFIG_NAME
    settings = told_settings(read_config(config_path)) if config_path.exists() else {}
    return RecordedRun(folder.resolve().name, settings, history)


def told_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config.json that say what was trained, the recipe's filled in, and
    the numbers of machines, of which each has ``--batch-size`` images a step, and of images.

    Of a resumed run they are the latest.
    """
    latest = [config, *config.get("resumed", [])][-1]
    told = {
        name: latest["recipe"].get(name) if value is None else value
        for name, value in latest["settings"].items()
        if name in OPTIONS and OPTIONS[name].tells
    }
    numbers = {
        "machines": _machines(latest["settings"]),
        "train_images": latest.get("train_images"),
    }
    return told | {name: number for name, number in numbers.items() if number is not None}


def _machines(settings: Mapping[str, Any]) -> int | None:
    """:attr:`training.settings.Settings.machines`, of a config.json; None where that has none."""
    if torchrun := settings.get("torchrun"):
        return torchrun["world_size"] // torchrun["local_world_size"]
    return settings.get("world_size")


if __name__ == "__main__":
    sys.exit(main())
