"""A run of each kind of recipe, stopped and resumed, has the bits of one that was not."""

import signal

import pytest
import torch
from torch import Tensor, nn

from gfgp_cupy import GFGPGaussianPool2d, GFGPMaxEntPool2d, MaxEntPool2d
from tests.support.command_line import output_here, run_here
from tests.support.tiny_network import SMALL_DIGITS
from tests.training.checkpoints.test_resuming import (
    CHECKS_PER_EPOCH,
    assert_same_bits,
    signal_at,  # noqa: F401  a fixture
)

RECIPES = {
    "lamb": "--optimizer lamb --weight-decay-on weights --head-lr 0.5 --loss bce "
    "--bce-threshold 0 --lr-per-step --warmup-epochs 1 --ema",
    "adamw": "--optimizer adamw --opt-betas 0.8,0.9 --opt-eps 1e-6 --clip-grad 0.5 "
    "--label-smoothing 0.1 --lr-schedule milestones --lr-milestones 1 "
    "--lr-gamma 0.5 --accum-steps 2",
    "sgd": "--momentum 0.8 --weight-decay 0.01 --lr-schedule cosine --lr-per-step "
    "--warmup-epochs 0 --head-lr 3 --amp bf16",
    "adafactor": "--optimizer adafactorbv --weight-decay-on weights --clip-grad 1",
}


class SmallNetwork(nn.Module):
    """With heads that predict λ and w, a λ of its own, running statistics and random numbers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.pools = nn.Sequential(
            GFGPMaxEntPool2d(4, 2), MaxEntPool2d(2, num_features=4), GFGPGaussianPool2d(4, 2)
        )
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(4, classes)

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.pools(self.norm(self.conv(input)).relu())
        return self.fc(self.dropout(hidden.mean(dim=(2, 3))))


@pytest.mark.parametrize("options", RECIPES.values(), ids=RECIPES)
def test_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, signal_at, options):  # noqa: F811
    monkeypatch.setattr(
        "training.command.create_model", lambda arch, pool, classes: SmallNetwork(classes)
    )
    run = (*SMALL_DIGITS, "--seed", 5, "--epochs", 2, "--lr", 0.02, *options.split())
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    output_here(*run, "--out-dir", whole)
    signal_at(CHECKS_PER_EPOCH + 1, signal.SIGTERM)  # after the first step of the second epoch
    code, printed, err = run_here(*run, "--out-dir", stopped)
    assert code == 128 + signal.SIGTERM, printed + err
    output_here(*run, "--out-dir", stopped, "--resume", "auto")
    one, other = (
        torch.load(out / "checkpoint-epoch2.pth.tar", weights_only=True) for out in (whole, stopped)
    )
    for part in ("state_dict", "optimizer", "ema"):
        assert_same_bits(one.get(part), other.get(part))
    first = torch.load(whole / "checkpoint-epoch1.pth.tar", weights_only=True)
    heads = [f"pools.{number}.head.conv1.weight" for number in (0, 2)]
    for name in ("conv.weight", "pools.1.lam", *heads, "fc.weight"):
        assert not torch.equal(first["state_dict"][name], one["state_dict"][name]), name
