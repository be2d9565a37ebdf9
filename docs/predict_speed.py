"""Clips per second of Swin-BAPAT-128's bundle against mmaction2's inference_recognizer: FOLDER [ROUNDS [CLIPS]].

Random weights, one view of 8 x 224 x 224 in float32. Stock is mmaction2's Video Swin without deltas, its pipeline the
same with mmaction2's decoding. Each has a process of its own; one works at a time.
"""

import random
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

CONFIG = 'configs/swin_bapat_ssv2_b128.py'
STOCK = dict(OpenVideo='DecordInit', DecodeVideo='DecordDecode')


def bundle_in(folder):
    """Write a bundle of random weights."""
    import torch

    from vpetl_mm import build_model
    from vpetl_mm.config import load_config
    from vpetl_mm.engine.adapter import trained_meta
    from vpetl_mm.use.bundle.packing import packed

    cfg = load_config(CONFIG, {'model.base': None})
    model = build_model(cfg, init_weights=True)
    content = dict(state_dict=model.state_dict(), meta=dict(trained_meta(model), epoch=0))
    with torch.no_grad():
        return packed(cfg, 'random', Path(folder, 'random.pth'), content, Path(folder, 'random.safetensors'))


def serve(pipe, kind, clips):
    """Classify all clips whenever asked, and answer with the seconds."""
    from mmaction.apis import inference_recognizer, init_recognizer
    from mmengine import Config

    from vpetl_mm import PETLInferencer
    from vpetl_mm.use.bundle.views import pipeline_of
    from vpetl_mm.use.predict.memory import keep_all_memory

    with TemporaryDirectory() as folder:
        ours = PETLInferencer(bundle_in(folder), dtype='float32', views='fast')
    if kind == 'stock':
        model = ours.about.model
        head = dict(type='I3DHead', num_classes=174, in_channels=1024, average_clips='prob')
        parts = dict(backbone=model['backbone'], cls_head=head, data_preprocessor=model['data_preprocessor'])
        steps = [dict(step, type=STOCK.get(step['type'], step['type'])) for step in pipeline_of(ours.about, 'fast')]
        cfg = dict(default_scope='mmaction', test_pipeline=steps, model=dict(type='Recognizer3D', **parts))
        stock = init_recognizer(Config(cfg), device='cpu')
        del ours
        ways = {'stock': lambda: [inference_recognizer(stock, clip) for clip in clips]}
    else:
        keep_all_memory()  # as tools/predict.py does
        ways = {'ours, one by one': lambda: [p for clip in clips for p in ours.stream([clip], 1)]}
        ways['ours'] = lambda: [*ours.stream(clips)]
    pipe.send([*ways])
    while (way := pipe.recv()) != 'end':
        began = time.perf_counter()
        assert len(ways[way]()) == len(clips)
        pipe.send(time.perf_counter() - began)


def main(folder, rounds=3, most=60):
    """Measure in shuffled rounds, after one of warm-up, and print medians."""
    clips = sorted(str(path) for path in Path(folder).rglob('*') if path.suffix in ('.mp4', '.avi'))[: int(most)]
    at, took = {}, {}
    context = get_context('spawn')
    for kind in ('stock', 'ours'):
        mine, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, kind, clips)).start()
        at |= dict.fromkeys(mine.recv(), mine)
    for turn in range(int(rounds) + 1):
        for way in random.Random(turn).sample([*at], len(at)):
            at[way].send(way)
            seconds = at[way].recv()
            print(f'round {turn}, {way}: {seconds / len(clips):.2f} s a clip', flush=True)
            if turn:
                took.setdefault(way, []).append(seconds)
    for way, seconds in took.items():
        ratio = median(stock / own for stock, own in zip(took['stock'], seconds, strict=True))
        print(f'{way}: {len(clips) / median(seconds):.2f} clips/s, {ratio:.2f} of stock')
    for pipe in {*at.values()}:
        pipe.send('end')


if __name__ == '__main__':
    main(*sys.argv[1:])
