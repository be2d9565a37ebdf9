"""Merged files: the plain model that is left when the deltas are part of its weights."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from ..weights.files import write_safetensors


def write_merged(model: nn.Module, file: Path, config: str | None, checkpoint: str | Path) -> None:
    """Write backbone and head as .safetensors, whole or not at all.

    The keys are the plain model's; ``model.base`` of a config, with ``convert=None``, takes the backbone from it.

    Args:
        model: merged.
        file: ends in .safetensors.
        config, checkpoint: what it was made from, for the file's header.

    Raises:
        UserError: when the disk does not take it.
    """
    about = dict(config=str(config), checkpoint=str(checkpoint))
    write_safetensors(file, model.state_dict(), {'vpetl_mm_merged': json.dumps(about)})
