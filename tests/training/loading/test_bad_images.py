"""Bad images: training goes on without them, well defined; an evaluation does not count them."""

import csv
import shutil
from collections import Counter

import pytest
import torch

from tests.support.command_line import (
    error_here,
    free_dist_url,
    output_here,
    output_of_command,
    read_log,
)
from tests.support.gloo_group import gloo_group
from tests.support.image_folders import write_image_folder
from tests.support.tiny_network import create_tiny_network
from tests.support.warm_python import run_warm
from training import write_shards
from training.errors import UserError
from training.images.datasets import ImageFiles, load_image_folders
from training.images.shards import load_shards
from training.loading.bad_images import BadImages
from training.loading.batches import BatchLoader, collate
from training.loading.global_batches import GlobalBatches
from training.loading.samples import SampleKey, training_images, validation_images
from training.processes.ranks import Process
from training.recipes import RECIPES
from training.records.bad_images import list_bad_images
from training.records.evaluation import read_evaluation

CPU = torch.device("cpu")
RECIPE = RECIPES["digits"]
NETWORK = ("--arch", "resnet18", "--pool", "skip", "--config-name", "digits", "--cpu")
TRAINING = (*NETWORK, "--epochs", 1, "--batch-size", 50, "--seed", 0)
SKIP = ("--on-bad-image", "skip")


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """What becomes of the images is the same for every network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        yield


def cut(path):
    """Cut a JPEG file off in the middle of its pixels."""
    path.write_bytes(path.read_bytes()[:-300])
    return path


def overwrite(path):
    path.write_text("This is a text.")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder of 200 training and 120 validation images."""
    return write_image_folder(tmp_path_factory.mktemp("whole"), train=100, val=60)


@pytest.fixture(scope="module")
def spoilt(whole, tmp_path_factory):
    """Return a copy of it with three bad images, at most a hundredth of each split, and these."""
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("spoilt") / "data")
    bad = [
        cut(folder / "train" / "class0" / "0_7.JPEG"),
        overwrite(folder / "train" / "class1" / "1_42.JPEG"),
        cut(folder / "val" / "class0" / "0_3.JPEG"),
    ]
    return folder, [str(path) for path in bad]


