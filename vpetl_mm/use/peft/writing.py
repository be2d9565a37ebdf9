"""Writes a folder of Hugging Face PEFT for timm's image ViT. Imports neither peft nor timm."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import UserError
from ...files import check_new, os_errors_explained
from ...petl import LoRA, layout_of
from ...weights.files import write_safetensors
from ...weights.vit import to_timm
from .config import CONFIG
from .low_rank import LowRank, stacked
from .timm_vit import timm_model, timm_options

TENSORS, README, BACKBONE = 'adapter_model.safetensors', 'README.md', 'timm_backbone.safetensors'
PREFIX = 'base_model.model.'  # of PeftModel, in front of the wrapped model's names
# place -> the end of the layer's name in timm
LAYERS = {'qkv': 'attn.qkv', 'proj': 'attn.proj', 'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2'}


@dataclass(frozen=True)
class PEFTAdapter:
    """What a PEFT folder holds.

    Args:
        config: the content of adapter_config.json.
        tensors: the content of adapter_model.safetensors.
        options: the arguments of timm's VisionTransformer that it is for.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    options: dict[str, Any]


def to_peft(model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PEFTAdapter:
    """Turn trained LoRA and a head into what PEFT loads onto timm's VisionTransformer: the same logits.

    All LoRA on one layer becomes one, of their summed rank; the slots of a fused qkv are blocks of its B. The head's
    BatchNorm becomes part of its linear layer, which is PEFT's ``modules_to_save``.

    Args:
        model: the model's config, of a PETLImageClassifier.
        tensors: what was trained, under the keys of its state dict.

    Raises:
        UserError: for a model that timm does not have, and for anything trained beside LoRA and the head.
    """
    petl = model.get('petl') or {}
    _check_lora_alone(petl)
    built = timm_model(model, petl)
    trained = _trained(built, tensors)
    updates = _updates(built, trained)
    state = {f'{PREFIX}head.{name}': value for name, value in _head(built, trained).items()}
    for layer, update in updates.items():
        state[f'{PREFIX}{layer}.lora_A.weight'] = update.a
        state[f'{PREFIX}{layer}.lora_B.weight'] = update.b
    dropouts = {float(d.dropout.p) for d in built.plan.deltas()}
    config = dict(
        peft_type='LORA',
        task_type=None,
        base_model_name_or_path=None,
        inference_mode=True,
        **_ranks(updates),
        use_rslora=False,
        lora_dropout=dropouts.pop() if len(dropouts) == 1 else 0.0,
        bias='none',
        fan_in_fan_out=False,
        target_modules=[end for end in LAYERS.values() if any(name.endswith(end) for name in updates)],
        modules_to_save=['head'],
    )
    return PEFTAdapter(config, state, timm_options(built))


def _check_lora_alone(petl: Mapping[str, Any]) -> None:
    deltas = {n: spec for n, spec in (petl.get('deltas') or {}).items() if spec is not None}
    others = [f'{spec.get("type")} ({name})' for name, spec in deltas.items() if spec.get('type') != 'LoRA']
    others += [f'train={name!r}' for name in petl.get('train') or () if name != 'head']
    others += ['SPT'] if petl.get('spt') is not None else []
    if others:
        raise UserError(f"PEFT's folder holds LoRA and the head, and this model also trains {', '.join(others)}.")
    if not deltas:
        raise UserError("PEFT's folder holds LoRA, and this model has none.")


def _trained(built: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of deltas and head in float32, each of the model's shape, and nothing else."""
    wanted = {n: v.shape for n, v in built.state_dict().items() if '.deltas.' in n or n.startswith('head.')}
    for name in {**wanted, **tensors}:
        there, here = (tuple(found[name]) if name in found else 'missing' for found in (_shapes(tensors), wanted))
        if there != here:
            raise UserError(f'The tensor {name!r} is {there}, and {here} in the model that its own config builds.')
    return {name: tensors[name].detach().cpu().float() for name in wanted}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in tensors.items()}


def _updates(built: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """Return the update of each layer that has LoRA, by the layer's name in timm."""
    updates = {}
    for place in LAYERS:
        for site in layout_of(built.backbone).sites(built.backbone, place):
            loras = {n: d for n, d in getattr(site.host, 'deltas', {}).items() if isinstance(d, LoRA)}
            parts = [
                LowRank(*(tensors[f'{key}.{which}.{slot}.weight'] for which in 'AB'), lora.scale, start)
                for name, lora in loras.items()
                for key in [f'backbone.{site.name}.deltas.{name}']
                for slot, start in lora.starts.items()
            ]
            if parts:
                updates[to_timm(site.name)] = stacked(parts, site.out_dim)
    return updates


def _head(built: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weight`` and ``bias`` of the linear layer, the BatchNorm in front of it included."""
    head = built.head.to_empty(device='cpu')
    head.load_state_dict({name: tensors[f'head.{name}'] for name in head.state_dict()})
    if hasattr(head, 'fold'):
        head.fold()
    return {name: value.detach() for name, value in head.fc.state_dict().items()}


def _ranks(updates: Mapping[str, LowRank]) -> dict[str, Any]:
    """Return rank and alpha of most layers, and of the others by the end of their names."""
    found = {'r': {}, 'lora_alpha': {}}
    for end in LAYERS.values():  # all layers of a place have the same
        for update in [u for name, u in updates.items() if name.endswith(end)][:1]:
            found['r'][end], found['lora_alpha'][end] = update.rank, update.alpha
    usual = {key: Counter(values.values()).most_common(1)[0][0] for key, values in found.items()}
    others = {key: {e: v for e, v in values.items() if v != usual[key]} for key, values in found.items()}
    return dict(usual, rank_pattern=others['r'], alpha_pattern=others['lora_alpha'])


def write_peft(
    adapter: PEFTAdapter, folder: Path, about: str = '', backbone: Mapping[str, Tensor] | None = None
) -> None:
    """Write a new PEFT folder, whole or not at all.

    Args:
        adapter: from :func:`to_peft`.
        folder: does not exist yet.
        about: Markdown for its README.md, which also says how to load it.
        backbone: the frozen backbone under timm's names, if it is to lie there too, as timm_backbone.safetensors.

    Raises:
        UserError: when it exists or cannot be written.
    """
    check_new(folder)
    with os_errors_explained():
        partial = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.absolute().parent))
        try:
            write_safetensors(partial / TENSORS, adapter.tensors, {'format': 'pt'})
            if backbone is not None:
                write_safetensors(partial / BACKBONE, backbone, {'format': 'pt'})
            partial.joinpath(CONFIG).write_text(json.dumps(adapter.config, indent=2) + '\n', encoding='utf-8')
            code = loading_code(adapter.options, str(folder), backbone is not None)
            text = f'---\nlibrary_name: peft\n---\n\n{about}\n\n```python\n{code}```\n'
            partial.joinpath(README).write_text(text, encoding='utf-8')
            partial.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def loading_code(options: Mapping[str, Any], folder: str, with_backbone: bool) -> str:
    """Return the Python that loads a PEFT folder onto timm's ViT."""
    arguments = ',\n'.join(f'    {name}={value!r}' for name, value in options.items())
    load = (
        f'vit.load_state_dict(load_file({f"{folder}/{BACKBONE}"!r}), strict=False)  # all but the head'
        if with_backbone
        else "# load the base into vit here: tools/adapter.py to-peft --base FILE writes it in timm's names"
    )
    return (
        'from peft import PeftModel\nfrom safetensors.torch import load_file\n'
        'from timm.models.vision_transformer import VisionTransformer\n\n'
        f'vit = VisionTransformer(\n{arguments},\n)\n{load}\n'
        f'model = PeftModel.from_pretrained(vit, {folder!r}).eval()\n'
    )
