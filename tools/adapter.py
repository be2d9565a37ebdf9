#!/usr/bin/env python
"""Pack a trained run into one file, a bundle; read and check bundles."""

import shlex
import sys
from pathlib import Path

from vpetl_cli.command import Parser, run
from vpetl_cli.shipped import spoken

EXAMPLES = """\
  tools/adapter.py pack work_dirs/demo_bapat                                     # the run's best or last checkpoint
  tools/adapter.py pack configs/demo_bapat.py adapter_epoch_7.pth -o bapat.safetensors --license CC-BY-4.0
  tools/adapter.py info bapat.safetensors
  tools/adapter.py verify bapat.safetensors --base data/demo/source_backbone.pth
  tools/adapter.py card bapat.safetensors > README.md
  tools/adapter.py to-peft lora.safetensors lora_peft --base data/weights/mae_pretrain_vit_base.pth
  tools/adapter.py from-peft lora_peft vit_lora_vtabdtd_r8_mae -o again.safetensors"""


def main(args) -> None:
    """Run the subcommand."""
    args.call(args)


def pack(args) -> None:
    """Write a bundle."""
    from vpetl_mm.use.bundle.packing import pack

    _show(pack(args.run, args.checkpoint, args.out, args.cfg_options, args.license))


def _show(bundle: Path) -> None:
    from vpetl_mm.files import size_of

    print(f'bundle: {bundle} ({size_of(bundle)})')
    print(spoken(f'Predict with it: tools/predict.py {shlex.quote(str(bundle))} INPUT...'))


def info(args) -> None:
    """Describe bundles."""
    from vpetl_mm.use.plain.info import info_of_plan, is_of_plan

    def info_of(file: str) -> str:
        if is_of_plan(file):  # which needs no OpenMMLab
            return info_of_plan(file)
        from vpetl_mm.use.bundle.card import info_of

        return info_of(file)

    print('\n\n'.join([info_of(file) for file in args.file]))


def verify(args) -> None:
    """Check a bundle, and its base."""
    from vpetl_mm.use.bundle.bundle import read_bundle
    from vpetl_mm.use.bundle.model import bundled_model

    bundle = read_bundle(args.file)
    bundled_model(bundle, args.base)
    held = (
        'it holds the whole model' if bundle.about.frozen_sha256 is None else 'the base is the one it was trained on'
    )
    print(f'{args.file} is valid: its {len(bundle.tensors)} tensors fit the model, and {held}')


def card(args) -> None:
    """Print a model card."""
    from vpetl_mm.use.bundle.card import card_of

    print(card_of(args.file), end='')


def to_peft(args) -> None:
    """Write a PEFT folder."""
    from vpetl_mm.use.peft.conversion import bundle_to_peft
    from vpetl_mm.use.peft.writing import BACKBONE, loading_code

    adapter = bundle_to_peft(args.file, args.folder, args.base)
    with_backbone = Path(args.folder, BACKBONE).is_file()
    print(f'PEFT: {args.folder}, with {Path(args.folder, "README.md")}. Load it with:\n')
    print(loading_code(adapter.options, args.folder, with_backbone), end='')


def from_peft(args) -> None:
    """Write a bundle of a PEFT folder."""
    from vpetl_mm.use.peft.conversion import peft_to_bundle

    _show(peft_to_bundle(args.folder, args.config, args.out, args.cfg_options, args.classes, args.license))


LICENSE = 'the license of the trained weights (default: what the card of the base names, or unknown)'
parser = Parser('Pack a trained run into one file, a bundle, that others can use; read and check bundles.', EXAMPLES)
command = parser.add_command(
    'pack', pack, 'write the bundle of a run: the trained tensors, the config as data, the class names'
)
command.add_argument('run', metavar='RUN_DIR|CONFIG', help='the folder of a run, or its config')
command.add_argument(
    'checkpoint', nargs='?', help="adapter_*.pth, best_*.pth or epoch_*.pth (default: the run's best, or last)"
)
command.add_argument(
    '-o',
    '--out',
    metavar='OUT.safetensors',
    help="a new file (default: <config>.safetensors in the run's folder, replaced)",
)
command.add_argument('--license', default='', help=LICENSE)
parser.add_settings('--cfg-options', 'override the config, as in the run', command)

command = parser.add_command('info', info, 'describe bundles')
command.add_argument('file', nargs='+', help='a bundle')

command = parser.add_command('verify', verify, 'check that a bundle is valid and fits its base')
command.add_argument('file', help='a bundle')
command.add_argument(
    '--base', metavar='FILE', help='its base (default: the file of its name in data/weights/ or data/demo/)'
)

command = parser.add_command('card', card, 'print a model card in Markdown')
command.add_argument('file', help='a bundle')

command = parser.add_command(
    'to-peft', to_peft, "write LoRA on an image ViT as a folder of Hugging Face PEFT, for timm's ViT"
)
command.add_argument('file', help='a bundle with LoRA on qkv, proj, fc1 or fc2, and nothing else')
command.add_argument('folder', metavar='OUT_DIR', help='a new folder')
command.add_argument('--base', metavar='FILE', help="its base: also write it there, in timm's names")

command = parser.add_command('from-peft', from_peft, "write a bundle of a PEFT folder with LoRA on timm's image ViT")
command.add_argument('folder', metavar='DIR', help='holds adapter_config.json and adapter_model.safetensors')
command.add_argument(
    'config', help="an experiment with this backbone, its base and test pipeline; LoRA and head are the folder's"
)
command.add_argument('-o', '--out', metavar='OUT.safetensors', required=True, help='a new file')
command.add_argument('--classes', metavar='FILE', help="class names, one per line (default: the config's)")
command.add_argument('--license', default='', help=LICENSE)
parser.add_settings('--cfg-options', 'override the config, such as model.base.file=FILE', command)

if __name__ == '__main__':
    sys.exit(run(main, parser))