def listed(out_dir):
    """Return the names in ``bad_images.txt`` with their reasons; each must be there once."""
    pairs = [line.split("\t") for line in (out_dir / "bad_images.txt").read_text().splitlines()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def weights(out_dir, epoch=1):
    path = out_dir / f"checkpoint-epoch{epoch}.pth.tar"
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(out_dir, other, epoch=1):
    expected = weights(other, epoch)
    for name, tensor in weights(out_dir, epoch).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def run_that_skipped(spoilt, tmp_path_factory):
    """Return what a run of two epochs printed, and its folder."""
    out = tmp_path_factory.mktemp("out")
    options = ("--data", spoilt[0], "--workers", 0, "--out-dir", out, *SKIP, "--epochs", 2)
    return output_here(*TRAINING, *options), out


def test_skipped_images_are_counted_and_listed(spoilt, run_that_skipped):
    printed, out = run_that_skipped
    assert printed.count(", 3 bad images skipped") == 2  # in each epoch's line
    reasons = listed(out)
    assert sorted(reasons) == sorted(spoilt[1])
    for name in (spoilt[1][0], spoilt[1][2]):
        assert "truncated" in reasons[name]
    assert "cannot identify image" in reasons[spoilt[1][1]]


def test_result_does_not_depend_on_the_workers(spoilt, run_that_skipped, tmp_path):
    printed = output_here(
        *TRAINING, "--data", spoilt[0], "--workers", 2, "--out-dir", tmp_path, *SKIP
    )
    assert ", 3 bad images skipped" in printed
    assert_same_weights(tmp_path, run_that_skipped[1])
    assert sorted(listed(tmp_path)) == sorted(spoilt[1])


def test_resumed_run_is_exact_and_keeps_the_list(spoilt, run_that_skipped, tmp_path):
    """An image that was repaired meanwhile stays listed, and what is met again is not twice."""
    repaired = f"{spoilt[0]}/train/class0/repaired.JPEG\tread badly once"
    (tmp_path / "bad_images.txt").write_text(f"{repaired}\n")
    first = shutil.copy(run_that_skipped[1] / "checkpoint-epoch1.pth.tar", tmp_path)
    options = ("--data", spoilt[0], "--workers", 0, "--out-dir", tmp_path, *SKIP, "--epochs", 2)
    output_here(*TRAINING, *options, "--resume", first)
    assert_same_weights(tmp_path, run_that_skipped[1], epoch=2)
    assert (tmp_path / "bad_images.txt").read_text().startswith(repaired)
    assert sorted(listed(tmp_path)) == sorted([repaired.split("\t")[0], *spoilt[1]])


def test_evaluation_leaves_bad_images_out(spoilt, run_that_skipped, tmp_path):
    """It gives what it gives where the bad image is not there."""
    out = run_that_skipped[1]
    evaluation = (*NETWORK, "--evaluate", "--resume", out / "checkpoint-epoch1.pth.tar")
    scores = {}
    for workers in (0, 2):
        options = ("--data", spoilt[0], "--workers", workers, "--out-dir", tmp_path / "new")
        *_, scores[workers] = output_here(*evaluation, *options, *SKIP).splitlines()
    assert list(listed(tmp_path / "new")) == [spoilt[1][2]]
    assert read_evaluation(tmp_path / "new" / "evaluation.json").skipped_images == 1
    with open(tmp_path / "new" / "evaluation_classes.csv", newline="") as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 119
    without = shutil.copytree(spoilt[0], tmp_path / "without")
    (without / "val" / "class0" / "0_3.JPEG").unlink()
    *_, expected = output_here(
        *evaluation, "--data", without, "--workers", 0, "--out-dir", tmp_path
    ).splitlines()
    assert "on 119 images" in expected
    assert scores[0] == scores[2] == f"{expected}, 1 bad ones skipped"
    (row, _) = read_log(out)
    assert f"top-1 error {float(row['val_err1']):.2f}%" in expected


@pytest.mark.slow
def test_two_processes_list_and_count_what_either_meets(spoilt, tmp_path):
    printed = output_of_command(
        *(*TRAINING, "--data", spoilt[0], "--workers", 2, "--out-dir", tmp_path, *SKIP),
        *("--multiprocessing-distributed", "--nproc", 2),
        *("--dist-url", free_dist_url(), "--dist-backend", "gloo"),
    )
    assert ", 3 bad images skipped" in printed
    assert sorted(listed(tmp_path)) == sorted(spoilt[1])
    assert len(read_log(tmp_path)) == 1


def loader(images, rank=0, world_size=1, workers=0, bad_images=None, train=True, batch_size=50):
    process = Process(rank, world_size, CPU)
    shuffle_seed = 5 if train else None
    sampler = GlobalBatches(
        len(images), batch_size, process, shuffle_seed, shard_sizes=images.shard_sizes
    )
    dataset = (
        training_images(images, RECIPE, 0, replace_bad=True)
        if train
        else validation_images(images, RECIPE, 0)
    )
    return BatchLoader(dataset, sampler, workers, process, 0, bad_images)


def test_another_image_takes_the_place_of_a_bad_one(spoilt, tmp_path):
    """The same one however many processes share the work; every share has its size."""
    data = load_image_folders(str(spoilt[0]), None, True)
    names = [data.train.name(index) for index in range(200)]
    augmented = training_images(data.train, RECIPE, 0)
    good = [index + 1 if names[index] in spoilt[1] else index for index in range(200)]
    samples = collate([augmented[SampleKey(0, index)] for index in good]).samples
    images = augmented.batch_transform(samples.image, samples.draws)
    expected = Counter(image.numpy().tobytes() for image in images)
    assert sorted(expected.values())[-3:] == [1, 2, 2]
    for world_size in (1, 3):
        loaded = Counter()
        for rank in range(world_size):
            bad_images = BadImages("training", 200, tmp_path / "list", list_bad_images)
            for batch in loader(data.train, rank, world_size, bad_images=bad_images):
                assert len(batch.images) == len(range(rank, 50, world_size))
                assert batch.global_size == 50
                loaded.update(image.numpy().tobytes() for image in batch.images)
            assert set(bad_images.reasons) <= set(spoilt[1][:2])
        assert loaded == expected


def test_share_of_bad_images_alone_is_passed_over_in_an_evaluation(spoilt, tmp_path):
    data = load_image_folders(str(spoilt[0]), None, True)
    bad_images = BadImages("validation", 120, tmp_path / "list", list_bad_images)
    batches = list(loader(data.val, bad_images=bad_images, train=False, batch_size=1))
    assert [len(batch.images) for batch in batches] == [1] * 119
    assert list(bad_images.reasons) == [spoilt[1][2]]


def files_with_bad_ones(folder, count, bad):
    """Return ``count`` images, those with the numbers ``bad`` unreadable, each of another name."""
    good = next(folder.glob("train/class0/0_0.JPEG"))
    return ImageFiles(
        [(str(folder / f"bad{i}.JPEG" if i in bad else good), i) for i in range(count)]
    )


def test_many_bad_images_in_a_row_are_left_behind(whole, tmp_path):
    """In few tries, and beyond the data set's end it goes on at the start."""
    images = files_with_bad_ones(whole, 100_000, {*range(99_500, 100_000), *range(200)})
    dataset = training_images(images, RECIPE, 0, replace_bad=True)
    for index in (99_500, 99_999, 0):
        *bad, sample = dataset.__getitems__([SampleKey(0, index)])
        assert len(bad) <= 11
        assert all("No such file" in image.reason for image in bad)
        assert 200 <= sample.target < 99_500


def test_no_image_for_the_place_of_a_bad_one(whole, tmp_path):
    """An error although they are few; without it the step would be of fewer images."""
    images = files_with_bad_ones(whole, 2000, {0, *(2**power for power in range(11))})
    bad_images = BadImages("training", 2000, tmp_path / "list", list_bad_images)
    with pytest.raises(UserError, match=r"bad1024\.JPEG: cannot be read as an image"):
        list(loader(images, bad_images=bad_images))
    assert not (tmp_path / "list").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("split", "images", "bad"), [("train", 200, 3), ("val", 120, 2), ("train", 99, 1)]
)
def test_over_a_hundredth_stops_the_run(whole, tmp_path, split, images, bad, workers):
    folder = shutil.copytree(whole, tmp_path / "data")
    files = sorted((folder / split).glob("*/*"))
    for path in files[bad : bad + len(files) - images]:
        path.unlink()
    names = [str(overwrite(path)) for path in files[:bad]]
    out = tmp_path / "out"
    message = error_here(
        *(*TRAINING, "--data", folder, "--workers", workers, "--out-dir", out, *SKIP)
    )
    assert f"{bad} of {images}" in message
    assert "1%" in message
    assert str(out / "bad_images.txt") in message
    assert sorted(listed(out)) == names
    assert not (out / "log.csv").exists()


