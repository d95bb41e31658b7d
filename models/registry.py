"""The published networks by name."""

from functools import partial

from gfgp_cupy.choices import check_choice
from models import densenet, resnet, vgg
from models.network import Network
from models.state_dict import drop_wrapper_names

NETWORKS = {**densenet.NETWORKS, **resnet.NETWORKS, **vgg.NETWORKS}


def list_models() -> list[str]:
    """Return the names that ``create_model`` takes, sorted.

    Example:
        >>> list_models()[:3]
        ['densenet121', 'densenet161', 'densenet169']
    """
    return sorted(NETWORKS)


def create_model(name: str, pool: str = "max_ent", num_classes: int = 1000) -> Network:
    """Return a published network of Kobayashi, ICCV and NeurIPS 2019, with fresh weights.

    The network takes images [N, 3, H, W] and returns logits [N, num_classes]. Its
    ``load_state_dict`` accepts, beside its own tensor names, those of the published
    implementations (https://github.com/tk1980/GFGP and …/GaussianPooling), with or without the
    ``module.`` that ``DataParallel`` adds; as strictly as ever.

    Args:
        name: one of ``list_models()``.
        pool: ``"max"``, ``"avg"``, ``"skip"`` (convolutions stride instead), ``"max_ent"``
            (maximum-entropy pooling guided by global features), ``"gauss"`` (Gaussian pooling,
            likewise) or its published spellings ``"gauss_cuda_CN"`` (the same),
            ``"gauss_cuda_HWCN"``, ``"gauss_CN"`` and ``"gauss_HWCN"`` (these two count the
            padding), or another name of :func:`gfgp_cupy.poolings.list_poolings`.
        num_classes: length of the logits.

    Raises:
        TypeError: ``num_classes`` is not an int.
        ValueError: unknown ``name`` or ``pool`` (the message gives the close ones), or
            ``num_classes`` below 1.

    Example:
        >>> import torch
        >>> model = create_model("resnet18", pool="max_ent", num_classes=10)
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_choice("name", name, list_models())
    if not isinstance(num_classes, int) or isinstance(num_classes, bool):
        raise TypeError(f"num_classes must be an int, got {num_classes!r}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    make = partial(NETWORKS[name], pool=pool, num_classes=num_classes)
    model = make()
    model.make, model.config = make, {"name": name, "pool": pool, "num_classes": num_classes}
    model.register_load_state_dict_pre_hook(drop_wrapper_names)
    return model
