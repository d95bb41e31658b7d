"""A file from elsewhere never runs code, whichever option it is handed to."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tests.support.command_line import error_here, run_here


class Hostile:
    """Its pickle creates the file ``victim`` when it is loaded as pickles commonly are."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def zip_archive(content, path):
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def old_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [plain_pickle, zip_archive, old_format])
@pytest.mark.parametrize("options", [("--resume",), ("--weights",), ("--evaluate", "--resume")])
def test_code_in_a_file_is_not_run(tmp_path, write, options):
    path, victim = tmp_path / "hostile.pth.tar", tmp_path / "victim"
    content = {"epoch": 1, "arch": "resnet18", "stats": {}, "optimizer": {}, "args": {}}
    write({**content, "state_dict": {"weight": Hostile(victim)}}, path)
    out = tmp_path / "out"
    small = ("--dataset", "digits", "--arch", "resnet18", "--cpu", "--out-dir", out)
    assert str(path) in error_here(*small, *options, path)
    assert not victim.exists()
    assert not out.exists() or not list(out.iterdir())
    # It is hostile: loaded without care, it does its deed.
    if write is plain_pickle:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert victim.exists()


def test_newest_checkpoint_is_read_with_the_same_care(tmp_path):
    victim = tmp_path / "victim"
    zip_archive({"args": Hostile(victim)}, tmp_path / "checkpoint-epoch9.pth.tar")
    code, _, err = run_here(
        *("--dataset", "digits", "--arch", "resnet18", "--cpu"),
        *("--resume", "auto", "--out-dir", tmp_path),
    )
    assert code == 2
    assert "none of the 1 checkpoints" in err
    assert not victim.exists()
