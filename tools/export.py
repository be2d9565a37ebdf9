#!/usr/bin/env python
"""Export a bundle to a file that runs without this package."""

import argparse
import sys

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import spoken

EXAMPLES = """\
  tools/export.py bapat.safetensors bapat.onnx --check clip1.mp4 clip2.mp4
  tools/export.py bapat.safetensors bapat.pt2 --batch 1
  tools/export.py lora.safetensors plain.pth              # LoRA merged, with the config plain.py beside it"""


def main(args) -> None:
    """Export, and say how to use the file."""
    from pathlib import Path

    from rich.console import Console

    from vpetl_mm.use.export.exporting import export
    from vpetl_mm.use.export.summary import summary

    with Console(file=sys.stderr).status('reading the bundle') as status:
        parity = export(args.bundle, args.out, args.base, args.batch, args.check, status.update)
    print(spoken(summary(Path(args.out), parity)))


def _batch(text: str) -> int | None:
    if text == 'dynamic':
        return None
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise argparse.ArgumentTypeError(f'a batch is "dynamic" or a whole number from 1 to 4096, got {text!r}')
    return int(text)


parser = Parser(
    'Export a bundle to a file that runs without this package: .onnx, .pt2 (torch.export), or, where the deltas '
    'are updates of weights, a plain model of mmaction2 or mmpretrain (.pth or .safetensors). The file is compared '
    'with the model before it is kept.',
    EXAMPLES,
)
parser.add_argument('bundle', help='a .safetensors file of tools/train.py or tools/adapter.py pack')
parser.add_argument('out', help='the file to write; its suffix says which kind: .onnx, .pt2, .pth or .safetensors')
parser.add_argument(
    '--base',
    metavar='FILE',
    help='its base (default: the file of its name in data/weights/ or data/demo/)',
)
parser.add_argument(
    '--batch',
    type=_batch,
    metavar='N',
    help='inputs that an .onnx or .pt2 file takes at once: a number, or "dynamic" for any number (default)',
)
parser.add_argument(
    '--check',
    nargs='+',
    default=[],
    metavar='INPUT',
    help='clips or images, or folders of them, on which the file must give the logits of the model (default: two '
    'generated ones)',
)

if __name__ == '__main__':
    sys.exit(run(main, parser))
