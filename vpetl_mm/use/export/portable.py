"""A model as a graph that other programs run: from pixels to scores, its tables computed from small ones."""

from __future__ import annotations

import copy

import torch
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from ...models.window_attention import FastWindowAttention, FastWindowAttention3D, FastWindowMSA
from ...petl.exchange import exchange_plain, plain_class


class PortableModel(nn.Module):
    """A classifier of clips or images as they are decoded, in eval mode.

    Args:
        model: of this project, built with ``petl.fast=False`` and its own attention; a copy is taken.
        example: one input of :meth:`forward`, (1, ...); the sizes of all others.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        preprocessor = model.data_preprocessor
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.model.data_preprocessor = nn.Identity()
        shape = (-1, *[1] * (example.ndim - 2))
        for name, none in (('mean', 0.0), ('std', 1.0)):
            value = getattr(preprocessor, name, None)
            value = torch.full((3,), none) if value is None else value.detach().flatten().float()
            self.register_buffer(name, value.reshape(shape).clone())
        use_small_tables(self, example)

    @property
    def is_video(self) -> bool:
        """Whether the inputs are clips."""
        return self.model.head_name == 'cls_head'

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Classify.

        Args:
            pixels: RGB from 0 to 255, uint8: clips of (B, 3, T, H, W), one view each, or images of (B, 3, H, W).

        Returns:
            Logits and their softmax, (B, classes) each, float32.
        """
        x = (pixels.to(self.mean.dtype) - self.mean) / self.std
        if self.is_video:
            logits, _ = self.model.extract_feat(x.unsqueeze(1), stage='head')
        else:
            logits = self.model(x, mode='tensor')
        return logits, logits.softmax(-1)


class SmallTables:
    """Mixed into a window attention: bias and mask are computed from what is small enough to be in a file.

    ``relative_position_index`` is linear in the two tokens' places, so that a row and a column hold all of it; the
    shift mask follows from the region that each token is in. Clips share bias and mask without a copy.
    """

    @property
    def relative_position_index(self) -> Tensor:
        """The index into the table of biases, (N, N)."""
        return self.index_column.long().unsqueeze(1) + self.index_row.long()

    def bias_and_mask(self, n: int, mask: Tensor | None, extras: list, dtype: torch.dtype) -> Tensor:
        """Return B + M, (nW or 1, heads, N, n_extra + N)."""
        if mask is not None:
            regions = self.regions.int()
            mask = torch.where(regions.unsqueeze(2) == regions.unsqueeze(1), 0.0, -100.0)
        return super().bias_and_mask(n, mask, extras, dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attend by heads, windows and heads as one dimension where each window has its own bias."""
        n_w = bias.shape[0]

        def heads(tokens: Tensor) -> Tensor:  # (B * nW, n, C) to (B, nW * heads, n, d)
            parts = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            return parts if n_w == 1 else parts.unflatten(0, (-1, n_w)).flatten(1, 2)

        bias = bias if n_w == 1 else bias.flatten(0, 1).unsqueeze(0)
        y = self.dot_product(heads(q), heads(k), heads(v), attn_mask=bias, scale=self.scale)
        y = y if n_w == 1 else y.unflatten(1, (n_w, -1)).flatten(0, 1)
        return y.transpose(1, 2).flatten(2)

    def keep_small(self, mask: Tensor | None) -> None:
        """Replace the index by a row and a column, and the shift mask, (nW, N, N), by regions."""
        index = self._buffers.pop('relative_position_index')
        self.register_buffer('index_column', (index[:, 0] - index[0, 0]).int(), persistent=False)
        self.register_buffer('index_row', index[0].int(), persistent=False)
        assert torch.equal(self.relative_position_index, index), 'another index of positions'
        if mask is not None:
            same = mask == 0
            _, regions = same.int().argmax(-1).unique(return_inverse=True)  # each named after its first token
            assert torch.equal(regions.unsqueeze(2) == regions.unsqueeze(1), same), 'another kind of mask'
            self.register_buffer('regions', regions.to(torch.uint8), persistent=False)


class PortableWindowAttention3D(SmallTables, FastWindowAttention3D):
    """Video Swin's window attention; see :class:`SmallTables`."""


class PortableWindowMSA(SmallTables, FastWindowMSA):
    """The 2D Swin's window attention; see :class:`SmallTables`."""


class PortableShiftWindowMSA(ShiftWindowMSA):
    """mmpretrain's shifted windows, for any number of images: its own method computes that number with floats."""

    @staticmethod
    def window_reverse(windows: Tensor, H: int, W: int, window_size: int) -> Tensor:
        """Put windows together, (B * nW, w, w, C) to (B, H, W, C)."""
        x = windows.unflatten(0, (-1, H // window_size, W // window_size))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


PORTABLE = {
    FastWindowAttention3D: PortableWindowAttention3D,
    FastWindowMSA: PortableWindowMSA,
    ShiftWindowMSA: PortableShiftWindowMSA,
}


def use_small_tables(model: nn.Module, example: Tensor) -> None:
    """Exchange the window attentions inside ``model`` for those with small tables, in place.

    Args:
        model: takes ``example``, from which the shift masks are recorded.
        example: one input, (1, ...).
    """
    masks: dict[nn.Module, Tensor | None] = {}

    def record(module: nn.Module, args: tuple, kwargs: dict) -> None:
        masks[module] = kwargs.get('mask', args[1] if len(args) > 1 else None)

    attentions = [m for m in model.modules() if isinstance(m, FastWindowAttention)]
    handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in attentions]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    for module in list(model.modules()):
        if (cls := PORTABLE.get(plain_class(module))) is not None:
            exchange_plain(module, cls)
    for attention in attentions:
        attention.keep_small(masks[attention])
