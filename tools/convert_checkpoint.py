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
    """Convert, and say what became of it."""
    from rich.console import Console

    from vpetl_mm.commands.conversion import Options, convert
    from vpetl_mm.commands.conversion_summary import summary

    if args.trust_pickle:
        print(f'warning: --trust-pickle: {args.src} may run any code that it holds.', file=sys.stderr)
    options = Options(args.kind, args.config, args.trust_pickle, args.force, args.part)
    with Console(stderr=True).status('reading') as status:
        conversion = convert(args.src, args.dst, options, status.update)
    print(summary(conversion, args.dst, forced=args.kind is not None))


parser = Parser(
    "Convert a pre-trained file of any kind to .safetensors in its host's naming, with a record of where it is from.",
    EXAMPLES,
)
parser.add_argument('src', help='the downloaded file, of torch, safetensors or numpy, whatever its name ends in')
parser.add_argument('dst', help='the file to write, which ends in .safetensors')
parser.add_argument('--kind', help=f'what SRC is, where it is not recognised rightly: {", ".join(KINDS)}')
parser.add_argument('--config', help='fit it to the backbone of this experiment (window, image size)')
parser.add_argument('--part', metavar='NAME', help='which model of SRC, where it holds several, such as model_ema')
parser.add_argument('--trust-pickle', action='store_true', help='read a pickle that holds more than tensors')
parser.add_argument('--force', action='store_true', help='replace DST')

if __name__ == '__main__':
    sys.exit(run(main, parser))
