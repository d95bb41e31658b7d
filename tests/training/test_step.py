"""A step against its mathematics: parts of a batch, smoothed labels, averages, small types."""

import copy

import pytest
import torch
from torch import nn

from tests.support.command_line import error_here, output_here
from tests.support.tiny_network import create_tiny_network
from train_imagenet import parse_settings
from training.forward import Forward
from training.loading.batches import Batch
from training.processes.ranks import Process
from training.records.metrics import ScoreSums
from training.run import Run
from training.step import make_training_step

ONE = Process(0, 1, torch.device("cpu"))


def network():
    """Without batch normalisation, whose statistics are those of a part of the batch."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))


def batch(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 6, 6, generator=generator)
    return Batch(images, torch.randint(5, (count,), generator=generator), global_size=count)


def step_of(model, *options):
    settings = parse_settings(["--cpu", "--lr", "0.1", *map(str, options)])
    return make_training_step(model, None, Run(settings, ONE, seed=0))


def parameters_after(model, batches, *options):
    """Return a copy of ``model``'s parameters after a step each, and the last scores."""
    model = copy.deepcopy(model)
    step = step_of(model, *options)
    for content in batches:
        sums = ScoreSums(ONE.device)
        step(content, sums)
    return [parameter.detach() for parameter in model.parameters()], sums.scores()


def test_parts_of_a_batch_make_the_step_of_the_whole():
    """Of 7 images in 3 parts, which cannot be equal."""
    model, batches = network(), [batch(7), batch(7, seed=1)]
    whole, scores = parameters_after(model, batches)
    parts, scores_of_parts = parameters_after(model, batches, "--accum-steps", "3")
    for expected, actual in zip(whole, parts, strict=True):
        torch.testing.assert_close(actual, expected)
    assert (scores_of_parts.err1, scores_of_parts.images) == (scores.err1, 7)
    assert scores_of_parts.loss == pytest.approx(scores.loss)


def test_label_smoothing_is_its_definition():
    """C. Szegedy et al., 2016, section 7: targets (1 - e) one-hot + e / classes."""
    model, content = network(), batch(6)
    smoothed, scores = parameters_after(model, [content], "--label-smoothing", "0.3")
    plain, _ = parameters_after(model, [content])
    targets = 0.7 * nn.functional.one_hot(content.targets, 5) + 0.3 / 5
    loss = -(targets * model(content.images).log_softmax(1)).sum(1).mean()
    assert scores.loss == pytest.approx(loss.item())
    loss.backward()
    settings = parse_settings(["--lr", "0.1", "--cpu"])
    lr, weight_decay = settings.learning_rates[0], settings.recipe.weight_decay
    for parameter, actual, other in zip(model.parameters(), smoothed, plain, strict=True):
        expected = parameter - lr * (parameter.grad + weight_decay * parameter)
        torch.testing.assert_close(actual, expected.detach())
        assert not torch.equal(actual, other)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_gradient_is_clipped_to_its_norm(amp):
    """Of the whole batch's gradient, without the scale of float16; a shorter one stays as it is."""
    model, content = network(), batch(6)
    plain = ("--momentum", "0", "--weight-decay", "0", "--amp", amp)

    def gradient(*options):
        after, _ = parameters_after(model, [content], *plain, *options)
        moves = [
            before.detach() - now for before, now in zip(model.parameters(), after, strict=True)
        ]
        lr = step_of(model, *plain).optimizer.param_groups[0]["lr"]
        return torch.cat([move.flatten() / lr for move in moves])

    whole = gradient()
    norm = whole.norm().item()
    clipped = gradient("--clip-grad", norm / 3, "--accum-steps", 2)
    torch.testing.assert_close(clipped, whole / 3, rtol=1e-2, atol=1e-3 * norm)
    torch.testing.assert_close(clipped.norm().item(), norm / 3, rtol=1e-3, atol=0)
    torch.testing.assert_close(gradient("--clip-grad", 2 * norm), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_amp_computes_in_the_small_type_and_steps_in_float32(name, dtype):
    model, seen = network(), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact, _ = parameters_after(model, [batch(6)])
    rounded, _ = parameters_after(model, [batch(6)], "--amp", name)
    assert seen == [torch.float32, dtype]
    for start, expected, actual in zip(model.parameters(), exact, rounded, strict=True):
        assert actual.dtype == torch.float32
        assert 0 < (actual - expected).norm() < 0.1 * (expected - start).norm()
    assert Forward(dtype)(model, batch(2).images).dtype == torch.float32


def test_float16_gradients_that_overflow_are_skipped_with_a_smaller_scale():
    model = network()
    step = step_of(model, "--amp", "fp16")
    before = [parameter.clone() for parameter in model.parameters()]
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**24})
    step(batch(6), ScoreSums(ONE.device))
    assert step.scaler.get_scale() == 2.0**23
    assert all(map(torch.equal, model.parameters(), before))


