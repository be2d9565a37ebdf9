"""Plain models of the host libraries: .safetensors, and .pth with a config that mmaction2 or mmpretrain opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ...engine.merged import KEY, check_plain, make_plain, plain_config
from ...errors import UserError
from ...files import written_whole
from ...weights.files import write_safetensors
from ..bundle.bundle import Bundle
from ..bundle.model import check_tensors, model_config
from ..bundle.views import from_files

# the host libraries' own steps for this project's
STOCK = {'OpenVideo': 'DecordInit', 'DecodeVideo': 'DecordDecode'}


def check_can_be_plain(bundle: Bundle, base: str | Path | None, suffix: str = '') -> None:
    """Raise :class:`UserError` for a bundle whose model has no plain form, before anything is computed."""
    kind = bundle.about.model['backbone']['type']
    if suffix == '.pth' and kind in ('TimmBackbone', 'HFBackbone'):
        raise UserError(
            f'A .pth is for models of mmaction2 and mmpretrain, and this one is a {kind}: .safetensors holds its '
            "library's own names behind backbone.model."
        )
    model = check_tensors(bundle, base)
    try:
        check_plain(model)
    except UserError as error:
        raise UserError(f'{error} An .onnx or .pt2 file can hold the model as it is.') from error


def plain_parts(bundle: Bundle, model: nn.Module) -> dict[str, Any]:
    """Merge the deltas of ``model``, in place, and return the config of the plain model that it then is."""
    make_plain(model)
    return plain_config(model, Config(model_config(bundle, None)))


def write_plain_safetensors(bundle: Bundle, model: nn.Module, config: dict[str, Any], file: Path) -> None:
    """Write the weights, with the config and what the bundle says in the header."""
    about = bundle.about
    header = dict(
        config, config=about.name, checkpoint=bundle.file.name, classes=about.classes, license=about.license
    )
    write_safetensors(file, model.state_dict(), {KEY: json.dumps(header)})


def write_pth(bundle: Bundle, model: nn.Module, file: Path) -> None:
    """Write a checkpoint as mmengine's runners do, with the class names in its meta.

    Equal tables of position indices, which the host libraries keep in every block, are written once.
    """
    meta = dict(experiment_name=bundle.about.name, license=bundle.about.license)
    if bundle.about.classes:
        meta['dataset_meta'] = dict(classes=list(bundle.about.classes))
    state, once = model.state_dict(), {}
    for name, value in state.items():
        if not value.is_floating_point():
            state[name] = once.setdefault((value.shape, value.numpy().tobytes()), value)
    torch.save(dict(meta=meta, state_dict=state), file)


def write_config(bundle: Bundle, config: dict[str, Any], file: Path) -> None:
    """Write the config with which mmaction2's ``init_recognizer`` or mmpretrain's ``get_model`` opens the .pth."""
    steps = [dict(step, type=STOCK.get(step['type'], step['type'])) for step in from_files(bundle.about)]
    if bundle.about.is_video:
        config = dict(config, test_pipeline=steps)
    else:
        config = dict(config, test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=steps)))
    with written_whole(file) as partial:
        partial.write_text(Config(config).pretty_text)


def opened_plain(config: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    """Return the host library's model of a config that :func:`plain_parts` returned, with the weights of a file."""
    with DefaultScope.overwrite_default_scope(config['default_scope']):
        model = MODELS.build(config['model'])
    model.load_state_dict(state)
    model.head_name = 'cls_head' if hasattr(model, 'cls_head') else 'head'
    return model.eval()
