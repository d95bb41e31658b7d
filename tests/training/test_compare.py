"""``python -m training.compare``: the runs' names, the table, the curves, the errors."""

import json
import runpy
import sys

import pytest
from PIL import Image

from training.compare import main, read_run
from training.records.comparison_figure import draw_groups
from training.records.history import EpochRecord, write_log
from training.records.run_groups import group_runs


def write_run(folder, errors, settings=None, recipe=None, resumed=None, **numbers):
    """A run whose top-1 validation errors are ``errors``; its other numbers follow from them."""
    folder.mkdir()
    history = [
        EpochRecord(number, 0.1, e / 50, e + 1, e / 3, e / 40, e, e / 2, 10.0, 100.0 * number)
        for number, e in enumerate(errors, start=1)
    ]
    write_log(history, folder / "log.csv")
    if settings is not None:
        config = {"settings": settings, "recipe": recipe or {}, **numbers}
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
    assert header[scores:] == [
        *("best top-1 error (%)", "its top-5 (%)", "its epoch", "last top-1 (%)", "of"),
        *("least val loss", "images/s"),
    ]
    assert first == [
        *("first", "max_ent", "**20.00**", "10.00", "2", "30.00", "3", "0.5000", "200.0")
    ]
    assert second == ["second", "max", "25.00", "12.50", "2", "25.00", "2", "0.6250", "150.0"]
    # The later of equals, as in best_record.
    assert old[scores:] == ["**20.00**", "10.00", "2", "20.00", "2", "0.5000", "150.0"]
    assert old[1] == ""
    assert (out / "comparison.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(out / "comparison.png") as image:
        assert image.format == "PNG"


def figure_of(folders):
    return draw_groups(group_runs([read_run(folder) for folder in folders]))


def test_curves_are_the_logs(runs):
    loss, top1, top5 = figure_of(runs).axes
    for axes, val, train in (
        (loss, [1.25, 0.5, 0.75], [1.0, 0.4, 0.6]),
        (top1, [50, 20, 30], [51, 21, 31]),
        (top5, [25, 10, 15], None),
    ):
        lines = [line for line in axes.lines if line.get_color() == axes.lines[0].get_color()]
        solid, dotted = lines
        assert solid.get_xdata().tolist() == [1, 2, 3]
        assert solid.get_ydata().tolist() == pytest.approx(val)
        if train is not None:
            assert dotted.get_ydata().tolist() == pytest.approx(train)
        assert len(axes.lines) == 6
        assert len({line.get_color() for line in axes.lines}) == 3
        assert not axes.collections  # no bands without several runs


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of one pooling, the last of them still on its way, and one of another."""
    errors = {"max": [[50.0, 20.0], [40.0, 10.0], [30.0, 15.0, 9.0]], "avg": [[60.0, 30.0]]}
    return [
        write_run(tmp_path / f"{pool}{seed}", each, {"pool": pool, "seed": seed, "lr": 0.1})
        for pool in errors
        for seed, each in enumerate(errors[pool])
    ]


def test_seeds_are_a_mean_and_its_spread(seeds, tmp_path, capsys):
    _, top1, _ = figure_of(seeds).axes
    assert len(top1.lines) == 4
    solid, (band,) = top1.lines[0], top1.collections
    assert solid.get_xdata().tolist() == [1, 2]  # the epochs that all three have had
    assert solid.get_ydata().tolist() == pytest.approx([40, 15])
    edges = {tuple(point) for point in band.get_paths()[0].vertices.round(6).tolist()}
    assert edges == {(1, 30), (1, 50), (2, 10), (2, 20)}  # 40 ± 10, 15 ± 5
    assert main([*map(str, seeds), "--out-dir", str(tmp_path / "out")]) == 0
    header, _, of_max, of_avg, *note = capsys.readouterr().out.splitlines()
    assert cells(header)[0][:4] == ["run", "`--pool`", "runs", "best top-1 error (%)"]
    assert cells(of_max)[0] == [
        *("max0, max1, max2", "max", "3", "**13.00 ± 6.08**", "6.50 ± 3.04", "2–3"),
        *("13.00 ± 6.08", "2–3", "0.3250 ± 0.1521", "200.0"),
    ]
    assert cells(of_avg)[0][:4] == ["avg0", "avg", "1", "30.00"]
    assert note == ["", "± is the standard deviation over the runs of a row."]


def test_last_half_has_panels_of_its_own(tmp_path):
    folder = write_run(tmp_path / "long", [900.0, *range(119, 0, -1)], {"pool": "max"})
    panels = figure_of([folder]).axes
    assert len(panels) == 6
    first, second = panels[1], panels[4]
    assert first.get_ylim()[1] > 900
    assert second.lines[0].get_xdata().tolist() == list(range(61, 121))
    assert second.get_ylim()[1] < 70
    assert {line.get_marker() for axes in panels for line in axes.lines} == {"None"}


def test_legend_fits_into_the_figure(tmp_path):
    folders = [
        write_run(
            tmp_path / f"a-run-whose-folder-has-a-long-name-{number}",
            [1.0],
            {"pool": "max", "data": f"/data/of/a/laboratory/with/deep/folders/{number}", "lr": lr},
        )
        for number in range(4)
        for lr in [0.1 / (number + 1)]
    ]
    figure = figure_of(folders)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert box.y0 >= 0 and box.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert all(text.get_text() for text in legend.get_texts())


def test_names_that_matplotlib_or_utf8_cannot_have(tmp_path, capsys):
    """Folders' names and values with what would be a formula, and with bytes that are no text."""
    odd = write_run(tmp_path / "$\\frac$ caf\udce9", [1.0])
    folders = [
        odd,
        write_run(tmp_path / "b", [2.0], {"data": "$x$y_$ \udcff"}),
        write_run(tmp_path / "c", [2.0], {"data": "z"}),
    ]
    out = tmp_path / "out"
    assert main([*map(str, folders), "--out-dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| $\\frac$ caf\N{REPLACEMENT CHARACTER} |" in printed
    assert "| $x$y_$ \N{REPLACEMENT CHARACTER} |" in printed
    assert (out / "comparison.md").read_text(encoding="utf-8") == printed
    (legend,) = figure_of(folders).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == [
        r"\$\frac\$ caf" + "\N{REPLACEMENT CHARACTER}",
        r"data=\$x\$y_\$ " + "\N{REPLACEMENT CHARACTER}",
    ]


def test_how_and_where_a_run_was_made_is_no_difference(tmp_path):
    here = {
        "pool": "max",
        "seed": 0,
        "world_size": 1,
        "worker_timeout": 600,
        "dist_timeout": 600,
        "workers": 4,
    }
    there = {
        **here,
        **{"worker_timeout": 60, "dist_timeout": 60, "workers": 8, "out_dir": "x", "log": "wandb"},
        **{
            "torchrun": {"world_size": 2, "local_world_size": 2},
            "resume": "auto",
            "keep_checkpoints": 3,
            "tensorboard": True,
        },
    }
    runs = [write_run(tmp_path / str(n), [1.0], each) for n, each in enumerate((here, there))]
    (group,) = group_runs([read_run(run) for run in runs])
    assert group.settings == {} and len(group.runs) == 2


def test_other_numbers_of_machines_and_images_are_differences(tmp_path, capsys):
    """Each machine has --batch-size images a step; and the same folder may have other images."""
    two_machines = {"world_size": 8, "local_world_size": 4}
    runs = [
        write_run(tmp_path / "alone", [1.0], {"pool": "max", "world_size": 1}, train_images=39),
        write_run(tmp_path / "two", [1.0], {"pool": "max", "world_size": 2}, train_images=39),
        write_run(
            tmp_path / "torchrun",
            [1.0],
            {"pool": "max", "world_size": 1, "torchrun": two_machines},
            train_images=39,
        ),
        write_run(tmp_path / "fewer", [1.0], {"pool": "max", "world_size": 1}, train_images=24),
    ]
    groups = group_runs([read_run(run) for run in runs])
    assert [[run.name for run in group.runs] for group in groups] == [
        ["alone"],
        ["two", "torchrun"],
        ["fewer"],
    ]
    assert main([*map(str, runs), "--out-dir", str(tmp_path / "out")]) == 0
    header, _, *rows = cells(capsys.readouterr().out.split("\n\n")[0])
    assert header[:4] == ["run", "machines", "train images", "runs"]
    assert [row[1:3] for row in rows] == [["1", "39"], ["2", "39"], ["1", "24"]]


def test_labels(tmp_path):
    def labels(*settings):
        folders = [tmp_path / f"{len(list(tmp_path.iterdir()))}-{index}" for index in range(2)]
        groups = group_runs(
            [
                read_run(write_run(folder, [1.0], each, recipe={"lr": 0.5}))
                for folder, each in zip(folders, settings, strict=True)
            ]
        )
        return [group.label for group in groups]

    assert labels({"pool": "max", "seed": 1}, {"pool": "avg", "seed": 2}) == [
        "pool=max",
        "pool=avg",
    ]
    # The recipe's own rate is that of an option that says the same.
    (one,) = labels({"lr": None}, {"lr": 0.5})
    assert "2 runs" in one and "lr" not in one
    assert labels({"lr": None}, {"lr": 0.1}) == ["lr=0.5", "lr=0.1"]
    assert labels({"ema": None}, {"ema": 0.9}) == ["no ema", "ema=0.9"]
    assert labels({"sync_bn": False}, {"sync_bn": True}) == ["no sync_bn", "sync_bn"]
    # An option that a version did not have yet tells nothing.
    (one,) = labels({"pool": "max"}, {"pool": "max", "ema": True})
    assert "ema" not in one
    first, second = labels(None, None)
    assert first != second


def test_many_runs_have_colours_of_their_own(tmp_path):
    axes = figure_of([write_run(tmp_path / str(n), [1.0], {"lr": n}) for n in range(13)]).axes[0]
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
        "51.25",
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
    # Beside one that holds a run it is named and left out.
    run = write_run(tmp_path / "other", [1.0])
    assert main([str(run), str(folder), "--out-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("skipped: ") and message in said.err and said.err.count("\n") == 1
    assert "| other |" in said.out and (tmp_path / "out" / "comparison.md").exists()


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
