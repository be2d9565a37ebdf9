"""Models of Hugging Face's transformers as backbones."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, reason
from ..petl.checks import at_least_one, one_of
from .build import WRONG
from .hf_config import config_of, inputs_of
from .inputs import Inputs
from .wrapped import WrappedBackbone, pair

# what the libraries call the side of the inputs and their number
SIDES, FRAMES = ('image_size', 'crop_size'), ('num_frames', 'frames_per_clip')


class HFBackbone(WrappedBackbone):
    """A model of Hugging Face's transformers: ``backbone=dict(type='HFBackbone', model='facebook/dinov2-small')``.

    Weights come from ``model.base`` alone, no code of a model's repository runs, and nothing is fetched. A video
    model gets clips as it wants them, (B, T, 3, H, W). See :class:`WrappedBackbone` for inputs and outputs.

    Args:
        model: a folder, or a name whose ``config.json`` the hub's cache has. Defaults to None: ``config`` says it.
        config: instead, ``dict(model_type='dinov2', hidden_size=384, ...)``; what is left out is transformers'.
        img_size: the side of the inputs. Defaults to None, the model's own.
        frames: the frames of a clip, for a video model. Defaults to None, the model's own.
        out: ``'mean'`` of the patches' tokens; ``'token'``, the class token; ``'pooled'``, what the model itself
            pools. Defaults to None: the last of these that the model has.

    Raises:
        UserError: for a model that transformers does not know or that is not here, and for options that it lacks.
    """

    def __init__(
        self,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        img_size: int | None = None,
        frames: int | None = None,
        out: str | None = None,
    ) -> None:
        _check_installed()
        self.config = config_of(model, config)
        self._resize(img_size, frames)
        super().__init__()
        leading = [n for n, _ in self.model.named_parameters() if n.endswith('embeddings.cls_token')]
        self.has_class = bool(leading)
        self.leading = (1 + (getattr(self.config, 'num_register_tokens', 0) or 0)) if leading else 0
        ways = ['mean', *(['token'] if leading else []), *(['pooled'] if self._pools() else [])]
        self.out = ways[-1] if out is None else one_of('model.backbone.out', out, ways)
        own_class = self.config.model_type in ('dinov2', 'dinov3_vit')  # whose pooled token is that of the class
        self.grid.reads_class = self.out == 'token' or (self.out == 'pooled' and own_class)
        if img_size is not None or frames is not None:
            self.check((1, 3, *self.own))

    @staticmethod
    def inputs_of(options: Mapping[str, Any]) -> Inputs | None:
        """Return how the model's image processor normalises; None where it has none and its kind is unknown."""
        _check_installed()
        return inputs_of(options.get('model'), options.get('config'))

    def _resize(self, img_size: int | None, frames: int | None) -> None:
        """Note the model's own sizes, and change those that are given."""
        config = self.config
        side = next((n for n in SIDES if getattr(config, n, None)), None)
        length = next((n for n in FRAMES if getattr(config, n, None)), None)
        for option, given, name in (('img_size', img_size, side), ('frames', frames, length)):
            if given is None:
                continue
            if name is None:
                raise UserError(f'model.backbone.{option}: {config.model_type} has no size of its own to change.')
            setattr(config, name, at_least_one(f'model.backbone.{option}', given))
        patch = getattr(config, 'patch_size', None) or (getattr(config, 'tubelet_size', None) or [])[1:]
        if not patch:
            raise UserError(f'{config.model_type} of transformers has no patches: it is no vision transformer.')
        self.patch = pair(patch)
        if side is None:  # as SigLIP 2: how many patches there may be
            self.sides = tuple(int(config.num_patches**0.5) * p for p in self.patch)
        else:
            self.sides = pair(getattr(config, side))
        self.frames = getattr(config, length) if length else None
        tubelet = getattr(config, 'tubelet_size', None) or 1
        tubelet = tubelet if isinstance(tubelet, int) else tubelet[0]
        if self.frames and self.frames % tubelet:
            raise UserError(
                f'model.backbone.frames={self.frames}: {config.model_type} takes {tubelet} frames together, and '
                'would leave the last one out.'
            )

    def create(self) -> nn.Module:
        """Return a new model, with random weights as transformers draws them."""
        from transformers import MODEL_MAPPING, AutoModel

        cls = MODEL_MAPPING.get(type(self.config), None)
        if cls is None:
            raise UserError(f'transformers has no model without a head of {self.config.model_type}.')
        takes = inspect.signature(cls.__init__).parameters
        # ViT's own pooler is one more layer, drawn at random, behind the class token
        options = dict(add_pooling_layer=False) if 'add_pooling_layer' in takes else {}
        # named here, because a config may name an attention that is fetched from the hub
        kind = 'sdpa' if cls._supports_sdpa else 'eager'
        config = copy.deepcopy(self.config)
        try:
            return AutoModel.from_config(
                config, trust_remote_code=False, dtype=torch.float32, attn_implementation=kind, **options
            )
        except WRONG as error:
            raise UserError(f'transformers does not build this {config.model_type}: {reason(error)}') from error

    def _pools(self) -> bool:
        """Tell whether the model itself pools its tokens."""
        return self.config.model_type.startswith(('dinov2', 'dinov3', 'siglip')) and (
            getattr(self.config, 'vision_use_head', True)
        )

    def _refusal(self, shape: tuple[int, ...]) -> str:
        if self.config.model_type == 'vjepa2' and shape[-2:] != self.sides:
            return 'its rotary positions are for its own size'
        if self.config.model_type == 'siglip2_vision_model':  # which looks at values, and takes any number of patches
            return self._uneven(shape)
        return super()._refusal(shape)

    def features(self, x: Tensor) -> Tensor:
        """Return one vector for each image of (B, 3, H, W), or clip of (B, 3, T, H, W): (B, d)."""
        given = {self.model.main_input_name: x if self.frames is None else x.transpose(1, 2)}
        if self.config.model_type == 'vjepa2':
            given['skip_predictor'] = True
        elif self.config.model_type == 'siglip2_vision_model':
            given = _in_patches(x, self.patch)
        output = self.model(**given)
        if self.out == 'pooled':
            return output.pooler_output
        tokens = output.last_hidden_state
        return tokens[:, 0] if self.out == 'token' else tokens[:, self.leading :].mean(1)


def _check_installed() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError('HFBackbone needs transformers: pip install vpetl_mm[hf]') from error


def _in_patches(images: Tensor, patch: tuple[int, int]) -> dict[str, Tensor]:
    """Return images of (B, 3, H, W) as SigLIP 2 wants them: rows of patches, of a height and a width."""
    height, width = (side // p for side, p in zip(images.shape[-2:], patch, strict=True))
    patches = images.unflatten(-1, (width, patch[1])).unflatten(2, (height, patch[0]))
    rows = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.tensor([[height, width]] * len(images), device=images.device)
    return dict(pixel_values=rows, pixel_attention_mask=None, spatial_shapes=shapes)
