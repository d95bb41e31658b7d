"""WebDataset shards: each image once whoever reads it, and the same training as from files."""

import functools
import importlib
import io
import re
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from webdataset.shardlists import expand_urls

from tests.support.command_line import error_here, output_here
from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.paths import REPOSITORY
from tests.support.warm_python import run_warm
from training import write_shards
from training.errors import UserError
from training.images import shard_order
from training.images.datasets import load_image_folders
from training.images.shards import load_shards, read_samples
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import training_images
from training.options import OPTIONS
from training.processes.ranks import Process
from training.recipes import RECIPES

CPU = torch.device("cpu")
ALONE = Process(0, 1, CPU)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr("training.images.shard_order.WINDOW", 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return an image folder of 14 training and 6 validation images, and its shards' folder."""
    root = tmp_path_factory.mktemp("shards")
    images = write_image_folder(root / "images", train=7, val=3, classes=2)
    (images / "train" / "class1" / "1_0.JPEG").rename(images / "train" / "class1" / "n1.v2.JPEG")
    assert write_shards.main([str(images), str(root / "shards"), "--samples", "4"]) == 0
    return images, root / "shards"


def shard_urls(shards):
    return f"{shards}/train-{{0000..0003}}.tar", f"{shards}/val-{{0000..0001}}.tar"


def contents(images):
    """Return each image's pixels and class, in any order."""
    return sorted(
        (np.asarray(images.image(index)).tobytes(), images.target(index))
        for index in range(len(images))
    )


def test_shards_hold_the_images_of_the_folder(folders, small_windows):
    images, shards = folders
    files, data = (
        load_image_folders(str(images), None, True),
        load_shards(*shard_urls(shards), ALONE),
    )
    assert data.classes == files.classes
    assert data.train.shard_sizes == [4, 4, 4, 2]
    assert contents(data.train) == contents(files.train)
    assert contents(data.val) == contents(files.val)
    assert [data.val.target(index) for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert load_shards(None, shard_urls(shards)[1], ALONE).train is None
    assert data.train.name(5).endswith("train-0001.tar, image 2")


def test_shards_are_written_alike_each_time(folders, tmp_path):
    images, shards = folders
    assert write_shards.main([str(images), str(tmp_path), "--samples", "4"]) == 0
    assert len(list(tmp_path.iterdir())) == 6
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_names_of_imagenets_shards():
    samples = write_shards.make_parser().get_default("samples")
    last = {"train": 1_281_167 // samples, "val": 50_000 // samples}
    for text in (
        (REPOSITORY / "docs/training.md").read_text(encoding="utf-8"),
        OPTIONS["data"].help,
        load_shards.__doc__,
    ):
        named = re.findall(r"(\w+)-\{0000\.\.(\d{4})\}\.tar", text)
        assert named
        assert all(int(number) == last[split] for split, number in named), named


def test_no_shard_of_before_is_left(folders, tmp_path):
    images, _ = folders
    others = [tmp_path / name for name in ("train-mine.tar", "training-0003.tar")]
    for path in others:
        path.touch()
    for samples, train, val in (("2", 7, 3), ("8", 2, 1)):
        assert write_shards.main([str(images), str(tmp_path), "--samples", samples]) == 0
        expected = [f"train-{number:04d}.tar" for number in range(train)]
        expected += [f"val-{number:04d}.tar" for number in range(val)]
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {*expected, *(path.name for path in others)}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("scheme", ["pipe", "http"])
def test_shards_from_elsewhere(folders, small_windows, scheme):
    shards = folders[1]
    expected = load_shards(*shard_urls(shards), ALONE)
    if scheme == "pipe":
        data = load_shards(*(f"pipe:cat {urls}" for urls in shard_urls(shards)), ALONE)
        assert contents(data.train) == contents(expected.train)
        return
    handler = functools.partial(QuietHandler, directory=str(shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = load_shards(*shard_urls(f"http://127.0.0.1:{server.server_port}"), ALONE)
        assert contents(data.train) == contents(expected.train)
        server.shutdown()


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_shards_of_others_are_counted(folders, tmp_path):
    jpeg = next((folders[0] / "val" / "class0").iterdir()).read_bytes()
    path = tmp_path / "other.tar"
    write_tar(path, {"a.jpg": jpeg, "a.cls": b"2\n", "b.jpg": jpeg, "b.cls": b"0"})
    data = load_shards(None, str(path), ALONE)
    assert data.classes == ("0", "1", "2")
    assert [data.val.target(index) for index in range(2)] == [2, 0]


def load_on(rank, folder, urls):
    with gloo_group(folder, rank, world_size=2):
        data = load_shards(None, urls[rank], Process(rank, 2, CPU))
    assert data.val.shard_sizes == [2, 2, 1]
    assert [shard.url for shard in data.val.shards] == list(expand_urls(urls[rank]))
    assert data.classes == ("0", "1")
    assert not data.classes_have_names


@pytest.mark.parametrize("told_alike", [True, False])
def test_each_shard_is_counted_by_one_process(folders, tmp_path, told_alike):
    """Where both are told of the same ones; of others, by the one that is."""
    jpeg = next((folders[0] / "val" / "class0").iterdir()).read_bytes()
    for shard, samples in enumerate((2, 2, 1)):
        images = {f"{number}.jpg": jpeg for number in range(samples)}
        targets = {f"{number}.cls": b"%d" % number for number in range(samples)}
        files = sorted({**images, **targets}.items())
        write_tar(tmp_path / f"{shard}.tar", dict(files))
    cat, opened = f"cat {tmp_path}/{{0..2}}.tar", tmp_path / "opened"
    first = f"pipe:echo >> {opened}; {cat}"
    run_warm(load_on, (tmp_path, (first, first if told_alike else f"pipe:{cat}")), 2)
    # For what it says of itself, and for its samples.
    assert opened.read_text().count("\n") == 2 * 3


def test_broken_shards_are_named(folders, tmp_path):
    content = (folders[1] / "val-0000.tar").read_bytes()
    jpeg = next((folders[0] / "val" / "class0").iterdir()).read_bytes()
    missing, cut, unlabelled = (tmp_path / f"{name}.tar" for name in ("none", "cut", "unlabelled"))
    write_tar(unlabelled, {"a.jpg": jpeg})
    for path, message in (
        (missing, "none.tar cannot be read"),
        (unlabelled, "a: needs an image and a class"),
        (f"pipe:cat {missing} 2>/dev/null", "cannot be read as a shard"),
    ):
        with pytest.raises(UserError, match=message):
            load_shards(None, str(path), ALONE)
    cut.write_bytes(content[: len(content) // 2])
    data = load_shards(None, str(cut), ALONE)  # it says that it holds 4
    with pytest.raises(UserError, match=r"cut\.tar, image \d: cannot be read as an image"):
        list(loader(data.val, workers=0, shuffle_seed=None))


sizes = st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(sum)


@given(
    shard_sizes=sizes,
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 3),
    workers=st.integers(0, 3),
    shuffle_seed=st.one_of(st.none(), st.integers(0, 3)),
    repeats=st.integers(1, 3),
)
def test_each_sample_has_one_place(
    shard_sizes, batch_size, world_size, workers, shuffle_seed, repeats
):
    """With repeats, each of the first ones; the last one's may not all fit into the epoch."""
    count = sum(shard_sizes)
    taken = []
    for rank in range(world_size):
        process = Process(rank, world_size, CPU)
        options = {"shard_sizes": shard_sizes, "workers": workers, "shuffle_seed": shuffle_seed}
        batches = GlobalBatches(count, batch_size, process, repeats=repeats, **options)
        taken += [(key.index, key.repeat) for share in batches for key in share]
    sequence = {index: [] for index, _ in taken}
    for index, repeat in sorted(taken):
        sequence[index].append(repeat)
    whole = sum(repeated == list(range(repeats)) for repeated in sequence.values())
    assert (len(taken), whole) == (count, count // repeats)
    assert len(sequence) == -(-count // repeats)


@pytest.mark.parametrize("shuffle_seed", [None, 1])
def test_workers_read_straight_on(small_windows, shuffle_seed):
    """Each worker goes through windows of shards one after the other, none of them twice."""
    shard_sizes, workers = [8, 5, 11, 7], 2
    windows = {
        sample: number
        for number, window in enumerate(
            window
            for shard in torch.arange(31).split(shard_sizes)
            for window in shard.split(shard_order.WINDOW)
        )
        for sample in window.tolist()
    }
    for rank in range(2):
        process = Process(rank, 2, CPU)
        batches = list(
            GlobalBatches(
                31, 6, process, shard_sizes=shard_sizes, workers=workers, shuffle_seed=shuffle_seed
            )
        )
        for worker in range(workers):
            visited = [windows[key.index] for batch in batches[worker::workers] for key in batch]
            entered = [
                window
                for before, window in zip([None, *visited], visited, strict=False)
                if window != before
            ]
            assert len(entered) == len(set(entered))


def loader(images, workers, shuffle_seed=5, rank=0, world_size=1):
    process = Process(rank, world_size, CPU)
    batches = GlobalBatches(
        len(images), 4, process, shuffle_seed, shard_sizes=images.shard_sizes, workers=workers
    )
    augmented = training_images(images, RECIPES["digits"], seed=5)
    batch_loader = BatchLoader(augmented, batches, workers, process, seed=5)
    batch_loader.set_epoch(1)
    return batch_loader


def test_augmented_images_do_not_depend_on_who_reads_them(folders, small_windows):
    def loaded(**options):
        images = load_shards(*shard_urls(folders[1]), ALONE).train
        return [
            image.numpy().tobytes() for batch in loader(images, **options) for image in batch.images
        ]

    expected = sorted(loaded(workers=0))
    assert len(set(expected)) == 14
    assert sorted(loaded(workers=2)) == expected
    assert loaded(workers=2) == loaded(workers=2)
    shares = [loaded(workers=1, rank=rank, world_size=2) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == expected


def test_shards_are_read_once_an_epoch(folders, small_windows, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "training.images.shards.read_samples", lambda url: opened.append(url) or read_samples(url)
    )
    images = load_shards(*shard_urls(folders[1]), ALONE).train
    list(loader(images, workers=0))
    assert len(opened) == len(set(opened)) == 4


@pytest.mark.slow
def test_command_line_trains_resumes_and_evaluates_from_shards(folders, tmp_path):
    images, shards = folders
    train, val = shard_urls(shards)
    common = ("--arch", "resnet18", "--pool", "avg", "--config-name", "digits", "--cpu")
    run = (*common, "--data", train, "--val-data", val, "--workers", 0, "--batch-size", 5)
    output_here(*run, "--epochs", 2, "--seed", 0, "--out-dir", tmp_path / "whole")
    first, last = (f"checkpoint-epoch{epoch}.pth.tar" for epoch in (1, 2))
    resumed = tmp_path / "resumed"
    output_here(*run, "--epochs", 2, "--out-dir", resumed, "--resume", tmp_path / "whole" / first)
    expected, actual = (
        torch.load(folder / last, weights_only=True)["state_dict"]
        for folder in (tmp_path / "whole", resumed)
    )
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    evaluation = (*common, "--evaluate", "--resume", resumed / last, "--out-dir", tmp_path)
    from_shards = output_here(*evaluation, "--val-data", val, "--workers", 0)
    from_files = output_here(*evaluation, "--data", images, "--workers", 0)
    assert from_shards.splitlines()[-1] == from_files.splitlines()[-1]
    assert "on 6 images" in from_shards


def test_options_that_do_not_fit(folders, tmp_path):
    train, val = shard_urls(folders[1])
    assert "beside --val-data" in error_here("--data", train, "--out-dir", tmp_path)
    assert "not digits" in error_here("--dataset", "digits", "--val-data", val)
    error = error_here("--data", tmp_path / "x.tar", "--val-data", val, "--out-dir", tmp_path)
    assert "x.tar cannot be read as a shard" in error


def test_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)  # importing it fails
    with pytest.raises(UserError, match="pip install webdataset"):
        load_shards(*shard_urls(folders[1]), ALONE)


def test_missing_package_is_named_where_shards_are_written(folders, tmp_path, monkeypatch, capsys):
    """By the command, which is not imported before; its help needs nothing."""
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.delitem(sys.modules, "training.write_shards")
    command = importlib.import_module("training.write_shards")
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert end.value.code == 0
    capsys.readouterr()
    assert command.main([str(folders[0]), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "pip install webdataset" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_read_is_named(tmp_path, capsys):
    assert write_shards.main(["x" * 5000, str(tmp_path)]) == 2  # too long for any file system
    error = capsys.readouterr().err
    assert error.startswith("training.write_shards: error: ") and error.count("\n") == 1


def test_folder_that_is_not_there_is_named(tmp_path, capsys):
    images = str(tmp_path / "images")
    assert write_shards.main([images, str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"training.write_shards: error: {images}: no such directory; it must hold train/ and val/\n"
    )
