"""Batches: who takes which sample, and with which random numbers."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler

from training.errors import UserError
from training.images.datasets import ImageArray, ImageFiles
from training.images.mixing import Mixing
from training.loading.batches import BatchLoader
from training.loading.global_batches import GlobalBatches
from training.loading.samples import SampleKey, training_images
from training.processes.ranks import Process
from training.recipes import RECIPES

CPU = torch.device("cpu")


def indices(batches):
    return [[key.index for key in share] for share in batches]


def sampler(count, size, rank=0, world_size=1, epoch=0, **options):
    batches = GlobalBatches(count, size, Process(rank, world_size, CPU), **options)
    batches.set_epoch(epoch)
    return batches


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 20),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
    shuffle_seed=st.one_of(st.none(), st.integers(0, 5)),
)
def test_the_processes_share_each_global_batch(count, size, world_size, epoch, shuffle_seed):
    options = {"epoch": epoch, "shuffle_seed": shuffle_seed}
    whole = indices(sampler(count, size, **options))
    shares = [
        indices(sampler(count, size, rank, world_size, **options)) for rank in range(world_size)
    ]
    assert sorted(index for batch in whole for index in batch) == list(range(count))
    for number, batch in enumerate(whole):
        taken = [index for share in shares for index in share[number]]
        assert sorted(taken) == sorted(batch)
        sizes = [len(share[number]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 50),
    size=st.integers(1, 20),
    world_size=st.integers(1, 4),
    repeats=st.integers(1, 4),
    shuffle_seed=st.one_of(st.none(), st.integers(0, 5)),
)
def test_repeated_augmentation(count, size, world_size, repeats, shuffle_seed):
    """Each image ``repeats`` times in a row, and over the processes, as long as the epoch goes."""
    order = [index for batch in sampler(count, count, shuffle_seed=shuffle_seed) for index in batch]
    expected = [SampleKey(0, key.index, repeat) for key in order for repeat in range(repeats)][
        :count
    ]
    options = {"shuffle_seed": shuffle_seed, "repeats": repeats}
    shares = [list(sampler(count, size, rank, world_size, **options)) for rank in range(world_size)]
    for number, start in enumerate(range(0, count, size)):
        batch = expected[start : start + size]
        for rank, share in enumerate(shares):
            assert share[number] == batch[rank::world_size]


def test_repeated_augmentation_goes_on_within_an_epoch():
    whole = sampler(30, 4, shuffle_seed=1, repeats=3)
    rest = sampler(30, 4, shuffle_seed=1, repeats=3)
    rest.set_epoch(0, first_batch=3)
    assert list(rest) == list(whole)[3:]


def rest_is_what_is_left(before, now, batches):
    """Whether a run of ``now`` takes, after ``batches`` of ``before``, none of their samples."""
    taken = [key for batch in list(before)[:batches] for key in batch]
    now.set_epoch(before.epoch, batches)
    return not set(taken) & {key for batch in now for key in batch}


@settings(max_examples=100, deadline=None)
@given(
    shard_sizes=st.one_of(st.none(), st.lists(st.integers(1, 12), min_size=1, max_size=5)),
    size=st.integers(1, 9),
    workers=st.integers(0, 3),
    repeats=st.integers(1, 2),
    smallest=st.integers(1, 9),
    limit=st.one_of(st.none(), st.integers(1, 6)),
    cut=st.booleans(),
    data=st.data(),
)
def test_same_checksum_leaves_the_same_samples(
    shard_sizes, size, workers, repeats, smallest, limit, cut, data
):
    """After the first batches of an epoch, whatever the later ones are. Without shards, always."""
    count = 40 if shard_sizes is None else sum(shard_sizes)
    options = {"epoch": 2, "shuffle_seed": 1, "workers": workers, "repeats": repeats}
    before = sampler(count, size, shard_sizes=shard_sizes, **options)
    recut = [count // 2, count - count // 2] if cut and shard_sizes is not None else shard_sizes
    now = sampler(count, size, shard_sizes=recut, smallest=smallest, limit=limit, **options)
    batches = data.draw(st.integers(1, len(before)))
    same = before.checksum(2, batches) == now.checksum(2, batches)
    assert same or shard_sizes is not None
    if same:
        assert rest_is_what_is_left(before, now, batches)


@pytest.mark.parametrize(
    "change", [{"smallest": 5}, {"limit": 8}, {"shard_sizes": [52, 52]}, {"workers": 3}]
)
def test_checksum_tells_other_samples(change):
    """Of shards of 104 samples, whose last batch has 4."""
    options = {"shuffle_seed": 7, "shard_sizes": [30, 30, 44], "workers": 2}
    before, now = sampler(104, 10, **options), sampler(104, 10, **{**options, **change})
    assert not rest_is_what_is_left(before, now, 3)
    assert before.checksum(0, 3) != now.checksum(0, 3)


def test_checksum_is_the_same_in_each_process_and_of_one_epoch():
    options = {"shuffle_seed": 7, "shard_sizes": [30, 30, 44], "workers": 2}
    one, other = (sampler(104, 10, rank, 2, epoch=rank, **options) for rank in range(2))
    assert one.checksum(1, 3) == other.checksum(1, 3)
    assert len({one.checksum(epoch, batches) for epoch in range(2) for batches in (1, 2)}) == 4


def test_order_is_that_of_timm_s_sampler():
    """But for its shuffling, and that it leaves out up to 255 images."""
    of_timm = [
        list(RepeatAugSampler(range(512), 2, rank, shuffle=False, num_repeats=3))
        for rank in range(2)
    ]
    ours = [
        [index for batch in indices(sampler(512, 64, rank, 2, repeats=3)) for index in batch]
        for rank in range(2)
    ]
    assert ours == of_timm


def test_order_differs_between_epochs_and_seeds_and_repeats():
    orders = [
        tuple(indices(sampler(50, 50, epoch=epoch, shuffle_seed=seed))[0])
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4
    assert tuple(indices(sampler(50, 50, epoch=0, shuffle_seed=0))[0]) == orders[0]


def test_small_last_batch_is_left_out_and_limit_cuts():
    assert [len(batch) for batch in sampler(21, 5)] == [5, 5, 5, 5, 1]
    assert [len(batch) for batch in sampler(21, 5, smallest=2)] == [5, 5, 5, 5]
    assert sampler(21, 5, limit=2).global_sizes == [5, 5]


def noise_images(count):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageArray(pixels, np.arange(count))


def augmented(dataset, recipe="digits"):
    return training_images(dataset, RECIPES[recipe], seed=5)


def loaded(recipe, workers, batch_size=4, rank=0, world_size=1):
    """Return {sample: augmented image} of one process's epoch."""
    process = Process(rank, world_size, CPU)
    batches = GlobalBatches(11, batch_size, process, shuffle_seed=5)
    loader = BatchLoader(augmented(noise_images(11), recipe), batches, workers, process, seed=5)
    loader.set_epoch(0)
    return {
        target: image
        for batch in loader
        for image, target in zip(batch.images, batch.targets.tolist(), strict=True)
    }


