"""timm by family: of each module of ``timm.models`` those that pool, from small to large.

Chosen by what the modules of the networks are, before any was tried: of those with a ``MaxPool2d``
or ``AvgPool2d`` and fewer than 60 million parameters (or else the smallest) six, ten in the three
largest modules, evenly spaced by size; and the smallest network without one, unless that is larger,
too.
"""

from collections.abc import Iterator
from functools import partial

import timm
from timm.models import get_pretrained_cfg

from experiments.survey.network import Network

NAMES = {
    "byoanet": (
        "halonet_h1 eca_halonext26ts lambda_resnet26rpt_256 botnet26t_256 sehalonet33ts "
        "lambda_resnet50ts botnet50ts_256"
    ),
    "byobnet": (
        "mobileone_s1 resnext26ts seresnext26ts bat_resnext26ts resnet50_clip_gap resnet50_clip "
        "resnet101_clip"
    ),
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_zepto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s cspresnext50 cspresnet50 cspresnet50d cspresnet50w darknetaa53",
    "cspnext": "cspnext_tiny cspnext_s cspnext_m cspnext_l cspnext_x",
    "davit": "davit_tiny",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121 densenetblur121d densenet169 densenet201 densenet161",
    "dla": "dla46x_c dla60x_c dla60_res2next dla60 dla102 dla169",
    "dpn": "dpn48b dpn68 dpn68b dpn92",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1 efficientformer_l3",
    "efficientformer_v2": (
        "efficientformerv2_s0 efficientformerv2_s1 efficientformerv2_s2 efficientformerv2_l"
    ),
    "efficientnet": "mobilenetv2_035",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny gcvit_xtiny gcvit_tiny gcvit_small",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0 hgnetv2_b1 hgnet_tiny hgnetv2_b3 hgnet_small hgnetv2_b5",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny sam2_hiera_small hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": (
        "levit_128s levit_conv_128s levit_conv_128 levit_conv_192 levit_conv_256d "
        "levit_conv_384_s8 levit_conv_384"
    ),
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": (
        "maxvit_pico_rw_256 coatnet_nano_cc_224 coatnet_rmlp_nano_rw_224 "
        "maxxvit_rmlp_nano_rw_256 coatnet_0_rw_224 coatnet_rmlp_0_rw_224 "
        "maxvit_rmlp_tiny_rw_256 maxvit_tiny_tf_224 coatnet_rmlp_1_rw_224 coatnet_1_224"
    ),
    "metaformer": (
        "poolformerv2_s12 poolformer_s12 poolformer_s24 caformer_s18 poolformerv2_s36 "
        "poolformerv2_m36 poolformer_m36"
    ),
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050 mobilenetv4_conv_aa_medium mobilenetv4_conv_aa_large",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny mvitv2_small mvitv2_small_cls mvitv2_base",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny nest_tiny_jx nest_small nest_small_jx",
    "nextvit": "nextvit_small nextvit_base nextvit_large",
    "nfnet": (
        "nf_regnet_b0 nf_regnet_b2 nf_ecaresnet26 nf_regnet_b3 nf_resnet50 nf_seresnet50 "
        "nfnet_l0 nf_resnet101 nf_seresnet101 eca_nfnet_l2"
    ),
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002 regnetv_064",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": (
        "res2next50 res2net50_48w_2s res2net50_26w_4s res2net50_26w_6s res2net101_26w_4s "
        "res2net50_26w_8s"
    ),
    "resnest": "resnest14d resnest26d resnest50d_1s4x24d resnest50d resnest50d_4s2x40d resnest101e",
    "resnet": (
        "resnet10t seresnet18 seresnext26t_32x4d resnetaa34d resnet50 ecaresnet50t resnet50s "
        "ecaresnetlight resnetaa101d seresnet101"
    ),
    "resnetv2": (
        "resnetv2_18 resnetv2_34d resnetv2_50x1_bit resnetv2_50d_gn resnetv2_50d_frn resnetv2_101d"
    ),
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": (
        "legacy_seresnet18 legacy_seresnext26_32x4d legacy_seresnet34 legacy_seresnet50 "
        "legacy_seresnext101_32x4d legacy_seresnet101"
    ),
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18 skresnet34 skresnet50 skresnet50d skresnext50_32x4d",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window16_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m tresnet_v2_l tresnet_l",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": (
        "vit_tiny_r_s16_p8_224 vit_tiny_r_s16_p8_384 vit_small_r26_s32_224 "
        "vit_small_r26_s32_384 vit_small_resnet50d_s16_224"
    ),
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224 volo_d1_384 volo_d2_224 volo_d2_384",
    "vovnet": (
        "ese_vovnet19b_slim_dw ese_vovnet19b_dw vovnet39a ese_vovnet39b ese_vovnet39b_evos "
        "ese_vovnet57b"
    ),
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}


def networks() -> Iterator[Network]:
    """Yield them by module; the images have the size of the pre-trained weights."""
    for names in NAMES.values():
        for name in names.split():
            config = get_pretrained_cfg(name)
            size = config.input_size if config is not None else (3, 224, 224)
            yield Network("timm", name, partial(timm.create_model, name), "timm", (2, *size))
