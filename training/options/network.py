"""The network, and the weights that it starts from or is evaluated with."""

from dataclasses import dataclass

from training.options.option import option


@dataclass(frozen=True)
class NetworkOptions:
    """See ``training.options.Options``."""

    arch: str | None = option(
        "network",
        "densenet121, densenet161, densenet169, densenet201, resnet101, resnet152, resnet18, "
        "resnet34, resnet50, resnetp101, resnetp152, resnetp18, resnetp34, resnetp50, "
        "resnext101_32x8d, resnext50_32x4d, resnextp101_32x8d, resnextp50_32x4d, vgg11bow, "
        "vgg11bow_bn, vgg11orig, vgg11orig_bn, vgg13bow, vgg13bow_bn, vgg13orig, vgg13orig_bn, "
        "vgg16bow, vgg16bow_bn, vgg16orig, vgg16orig_bn, vgg19bow, vgg19bow_bn, vgg19orig, "
        "vgg19orig_bn (default: that of --resume FILE, otherwise resnet50)",
        short="a",
        metavar="NAME",
    )
    pool: str | None = option(
        "network",
        "max, avg, skip, max_ent, soft, edscw, max_ent_unguided, gauss, gauss_unguided, ada, "
        "gfgp_ada, mixed, gfgp_mixed, gated, gfgp_gated, gem, gfgp_gem, lse, gfgp_lse, "
        "gauss_cuda_CN, gauss_cuda_HWCN, gauss_CN, gauss_HWCN (default: that of --resume FILE, "
        "otherwise max_ent)",
        metavar="NAME",
    )
    pretrained: bool = option(
        "network",
        "start from torchvision's ImageNet weights, wherever they fit, or --evaluate them; with "
        "--resume the checkpoint decides",
        default=False,
    )
    weights: str | None = option(
        "network",
        "the same with a file: a state dict or a checkpoint of this program, of the published "
        "implementation or of torchvision; its classifier is taken where it has the data's classes",
        metavar="FILE",
    )
