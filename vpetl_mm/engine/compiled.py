"""torch.compile for the backbone, behind one key of the config."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import Config
from torch import nn

from ..errors import UserError, reason


def check_compiled(cfg: Config) -> None:
    """Check ``compile_backbone``: True, or a dict of torch.compile's options.

    Raises:
        UserError: for another value, mmengine's own ``compile``, ``petl.gelu='8bit'``, which compiled code would
            ignore, or if there is no C++ compiler.
    """
    if cfg.get('compile'):
        raise UserError('compile would compile the whole model, again for every shape; set compile_backbone=True.')
    options = cfg.get('compile_backbone', False)
    if options is False:
        return
    if options is not True and not isinstance(options, Mapping):
        raise UserError(f"compile_backbone is True, False or a dict of torch.compile's options; got {options!r}.")
    if cfg.get('model', {}).get('petl', {}).get('gelu') == '8bit':
        raise UserError("compile_backbone decides by itself what the backward pass keeps: remove petl.gelu='8bit'.")
    if not any(map(shutil.which, filter(None, (os.environ.get('CXX', ''), 'g++', 'c++', 'clang++')))):
        raise UserError('compile_backbone needs a C++ compiler, such as g++, and none is on the PATH.')
    given = {} if options is True else dict(options)
    try:
        torch.compile(nn.Identity(), **given)
        torch._dynamo.lookup_backend(given.get('backend', 'inductor'))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f'torch.compile does not take compile_backbone={options!r}: {reason(error)}') from error


def compile_backbone(model: nn.Module, options: bool | Mapping[str, Any]) -> None:
    """Compile the backbone in place; its keys do not change."""
    if options is not False:
        model.backbone.compile(**({} if options is True else options))
