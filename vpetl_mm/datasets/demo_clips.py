"""Demo clips: real handwritten digits (scikit-learn, 8x8) in motion, as H.264 files and VideoDataset lists.

A clip has 8 frames of 32x32 RGB. Its class is how the digit moves (``demo_motions.py``); the digit, its colour and
size, and the background are random. Cluttered clips are harder: no clock, a second digit that moves straight on, and
noise.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
from rich.progress import Progress

from ..errors import UserError, unknown
from ..files import written_whole
from .demo_motions import DOMAINS, FRAMES, SIZE, straight_on, trajectory
from .list_file import Sample, write_list

FORMAT = 2  # Raise it when the same settings make other clips: earlier ones are then made again.
# How much lighter (of 255) the last background is than the first: a clock. Video Swin sees only relative times,
# through biases; without it the trials stayed below 50 %.
DAWN = 70
NOISE = 8  # of 255, the standard deviation in cluttered clips
STATE_FILE = 'demo_clips.json'
# Share of scikit-learn's 1797 digit images that each split draws from; no image is in two of them.
POOL_SHARES = {
    'source_train': 0.35,
    'source_val': 0.05,
    'source_test': 0.1,
    'target_train': 0.3,
    'target_val': 0.05,
    'target_test': 0.15,
}
# With yuv444p, as 420 has five times the error at the same speed. One key frame per clip and no B-frames is the
# smallest, and decodes as fast as key frames alone.
ENCODER = {'preset': 'ultrafast', 'crf': '20', 'g': str(FRAMES), 'bf': '0', 'threads': '1'}


@cache
def digit_images() -> np.ndarray:
    """Return scikit-learn's handwritten digits [1797, 8, 8], 0 .. 16."""
    from sklearn.datasets import load_digits

    return load_digits().images


@cache
def digit_pools(seed: int = 0) -> dict[str, np.ndarray]:
    """Return the indices of the digit images of each split, pairwise disjoint, shuffled by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(digit_images()))
    cuts = np.round(np.cumsum(list(POOL_SHARES.values()))[:-1] * len(order)).astype(int)
    return dict(zip(POOL_SHARES, np.split(order, cuts), strict=True))


def _hat(at: np.ndarray, count: int) -> np.ndarray:
    """Return linear interpolation weights [..., count] of samples 0 .. count - 1 at the positions ``at`` [...]."""
    return np.clip(1 - np.abs(at[..., None] - np.arange(count)), 0, None)


def _background(rng: np.random.Generator, dawn: float = DAWN) -> np.ndarray:
    """Draw a dark background [8, 32, 32, 3] in 0 .. 255, plain or faintly textured, that grows ``dawn`` lighter."""
    coarse = rng.uniform(5, 40, 3) + rng.choice([0.0, 10.0]) * rng.standard_normal((5, 5, 3))
    weights = _hat(np.linspace(0, 4, SIZE), 5)
    still = np.einsum('yi,xj,ijc->yxc', weights, weights, coarse)
    return still + np.linspace(0, dawn, FRAMES)[:, None, None, None]


def draw_clip(
    digit: np.ndarray, centres: np.ndarray, rng: np.random.Generator, behind: np.ndarray | None = None
) -> np.ndarray:
    """Draw a clip.

    Args:
        digit: [8, 8], 0 .. 16.
        centres: [8, 2] as (x, y) in pixels; wrapped here.
        rng: decides the size (10 .. 14 pixels), the colours and the background.
        behind: the background [8, 32, 32, 3] in 0 .. 255. Defaults to None: drawn.

    Returns:
        frames [8, 32, 32, 3], uint8 RGB.
    """
    scale = rng.uniform(10, 14) / 8
    apart = np.arange(SIZE) - centres[..., None]  # [8, 2, 32] pixels
    apart = (apart + SIZE / 2) % SIZE - SIZE / 2
    weights = _hat(apart / scale + 3.5, 8)  # [8, 2, 32, 8]; 3.5 is the middle of the digit image
    alpha = weights[:, 1] @ (digit / 16) @ weights[:, 0].transpose(0, 2, 1)  # [8, 32, 32]
    background = _background(rng) if behind is None else behind
    colour = rng.uniform(150, 255, 3)
    frames = background + alpha[..., None] * (colour - background)
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Encode frames [T, H, W, 3] (uint8 RGB) as H.264 in an mp4 file."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FRAMES, options=ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv444p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def draw_clutter(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw what is behind a cluttered clip's digit, [8, 32, 32, 3]: another one that moves straight on, and noise."""
    other = draw_clip(digit, straight_on(rng), rng, _background(rng, dawn=0))
    return other + NOISE * rng.standard_normal(other.shape)


