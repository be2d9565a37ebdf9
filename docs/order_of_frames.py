"""What an image ViT learns of the order of frames: METHOD SEED [CLIPS [WEIGHTS]], in plain PyTorch, one line a run.

The methods sit in the last four of twelve blocks; the outputs of the first eight, frozen and without deltas, are
computed once. METHOD is one of st_adapter, st_adapter_311, aim and bapat; CLIPS
are motion or clutter.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn

from vpetl_mm.datasets import demo_clips
from vpetl_mm.petl import adapt

FRAMES, SIDE, OWN, CLASSES = 8, 70, 4, 8
TRAIN, TEST, EPOCHS, BATCH, RATE = 400, 200, 10, 16, 3e-3
WEIGHTS = 'data/weights/vit_small_patch14_dinov2.timm.fp16.safetensors'
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])  # ImageNet's
ST = dict(type='STAdapter', d_bottle=96, num_frames=FRAMES)
METHODS = dict(
    st_adapter_311=dict(first=dict(ST, at='block'), second=dict(ST, at='between')),
    st_adapter=dict(first=dict(ST, at='block', kernel=(3, 3, 3)), second=dict(ST, at='between', kernel=(3, 3, 3))),
    aim=dict(
        frames=dict(type='FrameEmbedding', num_frames=FRAMES),
        time=dict(type='AIMTime', num_frames=FRAMES, d_bottle=96),
        space=dict(type='LinearAdapter', at='proj', d_bottle=96),
        joint=dict(type='AdaptMLP', act='GELU', d_bottle=96, scale=0.5),
    ),
    bapat=dict(patt=dict(type='PATT', d_bottle=32, init='zero'), adapter=dict(type='AdaptMLP', d_bottle=64)),
)


def clips(split, count, kind):
    """Return the demo's clips of one split, (count, T, 3, SIDE, SIDE), and their classes."""
    drawn = []
    for i in range(count):
        rng = np.random.default_rng([0, [*demo_clips.POOL_SHARES].index(split), i])
        path = demo_clips.trajectory('target', i % CLASSES, rng)
        digits = demo_clips.digit_images()[demo_clips.digit_pools(0)[split]]
        behind = demo_clips.draw_clutter(rng.choice(digits), rng) if kind == 'clutter' else None
        drawn.append(demo_clips.draw_clip(rng.choice(digits), path, rng, behind))
    frames = (torch.from_numpy(np.stack(drawn)).float() - MEAN) / STD
    frames = F.interpolate(frames.flatten(0, 1).permute(0, 3, 1, 2), size=(SIDE, SIDE), mode='bilinear')
    return frames.unflatten(0, (count, FRAMES)), torch.arange(count) % CLASSES


@torch.no_grad()
def features(model, frames):
    """Return the outputs of the first blocks, (count, T, N, d)."""
    blocks = model.blocks[:-OWN]
    with torch.autocast('cpu', torch.bfloat16):
        parts = [
            blocks(model.norm_pre(model._pos_embed(model.patch_embed(b.flatten(0, 1))))) for b in frames.split(8)
        ]
    return torch.cat(parts).unflatten(0, (-1, FRAMES)).bfloat16()


def logits(model, tokens):
    """Return the mean of the frames' logits, (B, CLASSES)."""
    with torch.autocast('cpu', torch.bfloat16):
        y = model.forward_head(model.norm(model.blocks(tokens.flatten(0, 1).float())))
    return y.float().unflatten(0, (-1, FRAMES)).mean(1)


def main(method, seed, kind='motion', weights=WEIGHTS):
    """Train and test one method, and print what came out."""
    torch.manual_seed(int(seed))
    model = timm.create_model('vit_small_patch14_dinov2', img_size=SIDE, num_classes=CLASSES).eval()
    state = {name: value.float() for name, value in load_file(Path(weights)).items()}
    model.load_state_dict(checkpoint_filter_fn(state, model), strict=False)
    (train, labels), (test, wanted) = clips('target_train', TRAIN, kind), clips('target_test', TEST, kind)
    train, test = features(model, train), features(model, test)
    model.blocks = model.blocks[-OWN:]
    plan = adapt(model, METHODS[method])
    optimizer = torch.optim.AdamW(plan.parameters(), lr=RATE, weight_decay=0.0)
    steps = EPOCHS * (TRAIN // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        model.train()
        for batch in torch.randperm(TRAIN).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(logits(model, train[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
        print(f'{method} seed {seed}: epoch {epoch + 1} of {EPOCHS}', file=sys.stderr)
    model.eval()
    with torch.no_grad():
        hits = torch.cat([logits(model, part).argmax(1) for part in test.split(25)]) == wanted
    print(f'{kind},{method},{seed},{100 * hits.float().mean():.1f},{plan.count()["trainable"]}', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
