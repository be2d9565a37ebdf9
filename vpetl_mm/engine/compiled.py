"""torch.compile for the backbone, behind one key of the config."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import Config
from torch import nn

from ..errors import UserError


def check_compiled(cfg: Config) -> None:
    """Check ``compile_backbone``: True, or a dict of torch.compile's options.

    Raises:
        UserError: for another value, mmengine's own ``compile``, or where there is no C++ compiler for the CPU.
    """
    if cfg.get('compile'):
        raise UserError('compile would compile the whole model, again for every shape; set compile_backbone=True.')
    options = cfg.get('compile_backbone', False)
    if not isinstance(options, (bool, Mapping)):
        raise UserError(f"compile_backbone is True, False or a dict of torch.compile's options; got {options!r}.")
    names = (os.environ.get('CXX', ''), 'g++', 'c++', 'clang++')
    if options is not False and not torch.cuda.is_available() and not any(map(shutil.which, filter(None, names))):
        raise UserError('compile_backbone needs a C++ compiler on the CPU, such as g++; there is none on the PATH.')


def compile_backbone(model: nn.Module, options: bool | Mapping[str, Any]) -> None:
    """Compile the backbone in place; its keys stay as they are."""
    if options is not False:
        model.backbone.compile(**({} if options is True else options))
