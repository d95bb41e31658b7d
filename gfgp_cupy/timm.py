"""The published networks in timm's registry: ``import gfgp_cupy.timm`` puts them there.

Each is timm's own network of the name before ``_gfgp``, with poolings where T. Kobayashi, "Global
Feature Guided Local Pooling", ICCV 2019, has them: ``replace_pooling(network,
strides="after_blocks")``, which draws the new heads' weights after timm's own, so that the
convolutions start from one seed as timm's do. ``timm.create_model`` takes whatever it takes for
timm's, ``features_only=True`` for instance, and ``pool``, which is ``"max_ent"`` or another pooling
that :func:`gfgp_cupy.replace_pooling` takes.

Example:
    >>> import timm, torch
    >>> import gfgp_cupy.timm
    >>> timm.list_models("resne*50*_gfgp")
    ['resnet50_gfgp', 'resnext50_32x4d_gfgp']
    >>> net = timm.create_model("resnet18_gfgp", pool="gem", num_classes=10)
    >>> net(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from .surgery import replace_pooling

try:
    from timm.models import (
        build_model_with_cfg,
        generate_default_cfgs,
        model_entrypoint,
        register_model,
        resolve_pretrained_cfg,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"gfgp_cupy.timm needs timm ({error}): pip install timm", name=error.name
    ) from error

# How timm cuts each into the layers of features_only=True.
RESNETS: dict[str, Any] = {}
VGGS: dict[str, Any] = {"flatten_sequential": True, "out_indices": (0, 1, 2, 3, 4, 5)}
DENSENETS: dict[str, Any] = {"flatten_sequential": True}

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": RESNETS,
    "resnet34": RESNETS,
    "resnet50": RESNETS,
    "resnet101": RESNETS,
    "resnet152": RESNETS,
    "resnext50_32x4d": RESNETS,
    "resnext101_32x8d": RESNETS,
    "vgg11": VGGS,
    "vgg11_bn": VGGS,
    "vgg13": VGGS,
    "vgg13_bn": VGGS,
    "vgg16": VGGS,
    "vgg16_bn": VGGS,
    "vgg19": VGGS,
    "vgg19_bn": VGGS,
    "densenet121": DENSENETS,
    "densenet161": DENSENETS,
    "densenet169": DENSENETS,
    "densenet201": DENSENETS,
}


def _config(name: str) -> dict[str, Any]:
    """What timm says of ``name``, but for its weights; images as in the published experiments."""
    said = resolve_pretrained_cfg(name).to_dict()
    kept = ("input_size", "mean", "std", "num_classes", "pool_size", "first_conv", "classifier")
    return {
        **{key: said[key] for key in kept},
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "url": "",
        "paper_name": "Global Feature Guided Local Pooling",
    }


def _group_matcher_of_resnet(network: Any, coarse: bool = False) -> dict[str, Any]:
    """timm's groups of parameters, by which it decays learning rates layer by layer.

    Its stem does not know ``act1``, which has parameters now: the first pooling stands there.
    """
    groups = type(network).group_matcher(network, coarse)
    return {**groups, "stem": rf"{groups['stem']}|act1\."}


def _network(
    name: str, pool: str | Callable[..., nn.Module], in_chans: int = 3, **options: Any
) -> nn.Module:
    """timm's network, with its strides and poolings replaced."""
    network = model_entrypoint(name)(pretrained=False, in_chans=in_chans, **options)
    replace_pooling(network, pool, strides="after_blocks", sample_shape=(2, in_chans, 224, 224))
    if NETWORKS[name] is RESNETS:
        # A partial and no method: pickle would look that up in the class.
        network.group_matcher = partial(_group_matcher_of_resnet, network)
    return network


def _register(name: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        pool: str | Callable[..., nn.Module] = "max_ent",
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        config = resolve_pretrained_cfg(create.__name__, pretrained_cfg, pretrained_cfg_overlay)
        if pretrained and not config.has_weights:
            raise RuntimeError(
                f"no weights of {create.__name__!r} are published: pass pretrained=False and the "
                "checkpoint_path of your own, or start from those of timm's network with "
                f"gfgp_cupy.replace_pooling(timm.create_model({name!r}, pretrained=True), "
                "strides='after_blocks')"
            )
        return build_model_with_cfg(
            partial(_network, name, pool),
            create.__name__,
            pretrained,
            pretrained_cfg=config.to_dict(),
            feature_cfg=dict(NETWORKS[name]),
            **options,
        )

    # The name under which timm registers it.
    create.__name__ = create.__qualname__ = f"{name}_gfgp"
    create.__doc__ = f"""timm's ``{name}`` with the poolings of Kobayashi, ICCV 2019.

    Args:
        pretrained: load the weights that ``pretrained_cfg`` names; none are published.
        pool: as in :func:`gfgp_cupy.replace_pooling`.
        pretrained_cfg, pretrained_cfg_overlay: as in ``timm.create_model``.
        options: of timm's ``{name}``.

    Raises:
        RuntimeError: ``pretrained`` without weights.
    """
    return register_model(create)


default_cfgs = generate_default_cfgs({f"{name}_gfgp": _config(name) for name in NETWORKS})
globals().update({f"{name}_gfgp": _register(name) for name in NETWORKS})
