"""The lines that follow an export."""

from __future__ import annotations

from pathlib import Path

from ...files import size_of
from .exporting import config_beside
from .parity import Parity

USES = {
    '.onnx': 'Run it: onnxruntime.InferenceSession("{out}").run(["probabilities"], {{"pixels": pixels}})',
    '.pt2': 'Run it: torch.export.load("{out}").module()(pixels) returns logits and probabilities',
    '.safetensors': 'docs/weights.md shows how to load it without this package',
}
PIXELS = 'pixels: uint8 RGB as decoded; its metadata says the shape and the classes'
LIBRARIES = {
    'mmaction': 'Load it: mmaction.apis.init_recognizer("{config}", "{out}", device="cpu")',
    'mmpretrain': 'Load it: mmpretrain.get_model("{config}", pretrained="{out}")',
}


def summary(out: Path, parity: Parity) -> str:
    """Return the lines: the file, its size, how close it is to the model, and how to run it."""
    inputs = f'{parity.clips} {"generated inputs" if parity.generated else "of your inputs"}'
    lines = [
        f"exported: {out} ({size_of(out)}); on {inputs} its logits are within {parity.difference:.1e} of the model's"
    ]
    if parity.generated:
        lines.append('--check INPUT... compares on clips or images of your own')
    if out.suffix == '.pth':
        config = config_beside(out)
        library = 'mmaction' if "default_scope = 'mmaction'" in config.read_text() else 'mmpretrain'
        lines += [f'config: {config}', LIBRARIES[library].format(config=config, out=out)]
    else:
        lines.append(USES[out.suffix].format(out=out))
    if out.suffix in ('.onnx', '.pt2'):
        lines.append(PIXELS)
    return '\n'.join(lines)
