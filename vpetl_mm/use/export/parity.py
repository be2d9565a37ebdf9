"""An exported file against the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...petl import layout_of
from .programs import Program

LIMIT = 1e-4  # of the difference of logits


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its model.

    Args:
        difference: the largest of any logit.
        clips: number of inputs.
        generated: whether these were generated.
    """

    difference: float
    clips: int
    generated: bool


def model_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits of inputs as the test pipeline makes them, (n, classes), as the model computes them."""
    is_video = model.head_name == 'cls_head'
    logits = []
    with torch.no_grad():
        for sample in inputs:
            data = dict(inputs=[sample.unsqueeze(0) if is_video else sample], data_samples=None)
            x = model.data_preprocessor(data)['inputs']
            logits.append(model.extract_feat(x, stage='head')[0] if is_video else model(x, mode='tensor'))
    return torch.cat(logits)


def file_logits(run: Program, pixels: Tensor, batch: int | None) -> Tensor:
    """Return the logits of an exported file, (n, classes), for inputs in batches of the size that it takes.

    A file that takes any number is given one input, and then the others together.
    """
    size = batch or max(1, len(pixels) - 1)
    parts = [*pixels[:1].split(1), *pixels[1:].split(size)] if batch is None else [*pixels.split(size)]
    logits = []
    with torch.no_grad():
        for part in parts:
            missing = (batch or len(part)) - len(part)
            whole = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            logits.append(run(whole.contiguous())[0][: len(part)])
    return torch.cat(logits)


def check_parity(found: Tensor, expected: Tensor, inputs: Sequence[str], classes: Sequence[str] | None) -> float:
    """Return the largest difference of logits, (n, classes) each.

    Raises:
        UserError: where it is above 1e-4, or a logit is not finite; names the input and the class.
    """
    difference = (found - expected).abs()
    worst = torch.where(difference.isfinite(), difference, torch.inf).argmax().item()
    row, column = divmod(worst, expected.shape[1])
    if not difference.flatten()[worst] <= LIMIT:
        name = classes[column] if classes else column
        raise UserError(
            f'The file was deleted: for {inputs[row]} its logit of class {name} is {found[row, column]:.6g}, and the '
            f"model's is {expected[row, column]:.6g}; they may differ by {LIMIT:g}."
        )
    return difference.max().item()


def first_difference(model: nn.Module, other: nn.Module, inputs: Tensor, pixels: Tensor) -> str | None:
    """Return the name of the first block whose output differs from the other's by more than 1e-4 of its size.

    Args:
        model: the original.
        other: a :class:`~.portable.PortableModel`.
        inputs: of the model, as the test pipeline makes them.
        pixels: the same, of the other.
    """
    ours = _block_outputs(model.backbone, lambda: model_logits(model, inputs[:1]))
    theirs = _block_outputs(other.model.backbone, lambda: other(pixels[:1]))
    names = {module: name for name, module in model.backbone.named_modules()}
    for (block, y), (_, z) in zip(ours, theirs, strict=True):
        if y.shape != z.shape or (y - z).abs().max() > LIMIT * y.abs().max().clamp_min(1):
            return f'backbone.{names[block]}'
    return None


def _block_outputs(backbone: nn.Module, run) -> list[tuple[nn.Module, Tensor]]:
    outputs, blocks = [], list(layout_of(backbone).blocks(backbone))
    handles = [b.register_forward_hook(lambda block, _, y: outputs.append((block, y))) for b in blocks]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return outputs
