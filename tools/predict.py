#!/usr/bin/env python
"""Classify videos, images or a camera with a bundle."""

import sys
from pathlib import Path

from vpetl_cli.command import Parser, run

EXAMPLES = """\
  tools/predict.py work_dirs/demo_bapat/demo_bapat.safetensors data/demo/target_test
  tools/predict.py fight.safetensors ~/clips '*.mp4' --base swin_base.pth --show-dir pictures
  find ~/clips -name '*.mp4' | tools/predict.py fight.safetensors - --json - | jq .name
  tools/predict.py fight.safetensors 0     # the first camera, until Ctrl-C"""
