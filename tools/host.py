#!/usr/bin/env python
"""Show what can be adapted in a model, or propose an entry for one that is not known."""

import re
import sys

from vpetl_cli.command import Parser, run

DESCRIPTION = """\
Show what can be adapted in a model: its blocks, attentions, MLPs and norms, the names that train= takes, and every
method with the number of parameters that it would train, or the reason why it does not fit.

Nothing is downloaded and no weight is created, so that a model of any size takes seconds. For a model that is not
known an entry of the place table is proposed, to paste in front of adapt (docs/hosts.md)."""
EXAMPLES = """\
  tools/host.py vit_base_patch16_dinov3.lvd1689m       a model of timm
  tools/host.py vjepa2                                 a model type of transformers, at its default size
  tools/host.py ~/models/dinov3-vitb16                 a folder with its config.json
  tools/host.py VideoMAEForVideoClassification         a class of transformers
  tools/host.py configs/swin_bapat_ssv2_b128.py        an experiment
  tools/host.py mine:MyViT --input 3x224x224           MyViT() of mine.py; run on inputs of this shape
  tools/host.py swin_tiny_patch4_window7_224 --try     also run it once for each method"""


def main(args) -> None:
    """Describe the model."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # libraries tell of what is not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            from vpetl_mm.commands.host import described
            from vpetl_mm.commands.host_models import named_model

            print(described(named_model(args.model, args.input), args.tries))
    finally:
        logging.disable(before)


def shape(text: str) -> tuple[int, ...]:
    """Return the shape of one input."""
    if not re.fullmatch(r'\d{1,5}(x\d{1,5}){1,3}', text):
        raise ValueError
    return tuple(map(int, text.split('x')))


parser = Parser(DESCRIPTION, EXAMPLES)
parser.add_argument(
    'model', metavar='MODEL', help='a name of timm or transformers, an experiment, or module:callable'
)
parser.add_argument('--try', dest='tries', action='store_true', help='run the model once for each method, on no data')
parser.add_argument('--input', type=shape, metavar='CxHxW', help="one input's shape (default: the model's own)")

if __name__ == '__main__':
    sys.exit(run(main, parser))