def _make_clip(root: Path, seed: int, clutter: bool, job: tuple[str, int, Sample]) -> None:
    split, index, sample = job
    # Each clip has a generator of its own, so that neither the workers nor the other counts change it.
    rng = np.random.default_rng([seed, list(POOL_SHARES).index(split), index])
    centres = trajectory(split.split('_')[0], sample.label, rng)
    digits = digit_images()[digit_pools(seed)[split]]
    behind = draw_clutter(rng.choice(digits), rng) if clutter else None
    frames = draw_clip(rng.choice(digits), centres, rng, behind)
    write_clip(root / sample.path, frames)


def _clear(root: Path) -> None:
    """Remove what an earlier call wrote, the state first, so that an interruption leaves it unfinished."""
    (root / STATE_FILE).unlink(missing_ok=True)
    for split in POOL_SHARES:
        (root / f'{split}.txt').unlink(missing_ok=True)
        shutil.rmtree(root / 'clips' / split, ignore_errors=True)


def _check(counts: dict[str, int]) -> None:
    for split, count in counts.items():
        if split not in POOL_SHARES:
            raise unknown('split of the demo clips', split, POOL_SHARES)
        if count < 1:
            raise UserError(f'The demo clips need at least 1 clip in each split: {split} has {count}.')


def make_demo_clips(
    root: Path,
    counts: dict[str, int],
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
    clutter: bool = False,
) -> None:
    """Write the clips, a list of 'clips/<split>/<index>.mp4 LABEL' lines for each split, and the class names.

    Returns at once if the same settings have been written in full; what other settings or an interrupted call left
    is removed first.

    Args:
        root: the folder to write to.
        counts: clips in each wanted split of ``POOL_SHARES``, such as ``{'source_train': 4000}``.
        seed: decides every clip, whatever ``workers`` is. Defaults to 0.
        workers: processes. Defaults to 2.
        progress: show a bar with the time left. Defaults to True.
        clutter: make the harder clips. Defaults to False.
    """
    _check(counts)
    root = Path(root)
    state = {'format': FORMAT, 'seed': seed, 'counts': dict(counts), **(dict(clutter=True) if clutter else {})}
    with suppress(OSError, ValueError):
        if json.loads((root / STATE_FILE).read_text()) == state:
            return
    _clear(root)
    for split in counts:
        (root / 'clips' / split).mkdir(parents=True)
    # the classes take turns, so their counts differ by one at most
    classes = {split: len(DOMAINS[split.split('_')[0]]) for split in counts}
    lists = {s: [Sample(f'clips/{s}/{i:05d}.mp4', i % classes[s]) for i in range(n)] for s, n in counts.items()}
    jobs = [(split, index, sample) for split, samples in lists.items() for index, sample in enumerate(samples)]
    digit_pools(seed)  # once, for every worker to inherit
    # Processes, as threads gain nothing here; forked, as fresh ones would first import torch and mmaction2; without
    # an answer to Ctrl-C, which is the parent's.
    context = multiprocessing.get_context('fork')
    pool = ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        done = pool.map(
            partial(_make_clip, root, seed, clutter), jobs, chunksize=16
        )  # forks before the bar starts a thread
        with Progress(disable=not progress) as bar:
            for _ in bar.track(done, total=len(jobs), description='Making the demo clips'):
                pass
    finally:
        pool.shutdown(cancel_futures=True)
    for split, samples in lists.items():
        write_list(root / f'{split}.txt', samples)
    for domain, names in DOMAINS.items():
        (root / f'{domain}_classes.txt').write_text('\n'.join(names) + '\n')
    # Last and in one step: where this file exists, everything else does.
    with written_whole(root / STATE_FILE) as partial_file:
        partial_file.write_text(json.dumps(state, indent=2) + '\n')
