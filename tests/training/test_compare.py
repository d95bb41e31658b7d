"""``python -m training.compare``: the runs' names, the table, the curves, the errors."""

import json
import runpy
import sys

import pytest
from PIL import Image

from training.compare import draw_runs, labels_of, main, read_run
from training.records.history import EpochRecord, write_log


def write_run(folder, errors, settings=None, recipe=None, resumed=None):
    """A run whose top-1 validation errors are ``errors``; its other numbers follow from them."""
    folder.mkdir()
    history = [
        EpochRecord(number, 0.1, e / 50, e + 1, e / 3, e / 40, e, e / 2, 10.0, 100.0 * number)
        for number, e in enumerate(errors, start=1)
    ]
    write_log(history, folder / "log.csv")
    if settings is not None:
        config = {"settings": settings, "recipe": recipe or {}}
        if resumed is not None:
            config["resumed"] = [{"settings": resumed, "recipe": recipe or {}}]
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def runs(tmp_path):
    common = {"arch": "resnet18", "lr": None, "out_dir": "x", "print_freq": 1}
    return [
        write_run(tmp_path / "first", [50.0, 20.0, 30.0], common | {"pool": "max_ent", "seed": 1}),
        write_run(
            tmp_path / "second",
            [40.0, 25.0],
            common | {"pool": "max", "out_dir": "y", "seed": 1, "print_freq": 2},
        ),
        write_run(tmp_path / "old", [20.0, 20.0]),
    ]


def cells(table):
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]


def test_table_and_files(runs, tmp_path, capsys):
    out = tmp_path / "new" / "comparison"
    assert main([*map(str, runs), "--out-dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "comparison.md").read_text() == printed
    header, rule, first, second, old = cells(printed)
    assert header[:2] == ["run", "`--pool`"]
    assert set(rule) == {"---"} and len(rule) == len(header)
    scores = header.index("best top-1 error (%)")
    assert first == ["first", "max_ent", "**20.00**", "10.00", "2", "3", "0.5000", "200.0"]
    assert second == ["second", "max", "25.00", "12.50", "2", "2", "0.6250", "150.0"]
    # The later of equals, as in best_record.
    assert old[scores:] == ["**20.00**", "10.00", "2", "2", "0.5000", "150.0"]
    assert old[1] == ""
    assert (out / "comparison.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(out / "comparison.png") as image:
        assert image.format == "PNG"


def test_curves_are_the_logs(runs):
    loss, top1, top5 = draw_runs([read_run(folder) for folder in runs]).axes
    for axes, val, train in (
        (loss, [1.25, 0.5, 0.75], [1.0, 0.4, 0.6]),
        (top1, [50, 20, 30], [51, 21, 31]),
        (top5, [25, 10, 15], None),
    ):
        lines = [line for line in axes.lines if line.get_color() == axes.lines[0].get_color()]
        solid, dotted = lines
        assert solid.get_xdata().tolist() == [1, 2, 3]
        assert solid.get_ydata().tolist() == pytest.approx(val)
        assert solid.get_label() == "pool=max_ent"
        if train is not None:
            assert dotted.get_ydata().tolist() == pytest.approx(train)
        assert len(axes.lines) == 6
        assert len({line.get_color() for line in axes.lines}) == 3


def test_labels(tmp_path):
    def label(*settings):
        folders = [tmp_path / f"{len(list(tmp_path.iterdir()))}-{index}" for index in range(2)]
        return labels_of(
            [
                read_run(write_run(folder, [1.0], each, recipe={"lr": 0.5}))
                for folder, each in zip(folders, settings, strict=True)
            ]
        )

    assert label({"pool": "max", "seed": 1}, {"pool": "avg", "seed": 2}) == [
        "pool=max, seed=1",
        "pool=avg, seed=2",
    ]
    # The recipe's own rate is that of an option that says the same.
    first, second = label({"lr": None}, {"lr": 0.5})
    assert "lr" not in first + second and first != second
    assert label({"lr": None}, {"lr": 0.1}) == ["lr=0.5", "lr=0.1"]
    # An option that a version did not have yet tells nothing.
    first, second = label({"pool": "max"}, {"pool": "max", "ema": True})
    assert "ema" not in first + second
    first, second = label(None, None)
    assert first != second


def test_many_runs_have_colours_of_their_own(tmp_path):
    runs = [read_run(write_run(tmp_path / str(n), [1.0], {"seed": n})) for n in range(13)]
    axes = draw_runs(runs).axes[0]
    assert len({line.get_color() for line in axes.lines}) == 13


def test_latest_settings_of_a_resumed_run_count(tmp_path):
    run = read_run(write_run(tmp_path / "run", [1.0], {"epochs": 2}, resumed={"epochs": 5}))
    assert run.settings == {"epochs": 5}


def test_log_of_the_first_version(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text(
        "epoch,lr,train_loss,train_err1,train_err5,val_loss,val_err1,val_err5,seconds,"
        "images_per_second\n1,0.1,2.5,80.0,30.0,2.25,51.25,20.0,12.5,\n"
    )
    assert main([str(tmp_path / "run"), "--out-dir", str(tmp_path)]) == 0
    assert cells(capsys.readouterr().out)[-1] == [
        "run",
        "**51.25**",
        "20.00",
        "1",
        "1",
        "2.2500",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "log.csv: cannot be read (No such file"),
        ("epoch,lr\n", "log.csv: holds no epoch"),
        ("what,is\nthis,then\n", "log.csv: is no log"),
    ],
)
def test_folder_without_a_run(tmp_path, capsys, text, message):
    folder = tmp_path / "run"
    folder.mkdir()
    if text is not None:
        (folder / "log.csv").write_text(text)
    assert main([str(folder), "--out-dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("training.compare: error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_unwritable_out_dir(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("here already")
    assert main([str(runs[0]), "--out-dir", str(tmp_path / "file")]) == 2
    assert f"--out-dir {tmp_path / 'file'}: cannot be made" in capsys.readouterr().err


def test_as_a_module(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", str(runs[0]), "--out-dir", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "training.compare")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("training.compare", run_name="__main__")
    assert end.value.code == 0
    assert "| first |" in capsys.readouterr().out
