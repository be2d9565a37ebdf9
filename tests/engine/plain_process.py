"""Loads merged files as docs/weights.md says, in a process that knows the host libraries alone.

Usage: plain_process.py SNIPPET FOLDER; FOLDER holds NAME.safetensors and NAME.pt, inputs of 0 to 255 and logits.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import torch
from safetensors import safe_open


def stand_in_for_drn() -> None:
    """Modules that the mmaction2 1.2.0 wheel lacks and imports."""
    for name in ('mmaction.models.localizers.drn', 'mmaction.models.localizers.drn.drn'):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[name].DRN = type('DRN', (), {})


def without_multimodal() -> None:
    """Leave out models that both libraries import beside transformers, from places that its version 5 has not."""
    import importlib_metadata
    from mmaction.utils import dependency

    dependency.WITH_MULTIMODAL = False
    found = importlib_metadata.distribution
    importlib_metadata.distribution = lambda name: found('none' if name == 'pycocotools' else name)
    import mmpretrain.utils.dependency

    importlib_metadata.distribution = found
    assert mmpretrain.utils.dependency


def main(snippet: str, folder: Path) -> None:
    """Print the largest difference of each model's logits and its head's class, as JSON."""
    stand_in_for_drn()
    without_multimodal()
    found = {}
    for file in sorted(folder.glob('*.safetensors')):
        with safe_open(file, 'pt') as opened:
            library = json.loads(opened.metadata()['vpetl_mm_merged'])['default_scope']
        scope: dict = {}
        exec(snippet.replace('mmpretrain', library).replace('merged.safetensors', str(file)), scope)
        model, (x, expected) = scope['model'], torch.load(file.with_suffix('.pt'))
        x = (x - model.data_preprocessor.mean) / model.data_preprocessor.std
        with torch.no_grad():
            logits = model(x, mode='tensor') if library == 'mmpretrain' else model.cls_head(model.backbone(x))
        head = getattr(model, 'head', None) or model.cls_head
        found[file.stem] = [(logits - expected).abs().max().item(), type(model).__name__, type(head).__name__]
    assert not any(name.startswith('vpetl_mm') for name in sys.modules)
    print(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]).read_text(), Path(sys.argv[2]))
