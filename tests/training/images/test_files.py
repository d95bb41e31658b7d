"""Lists of image files: as torchvision finds them, in a few bytes each."""

import tracemalloc

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from training.images.files import ImageFiles, find_images

PATHS = [f"n{number // 10:08d}/n{number // 10:08d}_{number}.JPEG" for number in range(2000)]


def test_each_file_keeps_its_name_and_class():
    files = ImageFiles(((path, number % 7) for number, path in enumerate(PATHS)), root="train")
    assert len(files) == len(PATHS)
    assert [files.name(index) for index in range(len(files))] == [f"train/{path}" for path in PATHS]
    assert [files.target(index) for index in range(len(files))] == [n % 7 for n in range(2000)]
    some = files.subset([5, 0, 1999])
    assert [some.name(index) for index in range(3)] == [f"train/{PATHS[n]}" for n in (5, 0, 1999)]
    assert [some.target(index) for index in range(3)] == [5, 0, 1999 % 7]


def test_names_that_are_no_text(tmp_path):
    """A file system's names are bytes."""
    name = b"caf\xe9 \xff.png".decode("utf-8", "surrogateescape")
    files = ImageFiles([(name, 0), ("é.png", 1)])
    assert [files.name(0), files.name(1)] == [name, "é.png"]


def test_list_is_three_arrays_and_no_object_for_each_file():
    """Of which every worker process would come to hold a copy of its own."""
    tracemalloc.start()
    files = ImageFiles((PATHS[number % 2000], 0) for number in range(20_000))
    blocks = tracemalloc.take_snapshot().statistics("filename")
    tracemalloc.stop()
    assert sum(block.count for block in blocks) < 200
    arrays = [value for value in vars(files).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == 10 * sum(map(len, PATHS)) + 8 * 20_001 + 80_000


def test_files_are_found_in_the_order_of_torchvision(tmp_path):
    for path in (
        *("b/2.png", "b/10.PNG", "b/deeper/1.jpg", "b/deeper-still/1.jpg", "b/notes.txt"),
        *("a/1.tiff", "a/x.jpeg/1.webp", "unknown/1.png"),
        *(f"b/{number}.jpg" for number in (5, 3, 9, 1, 7)),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "b" / "linked").symlink_to(tmp_path / "a")
    classes = {"b": 3, "a": 1}
    files = ImageFiles(find_images(str(tmp_path), classes), root=str(tmp_path))
    found = [(files.name(index), files.target(index)) for index in range(len(files))]
    assert found == make_dataset(str(tmp_path), classes, IMG_EXTENSIONS)
    assert len(found) == 13


def test_links_back_to_a_folder_are_not_followed(tmp_path):
    for path in ("a/1.png", "b/deeper/2.png", "c/3.png", "d/4.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "d" / "self").symlink_to(".")
    (tmp_path / "b" / "deeper" / "above").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "c")
    (tmp_path / "c" / "back").symlink_to(tmp_path / "a")
    found = [path for path, _ in find_images(str(tmp_path), {"a": 0, "b": 1, "c": 2, "d": 3})]
    assert found == [
        *("a/1.png", "a/other/3.png", "b/deeper/2.png", "c/3.png", "c/back/1.png", "d/4.png"),
    ]