def test_over_a_hundredth_stops_an_evaluation(whole, run_that_skipped, tmp_path):
    """Also where --limit-val-batches leaves few of the data set's images."""
    folder = shutil.copytree(whole, tmp_path / "data")
    overwrite(folder / "val" / "class0" / "0_3.JPEG")
    checkpoint = run_that_skipped[1] / "checkpoint-epoch1.pth.tar"
    evaluation = (*NETWORK, "--evaluate", "--resume", checkpoint, "--workers", 0, *SKIP)
    options = ("--data", folder, "--out-dir", tmp_path, "--batch-size", 50)
    message = error_here(*evaluation, *options, "--limit-val-batches", 1)
    assert "1 of 50 validation images" in message
    assert len(listed(tmp_path)) == 1


def count_of_both(rank, folder):
    """As one of two processes that know of one bad image each, the same one or not."""
    process = Process(rank, 2, CPU)
    same, other = (BadImages("training", 100, folder / "list", list_bad_images) for _ in range(2))
    with gloo_group(folder, rank, world_size=2):
        same.reasons["a"] = "cut"
        assert same.of_all(process) == {"a": "cut"}
        other.reasons[f"{rank}"] = "cut"
        with pytest.raises(UserError, match="2 of 100 training images"):
            other.of_all(process)


