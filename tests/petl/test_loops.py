"""Adapted models in the training loops of other libraries; one's own loop is in tests/test_architecture.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import timm
import timm.optim

from vpetl_mm.petl import adapt

HERE = Path(__file__).parent


def test_the_trainer_of_transformers_trains_what_the_plan_says(tmp_path):
    env = dict(os.environ, PYTHONPATH=str(HERE.parents[1]))
    options = dict(cwd=tmp_path, capture_output=True, text=True, env=env)
    done = subprocess.run([sys.executable, HERE / 'hf_trainer.py', tmp_path], check=False, **options)
    assert done.returncode == 0, done.stderr
    wrong = done.stdout.splitlines()[-1].split()
    # what adds the same to all keys is taken away by the softmax, so that only rounding may move it
    assert all(name.endswith('patt.up.bias') for name in wrong), wrong


def test_the_optimizers_of_timm_take_what_the_plan_says():
    deltas = dict(patt=dict(type='PATT', d_bottle=4), lora=dict(type='LoRA', rank=2, at='proj'))
    model = timm.create_model('vit_tiny_patch16_224', depth=1, embed_dim=24, num_heads=2, num_classes=3)
    plan = adapt(model, deltas)
    optimizer = timm.optim.create_optimizer_v2(model, opt='adamw', lr=0.1, weight_decay=0.05)
    taken = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert taken == {id(p) for p in plan.parameters()}
