#!/usr/bin/env python
"""Convert a pre-trained file to the one that configs name in model.base."""

import sys

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/convert_checkpoint.py data/weights/ViT-B_16.npz data/weights/vit_b_16.safetensors
  tools/convert_checkpoint.py swin_base_patch4_window7_224_22k.pth data/weights/swin_b_in22k.safetensors \\
      --config configs/swin_bapat_ssv2_b256_in22k.py
  tools/convert_checkpoint.py my_vit.bin data/weights/my_vit.safetensors --kind timm_vit"""

KINDS = (
    *('video_swin', 'mmaction_swin', 'swin2d', 'videomae', 'mmaction_videomae', 'mae', 'mocov3', 'dinov2', 'miil'),
    *('timm_vit', 'mmpretrain_vit', 'google_vit'),
)


def main(args) -> None:
    """Convert the file and describe the result."""
    from rich.console import Console

    from vpetl_mm.commands.conversion import convert, describe_conversion

    if args.trust_pickle:
        print(f'warning: --trust-pickle: {args.src} may run any code that it holds.', file=sys.stderr)
    options = {name: getattr(args, name) for name in ('kind', 'config', 'trust_pickle', 'force', 'part')}
    with Console(stderr=True).status('reading') as status:
        conversion = convert(args.src, args.dst, **options, say=status.update)
    print(describe_conversion(conversion, args.dst, forced=args.kind is not None))


parser = Parser(
    'Convert a pre-trained file to .safetensors, named as its host names the weights, with a record of its origin.',
    EXAMPLES,
)
parser.add_argument('src', help='the downloaded file: torch, safetensors or numpy, with any suffix')
parser.add_argument('dst', help='the file to write, ending in .safetensors')
parser.add_argument('--kind', help=f'the kind of SRC, if it is not recognised correctly: {", ".join(KINDS)}')
parser.add_argument('--config', help='fit the weights to the backbone of this experiment (window, image size)')
parser.add_argument('--part', metavar='NAME', help='the model to extract if SRC holds several, such as model_ema')
parser.add_argument('--trust-pickle', action='store_true', help='let a pickle that holds more than tensors run code')
parser.add_argument('--force', action='store_true', help='replace DST')

if __name__ == '__main__':
    sys.exit(run(main, parser))