@pytest.mark.slow
def test_over_a_hundredth_in_all_processes_together(tmp_path):
    """No process alone knows of too many."""
    run_warm(count_of_both, (tmp_path,), 2)
    assert (tmp_path / "list").read_text() == "0\tcut\n1\tcut\n"


def test_error_says_how_to_skip(spoilt, tmp_path):
    message = error_here(*TRAINING, "--data", spoilt[0], "--workers", 0, "--out-dir", tmp_path)
    assert any(name in message for name in spoilt[1])
    assert "--on-bad-image skip" in message
    assert not list(tmp_path.iterdir())


@pytest.fixture
def shards(whole, tmp_path):
    """Return the URLs of shards in which one training image is a text."""
    images = shutil.copytree(whole, tmp_path / "images")
    overwrite(images / "train" / "class1" / "1_42.JPEG")
    assert write_shards.main([str(images), str(tmp_path / "shards"), "--samples", "50"]) == 0
    return (
        tmp_path / "shards" / "train-{0000..0003}.tar",
        tmp_path / "shards" / "val-{0000..0002}.tar",
    )


def test_bad_image_in_a_shard(shards, tmp_path):
    data = load_shards(*map(str, shards), Process(0, 1, CPU))
    bad_images = BadImages("training", 200, tmp_path / "list", list_bad_images)
    batches = list(loader(data.train, workers=2, bad_images=bad_images))
    assert [len(batch.images) for batch in batches] == [50] * 4
    ((name, reason),) = bad_images.reasons.items()
    assert "shards/train-000" in name and ".tar, image " in name
    assert "cannot identify image" in reason


def test_shard_that_breaks_off_is_no_bad_image(shards, tmp_path):
    """It holds thousands, which would be looked for in vain, each from the shard's start."""
    data = load_shards(*map(str, shards), Process(0, 1, CPU))
    path = tmp_path / "shards" / "train-0002.tar"
    path.write_bytes(path.read_bytes()[:20_000])
    bad_images = BadImages("training", 200, tmp_path / "list", list_bad_images)
    with pytest.raises(UserError, match=r"train-0002\.tar, image \d+: cannot be read"):
        list(loader(data.train, bad_images=bad_images))


def test_list_holds_any_name_once(tmp_path):
    path = tmp_path / "new" / "bad_images.txt"
    names = ["a", "with\ttab", "with  spaces", b"not-utf8-\xff".decode(errors="surrogateescape")]
    for _ in range(2):
        list_bad_images(dict.fromkeys(names, "cut"), path)
    assert path.read_bytes() == b"a\tcut\nnot-utf8-\xff\tcut\nwith\ttab\tcut\nwith  spaces\tcut\n"
    list_bad_images({"a": "another reason", "b": "cut"}, path)
    assert path.read_bytes().startswith(b"a\tcut\nnot-utf8")
    assert path.read_bytes().endswith(b"spaces\tcut\nb\tcut\n")


def test_no_bad_images_no_list(whole, tmp_path):
    options = ("--data", whole, "--workers", 0, "--out-dir", tmp_path, *SKIP)
    printed = output_here(*TRAINING, *options, "--limit-train-batches", 1)
    assert "bad images" not in printed
    assert not (tmp_path / "bad_images.txt").exists()