def assert_same_images(actual, expected):
    assert actual.keys() == expected.keys()
    for sample, image in actual.items():
        assert torch.equal(image, expected[sample])


@pytest.mark.parametrize("recipe", RECIPES)
def test_augmentation_does_not_depend_on_workers_processes_or_batches(recipe):
    expected = loaded(recipe, workers=0)
    assert len(expected) == 11
    assert_same_images(loaded(recipe, workers=2), expected)
    assert_same_images(loaded(recipe, workers=0, batch_size=3), expected)
    shares = [loaded(recipe, workers=0, rank=rank, world_size=2) for rank in (0, 1)]
    assert_same_images(shares[0] | shares[1], expected)


def test_augmentation_differs_between_epochs_and_samples():
    image = noise_images(1).images
    dataset = augmented(ImageArray(np.repeat(image, 2, axis=0), np.zeros(2)))
    first, other_sample, other_epoch = (
        dataset[SampleKey(epoch, index)][0] for epoch, index in ((0, 0), (0, 1), (1, 0))
    )
    assert not torch.equal(first, other_sample)
    assert not torch.equal(first, other_epoch)
    assert torch.equal(first, dataset[SampleKey(0, 0)][0])


def test_augmentation_differs_between_repeats():
    dataset = augmented(noise_images(1))
    first, second = (dataset[SampleKey(0, 0, repeat)].image for repeat in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(second, dataset[SampleKey(0, 0, 1)].image)


def mixed(first_batch=0, epoch=0, rank=0, world_size=1):
    process = Process(rank, world_size, CPU)
    batches = GlobalBatches(12, 4, process, shuffle_seed=5)
    loader = BatchLoader(
        augmented(noise_images(12)), batches, 0, process, seed=5, mixing=Mixing(0.2, 1.0, 12)
    )
    loader.set_epoch(epoch, first_batch)
    return list(loader)


def test_batches_are_mixed_the_same_way_after_a_resume():
    whole, rest = mixed(), mixed(first_batch=1)
    assert len(rest) == 2
    for batch, expected in zip(rest, whole[1:], strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.soft_targets, expected.soft_targets)
        assert torch.equal(batch.targets, expected.targets)


def test_batches_are_mixed_otherwise_each_time():
    shares = [mixed()[number].soft_targets.max(1).values for number in range(3)]
    shares += [mixed(epoch=1)[0].soft_targets.max(1).values]
    shares += [batches[0].soft_targets.max(1).values for batches in (mixed(rank=1, world_size=2),)]
    assert len({tuple(share.tolist()[:2]) for share in shares}) == 5


def test_augmentation_leaves_the_global_random_state_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    augmented(noise_images(1))[SampleKey(0, 0)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"not a picture", "half a header", "half its pixels"])
def test_unreadable_image_is_named(tmp_path, workers, content):
    good, bad = tmp_path / "good.jpeg", tmp_path / "bad.jpeg"
    noise_images(1).image(0).save(good)
    whole = good.read_bytes()
    cut = {"half a header": whole[:400], "half its pixels": whole[: 300 + len(whole) // 2]}
    bad.write_bytes(cut.get(content, content))
    files = ImageFiles([(str(good), 0), (str(bad), 1)])
    process = Process(0, 1, CPU)
    loader = BatchLoader(augmented(files), GlobalBatches(2, 2, process), workers, process, seed=0)
    with pytest.raises(UserError, match=f"{bad}: cannot be read as an image"):
        list(loader)
