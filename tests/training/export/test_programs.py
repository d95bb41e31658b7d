"""Networks that leave the trainer: what is written, what travels along, what is checked."""

import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import models
from tests.support.paths import REPOSITORY
from tests.support.small_networks import small_resnet
from training.checkpoints import network as checkpoint_network
from training.checkpoints.format import load_checkpoint
from training.checkpoints.weights import weights_of_file
from training.errors import UserError
from training.export import programs
from training.export.__main__ import FORMATS, main
from training.export.command import WRITERS
from training.export.deployment import Deployment, deployment_of
from training.recipes import RECIPES

STATS = ("train_err1", "train_err5", "train_loss", "test_err1", "test_err5", "test_loss")


def missing(*packages):
    return any(importlib.util.find_spec(name) is None for name in packages)


needs_onnx = pytest.mark.skipif(
    missing("onnx", "onnxruntime", "onnxscript"), reason="needs ONNX: pip install '.[onnx]'"
)
needs_safetensors = pytest.mark.skipif(
    missing("safetensors"), reason="needs safetensors: pip install '.[onnx]'"
)


@pytest.fixture
def model(monkeypatch):
    """A network with every kind of layer of a ResNet, that exporters take seconds for."""
    torch.manual_seed(0)
    network = small_resnet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    monkeypatch.setattr(checkpoint_network, "create_model", lambda *_: small_resnet())
    return network.eval()


@pytest.fixture
def checkpoint(tmp_path, model):
    path = tmp_path / "checkpoint.pth.tar"
    content = {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": model.state_dict(),
        "stats": {name: [50.0] for name in STATS},
        "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict(),
        "args": {"pool": "max_ent", "config_name": "imagenet", "interpolation": "bicubic"},
    }
    torch.save(content, path)
    return path


def run(*options):
    """Run the command in this process: exit code, standard output and standard error."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            code = main([str(option) for option in options])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def written(checkpoint, format, *options):
    """Export to a file and return it; it must be said what is in there."""
    path = checkpoint.with_name(f"exported.{format}")
    code, said, error = run(checkpoint, path, "--format", format, *options)
    assert code == 0, error
    start = f"{path}: resnet18 with pooling max_ent, epoch 1, 10 classes, images 64x64; "
    assert said.startswith(start)
    assert list(checkpoint.parent.glob("*.tmp")) == []
    return path, said.removeprefix(start)


def images(batch):
    return torch.rand((batch, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def assert_deployment(texts):
    deployment = Deployment.of_texts(texts)
    assert (deployment.arch, deployment.pool) == ("resnet18", "max_ent")
    assert deployment.classes == tuple(f"class {number}" for number in range(10))
    # 64 of 73 as 224 of 256, the recipe's.
    assert (deployment.image_size, deployment.resized_to) == (64, 73)
    assert deployment.mean == (0.485, 0.456, 0.406)
    assert deployment.std == (0.229, 0.224, 0.225)
    assert (deployment.interpolation, deployment.epoch) == ("bicubic", 1)


SIZE = ("--image-size", 64)


@pytest.mark.parametrize(("size", "resized_to"), [(256, 292), (320, 365), (384, 438)])
def test_images_of_another_size_are_resized_as_in_evaluation(checkpoint, size, resized_to):
    """The floor of the size over 224 / 256; a size that the run was told keeps its proportion."""
    loaded = load_checkpoint(str(checkpoint))
    assert deployment_of(loaded, "max_ent", size).resized_to == resized_to
    assert replace(RECIPES["imagenet"], image_size=size).resized_to == resized_to
    told = replace(loaded, args={**loaded.args, "val_size": 248})
    assert deployment_of(told, "max_ent", size).resized_to == round(248 * size / 224)


PAGE = (REPOSITORY / "docs/deployment.md").read_text(encoding="utf-8")


def result_of_page(section, path, monkeypatch):
    """What the code of a section of the page leaves, beside the exported file and an image."""
    (code,) = re.findall(rf"## {section}\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    path.rename(path.with_stem("network"))
    numbers = np.random.RandomState(0).randint(256, size=(80, 107, 3), dtype=np.uint8)
    Image.fromarray(numbers).save(path.with_name("image.png"))
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(models, "create_model", lambda *_: small_resnet())
    names = {}
    exec(code, names)
    return names


def assert_code_of_page(section, path, model, monkeypatch):
    """It gives what the network makes of the trainer's own validation image."""
    names = result_of_page(section, path, monkeypatch)
    recipe = replace(RECIPES["imagenet"], image_size=64, val_size=73, interpolation="bicubic")
    in_worker, of_batch = recipe.val_steps()
    image = in_worker(Image.open(path.with_name("image.png")))
    with torch.no_grad():
        expected = model(of_batch(image[None], []))
    logits = torch.as_tensor(names["logits"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert names["name"] == f"class {expected.argmax()}"


def test_archive_of_torch_export(checkpoint, model, monkeypatch):
    path, said = written(checkpoint, "pt2", *SIZE)
    assert said.startswith("torch.export.load: logits differ by at most ")
    files = {"deployment.json": ""}
    program = torch.export.load(path, extra_files=files).module()
    assert_deployment(json.loads(files["deployment.json"]))
    for batch in (1, 2, 5):
        torch.testing.assert_close(program(images(batch)), model(images(batch)))
    assert_code_of_page("torch.export", path, model, monkeypatch)


@needs_safetensors
def test_safetensors_are_weights_of_a_network_that_is_known(checkpoint):
    path, _ = written(checkpoint, "safetensors", *SIZE)
    ours, theirs = weights_of_file("--weights", str(path)), weights_of_file("", str(checkpoint))
    assert (ours.arch, ours.pool) == (theirs.arch, theirs.pool)
    assert ours.outputs == theirs.outputs and ours.tensors.keys() == theirs.tensors.keys()


@needs_safetensors
def test_safetensors(checkpoint, model, monkeypatch):
    from safetensors import safe_open

    path, _ = written(checkpoint, "safetensors", *SIZE)
    with safe_open(path, "pt") as file:
        assert_deployment(file.metadata())
        assert set(file.keys()) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor), name
    network = result_of_page("safetensors", path, monkeypatch)["network"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


@needs_safetensors
def test_classs_name_may_be_no_text(checkpoint):
    """As a folder's may be, which metadata cannot hold."""
    from safetensors import safe_open

    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "classes": ["caf\udce9"]}, checkpoint)
    path, _ = written(checkpoint, "safetensors", *SIZE)
    with safe_open(path, "pt") as file:
        classes = Deployment.of_texts(file.metadata()).classes
    assert classes[:2] == ("caf\N{REPLACEMENT CHARACTER}", "class 1")