def test_steps_that_overflow_are_not_averaged():
    model = network()
    step = step_of(model, "--amp", "fp16", "--ema", "0.5")
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**24})
    moved = []
    while sum(moved) < 2:
        before = [parameter.clone() for parameter in model.parameters()]
        step(batch(6), ScoreSums(ONE.device))
        moved.append(not all(map(torch.equal, model.parameters(), before)))
        assert step.averaged.n_averaged == sum(moved)
    assert moved[0] is False


def test_channels_last_reaches_the_convolutions():
    settings = parse_settings(["--channels-last"])
    model = network().to(memory_format=settings.memory_format)
    seen = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    settings.forward(model, batch(6).images)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


RUN = (
    *("--dataset", "digits", "--arch", "resnet18", "--pool", "max_ent", "--cpu", "--seed", 5),
    *("--batch-size", 16, "--limit-train-batches", 2, "--limit-val-batches", 1, "--epochs", 2),
    *("--amp", "fp16", "--channels-last", "--accum-steps", 2, "--label-smoothing", 0.1),
)


@pytest.fixture(scope="module")
def tiny_network():
    """float16 takes a CPU so long that a ResNet would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.command.create_model", create_tiny_network)
        yield


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, tiny_network):
    out = tmp_path_factory.mktemp("whole")
    output_here(*RUN, "--ema", 0.5, "--out-dir", out)
    return out


def load(folder, epoch):
    return torch.load(folder / f"checkpoint-epoch{epoch}.pth.tar", weights_only=True)


def test_resumed_run_goes_on_with_scaler_and_average(whole_run, tmp_path):
    first = whole_run / "checkpoint-epoch1.pth.tar"
    output_here(*RUN, "--ema", 0.5, "--out-dir", tmp_path, "--resume", first)
    expected, resumed = load(whole_run, 2), load(tmp_path, 2)
    for key in ("state_dict", "ema"):
        for name, tensor in expected[key].items():
            assert torch.equal(resumed[key][name], tensor), name
    assert resumed["scaler"] == expected["scaler"] != load(whole_run, 1)["scaler"]
    assert expected["ema"]["n_averaged"] == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("ema", {"n_averaged": torch.tensor(1)}, "its averaged weights"), ("scaler", {}, "scaler")],
)
def test_state_that_does_not_fit_is_refused(whole_run, tmp_path, key, value, words):
    content = load(whole_run, 1)
    path = tmp_path / "other.pth.tar"
    torch.save({**content, key: value}, path)
    options = (*RUN, "--ema", 0.5, "--out-dir", tmp_path / "out", "--resume", path)
    assert words in error_here(*options)


class OneMoreWhereCompiled(nn.Module):
    def forward(self, input):
        return input + 1 if torch.compiler.is_compiling() else input


@pytest.mark.slow
def test_compiled_step_is_the_eager_step():
    """Of a network that tells, by adding one to its images, that it was compiled."""
    model, content = nn.Sequential(OneMoreWhereCompiled(), network()), batch(6)
    eager = copy.deepcopy(model)
    images = content.images + 1
    expected, _ = parameters_after(eager, [Batch(images, content.targets, 6)])
    step = step_of(model, "--compile", "--ema", "0.5")
    step(content, ScoreSums(ONE.device))
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
    assert (
        model.state_dict().keys()
        == step.averaged.module.state_dict().keys()
        == eager.state_dict().keys()
    )
    with torch.no_grad():
        result = step.forward(step.averaged.module, content.images)
        eager.load_state_dict(model.state_dict())
        torch.testing.assert_close(result, eager(images))
