"""The methods of ``configs/_base_/methods``, each of which any experiment's host may take."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine import Config
from torch import nn

from vpetl_cli.shipped import configs

from ..errors import unknown

OF_THE_HOST = ('attention', 'fast', 'gelu')  # what petl says of the host, whatever the method


def is_video(model: Mapping[str, Any]) -> bool:
    """Tell whether a config's model takes clips; images otherwise."""
    return 'cls_head' in model


def methods_of(names: str, video: bool | None = None) -> dict[str, dict[str, Any]]:
    """Return name -> ``petl`` of methods, sorted by name.

    Args:
        names: ``'all'``, or names of files in ``configs/_base_/methods``, separated by commas.
        video: leave out, of all, those for hosts of images (True) or of clips (False): files whose names end in
            ``_image`` or ``_video``. Defaults to None, none.

    Raises:
        UserError: for a name without a file.
    """
    files = {file.stem: file for file in sorted((configs() / '_base_/methods').glob('*.py'))}
    others = {None: (), True: '_image', False: '_video'}[video]
    chosen = [n for n in files if not n.endswith(others)] if names == 'all' else [n.strip() for n in names.split(',')]
    for name in chosen:
        if name not in files:
            raise unknown('method', name, ['all', *files])
    return {name: Config.fromfile(files[name]).petl.to_dict() for name in sorted({*chosen})}


def on_host(cfg: Config, petl: Mapping[str, Any]) -> Config:
    """Return an experiment's config with another method on its host; how the host computes stays."""
    cfg = copy.deepcopy(cfg)
    own = {k: v for k, v in (cfg.model.get('petl') or {}).items() if k in OF_THE_HOST}
    cfg.model.petl = dict(own, **petl)
    return cfg


def trained_in_backbone(model: nn.Module) -> int:
    """Count the parameters of a PETL model that train, those of its head left out."""
    head = f'{model.head_name}.'
    return sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and not n.startswith(head))