@pytest.mark.slow
@needs_onnx
def test_onnx_model(checkpoint, model, monkeypatch):
    import onnx
    import onnxruntime

    path, said = written(checkpoint, "onnx", *SIZE)
    assert said.startswith("ONNX Runtime ")
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_deployment(session.get_modelmeta().custom_metadata_map)
    (input,), (output,) = session.get_inputs(), session.get_outputs()
    assert (input.name, input.shape[1:]) == ("images", [3, 64, 64])
    assert (output.name, output.shape[1:]) == ("logits", [10])
    for batch in (1, 2, 5):
        (logits,) = session.run(None, {"images": images(batch).numpy()})
        with torch.no_grad():
            expected = model(images(batch))
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
    assert_code_of_page("ONNX", path, model, monkeypatch)


def test_sizes_are_the_recipes_unless_given():
    fields = {"arch": "resnet18", "epoch": 1, "classes": ("a", "b"), "path": "FILE"}
    tensors = {"fc.bias": torch.zeros(3)}
    checkpoint = SimpleNamespace(**fields, state_dict=tensors, args={"config_name": "digits"})
    deployment = deployment_of(checkpoint, "max", image_size=None)
    assert deployment.classes == ("a", "b", "class 2")
    assert (deployment.image_size, deployment.resized_to) == (32, 32)
    assert (deployment.mean, deployment.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    published = SimpleNamespace(**fields, state_dict=tensors, args=None)
    assert deployment_of(published, "max", image_size=None).image_size == 224
    unknown = SimpleNamespace(**fields, state_dict=tensors, args={"config_name": "mine"})
    with pytest.raises(UserError, match=r"FILE: .*recipe 'mine'"):
        deployment_of(unknown, "max", image_size=None)


def error_of(*options):
    """Run the command, which must refuse; return the one line of its error."""
    code, _, error = run(*options)
    assert code == 2
    assert error.startswith("training.export: error: ")
    assert error.count("\n") == 1
    return error


def test_program_that_computes_something_else_is_not_left(checkpoint, monkeypatch):
    monkeypatch.setattr(
        torch.export, "load", lambda _: SimpleNamespace(module=lambda: lambda x: torch.zeros(10))
    )
    path = checkpoint.with_name("exported.pt2")
    path.write_text("before")
    error = error_of(checkpoint, path, "--format", "pt2", *SIZE)
    assert "differ from the network's by 1.0e+00" in error
    assert path.read_text() == "before"


def test_difference_of_one_bit_is_seen():
    """It counts against the largest logit, and what is no number is none."""
    deployment = SimpleNamespace(image_size=2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    said = programs.difference(network, lambda x: network(x) * (1 + 2**-20), deployment)
    assert said == "logits differ by at most 9.5e-07 of the largest, in batches of 1 and 3"
    for wrong in (1.001, float("nan")):
        with pytest.raises(UserError, match="differ"):
            programs.difference(network, lambda x, factor=wrong: network(x) * factor, deployment)


@pytest.mark.parametrize(("format", "package"), [("safetensors", "safetensors"), ("onnx", "onnx")])
def test_missing_package_is_one_line(checkpoint, monkeypatch, format, package):
    for name in [*sys.modules, "safetensors.torch", "onnx"]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    error = error_of(checkpoint, checkpoint.with_name("out"), "--format", format)
    assert f"--format {format}: needs {package}: pip install {package}" in error


def test_files_that_are_not_there(checkpoint, tmp_path):
    out = tmp_path / "none" / "out"
    error = error_of(checkpoint, out, "--format", "published")
    assert f"{out}: cannot be written" in error
    assert "--out-dir" not in error
    missing_file = tmp_path / "missing.pth.tar"
    error = error_of(missing_file, tmp_path / "out", "--format", "pt2")
    assert f"{missing_file}: no such file" in error
    assert "--resume" not in error


def test_formats_are_those_that_are_written():
    assert set(FORMATS) == set(WRITERS)


def test_help_imports_no_large_package():
    program = (
        "import sys; from training.export.__main__ import make_parser\n"
        "make_parser().format_help(); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "training" in modules
    assert not modules & {"torch", "torchvision", "numpy", "PIL", "onnx", "safetensors"}
