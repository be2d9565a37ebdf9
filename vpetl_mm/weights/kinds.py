"""The kinds of pre-trained files: how each is recognised, renamed and fitted to its host."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import UserError
from .swin import fit_swin, fit_swin2d, openmmlab_names, swin_names
from .tensors import Weights
from .vit import dinov2_names, fit_image, fit_video, google_names, miil_names, timm_names, videomae_names

# mean and std of the inputs (R, G, B, on the scale of 0 to 255): ImageNet's, the original ViT's (inputs from -1 to 1)
# and miil's (from 0 to 1)
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SIGNED = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
UNIT = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
SWIN, VIDEO, IMAGE = 'mmaction.SwinTransformer3D', 'mmaction.VisionTransformer', 'mmpretrain.VisionTransformer'


@dataclass(frozen=True)
class Kind:
    """A naming of pre-trained weights.

    Args:
        about: its description.
        host: the key of the backbone class in the place table.
        names: renames every tensor as the host does.
        fit: resizes them for one backbone of that class.
        inputs: mean and std of its inputs; None where files of this naming differ.
    """

    about: str
    host: str
    names: Callable[[Weights], None]
    fit: Callable[[Weights, nn.Module], None]
    inputs: tuple[tuple[float, ...], tuple[float, ...]] | None


KINDS = {
    'video_swin': Kind("a Video Swin in its authors' naming", SWIN, swin_names, fit_swin, IMAGENET),
    'mmaction_swin': Kind("a Video Swin in mmaction2's naming", SWIN, openmmlab_names, fit_swin, IMAGENET),
    'swin2d': Kind("a 2D Swin in its authors' naming, inflated for videos", SWIN, swin_names, fit_swin2d, IMAGENET),
    'videomae': Kind(
        "a video ViT in VideoMAE's naming, pre-trained or fine-tuned", VIDEO, videomae_names, fit_video, IMAGENET
    ),
    'mmaction_videomae': Kind("a video ViT in mmaction2's naming", VIDEO, openmmlab_names, fit_video, IMAGENET),
    'mae': Kind('an image ViT of MAE', IMAGE, timm_names, fit_image, IMAGENET),
    'mocov3': Kind('an image ViT of MoCo v3, the base encoder', IMAGE, timm_names, fit_image, IMAGENET),
    'dinov2': Kind(
        "an image ViT in timm's naming with LayerScale, such as DINOv2's", IMAGE, dinov2_names, fit_image, IMAGENET
    ),
    'miil': Kind("an image ViT in timm's naming without qkv bias, as miil's", IMAGE, miil_names, fit_image, UNIT),
    'timm_vit': Kind("an image ViT in timm's naming, such as MAE's encoder", IMAGE, timm_names, fit_image, None),
    'mmpretrain_vit': Kind("an image ViT in mmpretrain's naming", IMAGE, openmmlab_names, fit_image, None),
    'google_vit': Kind('an original image ViT of JAX', IMAGE, google_names, fit_image, SIGNED),
}

# kinds in timm's naming -> the pattern that tells, in this order
TIMM = {
    'mae': r'decoder_',
    'dinov2': r'blocks\.\d+\.ls1\.gamma',
    'timm_vit': r'blocks\.\d+\.attn\.(qkv|q_proj|q)\.bias',
    'miil': '',
}
# host -> how a converted file fits a backbone of other sizes
FITS = {kind.host: kind.fit for kind in KINDS.values() if kind.names is openmmlab_names}


def recognised(weights: Weights) -> str:
    """Return the name of the kind of a file, judged by its keys (without prefixes) and shapes.

    Raises:
        UserError: when no kind matches, listing the kinds and the file's first keys.
    """
    has = weights.has
    patch = next((weights[k] for k in weights if re.fullmatch(r'patch_embed\.proj(ection)?\.weight', k)), None)
    video = (patch is not None and patch.ndim == 5) or has(r'blocks\.\d+\.attn\.q_bias')
    if has(r'(opt/target/)?Transformer/encoderblock_\d+/'):
        return 'google_vit'
    if has(r'layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table'):
        if patch is not None and patch.ndim == 4:
            return 'swin2d'
        return 'mmaction_swin' if has(r'norm\d\.') else 'video_swin'
    if has(r'layers\.\d+\.ln1\.'):
        return 'mmpretrain_vit'
    if has(r'blocks\.\d+\.') and video:
        return 'mmaction_videomae' if has(r'blocks\.\d+\.mlp\.layers\.') else 'videomae'
    if has(r'blocks\.\d+\.attn\.(qkv|q_proj|q)\.weight'):
        if weights.had(r'base_encoder\.'):
            return 'mocov3'
        return next(kind for kind, pattern in TIMM.items() if has(pattern))
    raise UserError(
        f'its kind is not recognised; its first keys are: {", ".join(list(weights)[:5])}. If it is one of '
        f'{", ".join(KINDS)}, say so with --kind.'
    )
