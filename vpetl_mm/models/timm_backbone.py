"""timm's models as backbones."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ..errors import UserError, did_you_mean, reason
from .build import WRONG
from .inputs import Inputs
from .wrapped import WrappedBackbone, pair

# arguments of timm.create_model that read weights, or are said elsewhere
SAID_ELSEWHERE = {
    **dict.fromkeys(('pretrained', 'pretrained_cfg', 'pretrained_cfg_overlay', 'checkpoint_path'), 'model.base'),
    **dict.fromkeys(('cache_dir', 'model_name'), 'model.base'),
    **dict.fromkeys(('num_classes', 'in_chans'), 'the head and the pipeline'),
    'img_size': 'model.backbone.img_size',
}


class TimmBackbone(WrappedBackbone):
    """A model of timm, such as ``backbone=dict(type='TimmBackbone', model='vit_small_patch14_dinov2')``.

    The features are those in front of timm's own classifier, pooled as the model pools. Weights come from
    ``model.base`` alone. See :class:`WrappedBackbone` for inputs and outputs.

    Args:
        model: timm's name, with or without the tag of pre-trained weights (``'vit_base_patch16_dinov3.lvd1689m'``),
            which only says how inputs are normalised.
        img_size: the side of the images, or (H, W). Defaults to None, the model's own.
        options: further arguments of ``timm.create_model``, such as ``dict(drop_path_rate=0.1)``. Defaults to none.

    Raises:
        UserError: for a name or an option that timm does not know, or a size that the model does not take.
    """

    def __init__(
        self, model: str, img_size: int | tuple[int, int] | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.name, self.options = model, dict(options or {})
        for option in self.options:
            if option in SAID_ELSEWHERE:
                raise UserError(f'model.backbone.options.{option}: say this in {SAID_ELSEWHERE[option]}.')
        own = _pretrained(model)
        if img_size is not None:
            self.options['img_size'] = sides = pair(img_size)
        else:
            sides = tuple(own.input_size[1:])
        self.sides = sides
        super().__init__()
        self.patch = pair(getattr(getattr(self.model, 'patch_embed', None), 'patch_size', 1))
        if img_size is not None:
            self.check((1, 3, *sides))

    @staticmethod
    def inputs_of(options: Mapping[str, Any]) -> Inputs:
        """Return what timm's table of pre-trained weights says of a model's inputs."""
        own = _pretrained(options.get('model'))
        return Inputs.of_unit(own.mean, own.std, tuple(own.input_size[1:]), own.interpolation, own.crop_pct)

    def create(self) -> nn.Module:
        """Return a new model, with random weights as timm draws them."""
        try:
            return _timm().create_model(self.name, pretrained=False, num_classes=0, **self.options)
        except WRONG as error:
            raise UserError(f'model.backbone: timm does not build {self.name} so: {reason(error)}') from error

    def features(self, x: Tensor) -> Tensor:
        """Return what timm's classifier would see, of images of (B, 3, H, W): (B, d)."""
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError('TimmBackbone needs timm: pip install vpetl_mm[timm]') from error
    return timm


def _pretrained(model: Any) -> Any:
    """Return timm's record of a model's pre-trained weights: its inputs, and where they are from.

    Raises:
        UserError: for a name that timm does not know, with the nearest ones.
    """
    timm = _timm()
    arch, _, tag = str(model).partition('.')
    if not isinstance(model, str) or not timm.is_model(arch):
        raise UserError(f'timm has no model {model!r}.{did_you_mean(arch, timm.list_models())}')
    tags = [n.partition('.')[2] for n in timm.list_pretrained(f'{arch}.*')]
    if tag and tag not in tags:
        raise UserError(f'timm has no weights {tag!r} of {arch}; it has: {", ".join(tags) or "none"}.')
    return timm.get_pretrained_cfg(model)
