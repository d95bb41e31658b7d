"""The networks through ``torch.hub``, from a process that knows nothing of the repository."""

import json
import subprocess
import sys

import pytest
import torch

from models import create_model, list_models
from tests.support.paths import REPOSITORY

PROGRAM = """
import json, sys
import torch

folder, hub, name = sys.argv[1:]
model = torch.hub.load(folder, "resnet18", pool="avg", num_classes=5, source="local")
logits = model(torch.rand(2, 3, 32, 32))
torch.hub.set_dir(hub)
print(json.dumps({
    "shape": list(logits.shape),
    "tensors": list(model.state_dict()),
    "names": torch.hub.list(name, trust_repo=True),
    "help": torch.hub.help(name, "densenet169", trust_repo=True),
}))
"""


def test_from_another_folder(tmp_path):
    # `list` and `help` know repositories of GitHub alone, but look into torch.hub's folder first.
    (tmp_path / "owner_gfgp-cupy_main").symlink_to(REPOSITORY)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, REPOSITORY, tmp_path, "owner/gfgp-cupy:main"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["shape"] == [2, 5]
    assert found["tensors"] == list(create_model("resnet18", pool="avg").state_dict())
    assert sorted(found["names"]) == list_models()
    assert "densenet169 of T. Kobayashi" in found["help"]
    assert "num_classes: length" in found["help"]


def test_another_package_of_that_name_is_told(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    load = f"torch.hub.load({str(REPOSITORY)!r}, 'resnet18', source='local')"
    command = [sys.executable, "-c", f"import models, torch; {load}"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("ImportError: <module 'models' from ") and str(tmp_path) in last


@pytest.mark.parametrize("name", ["densenet121", "resnext50_32x4d", "vgg16bow_bn"])
def test_an_entry_point_is_its_network(name):
    with torch.device("meta"):
        loaded = torch.hub.load(str(REPOSITORY), name, source="local")
        expected = create_model(name, pool="max_ent")
    assert str(loaded) == str(expected)


def test_an_unknown_pool_is_an_error():
    with pytest.raises(ValueError, match="max_ent"):
        torch.hub.load(str(REPOSITORY), "resnet18", pool="max_end", source="local")
