"""Demo clips: real handwritten digits (scikit-learn, 8x8) in motion, as H.264 files and VideoDataset lists.

A clip is 8 frames of 32x32 RGB. Its class is how the digit moves; which digit, its colour, its size and
the background are drawn at random. The canvas wraps round and the start is uniform on it, so that the digit's
place in any one frame is uniform for every class: one frame says nothing, and each target class has a twin
with the same motions in another order.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
from rich.progress import Progress

from vpetl_mm.errors import UserError, unknown
from vpetl_mm.files import written_whole

FORMAT = 1  # Raise it when the same settings give other clips: what was made before is then made again.
FRAMES = 8
SIZE = 32  # pixels
# How much lighter (of 255) the last background is than the first: a clock. Video Swin knows relative times
# only, by biases that straight motion hardly trains; without it the trials stayed below 50 %.
DAWN = 70
STATE_FILE = 'demo_clips.json'
THERE_AND_BACK = ('left_then_right', 'right_then_left', 'up_then_down', 'down_then_up')
DOMAINS = {
    'source': ('north', 'northeast', 'east', 'southeast', 'south', 'southwest', 'west', 'northwest'),
    'target': (*THERE_AND_BACK, 'clockwise', 'counterclockwise', 'speeding_up', 'slowing_down'),
}
# Share of scikit-learn's 1797 digit images that each split draws from; no image is in two of them.
POOL_SHARES = {
    'source_train': 0.35,
    'source_val': 0.05,
    'source_test': 0.1,
    'target_train': 0.3,
    'target_val': 0.05,
    'target_test': 0.15,
}
# With yuv444p, as 420 reads back with five times the error at the same speed. One key frame per clip and no
# B-frames is the smallest, and as fast to decode as key frames only.
ENCODER = {'preset': 'ultrafast', 'crf': '20', 'g': str(FRAMES), 'bf': '0', 'threads': '1'}


@cache
def digit_images() -> np.ndarray:
    """scikit-learn's handwritten digits [1797, 8, 8], 0 .. 16."""
    from sklearn.datasets import load_digits

    return load_digits().images


@cache
def digit_pools(seed: int = 0) -> dict[str, np.ndarray]:
    """Which digit images each split draws from: split to indices, pairwise disjoint, shuffled by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(digit_images()))
    cuts = np.round(np.cumsum(list(POOL_SHARES.values()))[:-1] * len(order)).astype(int)
    return dict(zip(POOL_SHARES, np.split(order, cuts), strict=True))


def _heading(degrees: float | np.ndarray) -> np.ndarray:
    """Unit steps [..., 2] as (x, y) in image axes (y down); 0 degrees is north (up), 90 is east (right)."""
    return np.stack([np.sin(np.radians(degrees)), -np.cos(np.radians(degrees))], axis=-1)


def _there_and_back(degrees: float, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offsets [8, 2] in pixels: along the heading at constant speed, then back, turning near the middle."""
    turn = time.mean() + rng.uniform(-0.5, 0.5)
    return -np.abs(time - turn)[:, None] * rng.uniform(1.6, 2.8) * _heading(degrees)


def _circle(sign: int, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offsets [8, 2] in pixels: most of a circle, from near its top; sign 1 is clockwise on the screen."""
    angle = rng.uniform(-30, 30) + sign * rng.uniform(40, 52) * time
    return rng.uniform(3.5, 5.0) * _heading(angle)


def _change_speed(forward: bool, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offsets [8, 2] in pixels: straight on a random heading, from rest (or, reversed, to it)."""
    clock = time if forward else time - time[-1]
    path = rng.uniform(0.24, 0.36) * clock**2 * np.sign(clock)
    return path[:, None] * _heading(45 * rng.integers(8))


def trajectory(domain: str, label: int, rng: np.random.Generator) -> np.ndarray:
    """Centres [8, 2] of the digit as (x, y) in pixels, not wrapped; modulo 32 each is uniform."""
    time = np.arange(FRAMES, dtype=float)
    if domain == 'source':
        offsets = time[:, None] * rng.uniform(1.4, 3.0) * _heading(45 * label)
    elif label < 4:
        offsets = _there_and_back((270, 90, 0, 180)[label], time, rng)
    elif label < 6:
        offsets = _circle(1 if label == 4 else -1, time, rng)
    else:
        offsets = _change_speed(label == 6, time, rng)
    return rng.uniform(0, SIZE, 2) + offsets


def _hat(at: np.ndarray, count: int) -> np.ndarray:
    """Linear interpolation weights [..., count] of samples 0 .. count - 1 at the positions ``at`` [...]."""
    return np.clip(1 - np.abs(at[..., None] - np.arange(count)), 0, None)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Dark [8, 32, 32, 3] in 0 .. 255, plain or faintly textured, that grows lighter over the clip."""
    coarse = rng.uniform(5, 40, 3) + rng.choice([0.0, 10.0]) * rng.standard_normal((5, 5, 3))
    weights = _hat(np.linspace(0, 4, SIZE), 5)
    still = np.einsum('yi,xj,ijc->yxc', weights, weights, coarse)
    return still + np.linspace(0, DAWN, FRAMES)[:, None, None, None]


def render(digit: np.ndarray, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a clip.

    Args:
        digit: [8, 8], 0 .. 16.
        centres: [8, 2] as (x, y) in pixels; wrapped here.
        rng: draws the size (10 .. 14 pixels), the colours and the background.

    Returns:
        frames [8, 32, 32, 3], uint8 RGB.
    """
    scale = rng.uniform(10, 14) / 8
    apart = np.arange(SIZE) - centres[..., None]  # [8, 2, 32] pixels
    apart = (apart + SIZE / 2) % SIZE - SIZE / 2
    weights = _hat(apart / scale + 3.5, 8)  # [8, 2, 32, 8]; 3.5 is the middle of the digit image
    alpha = weights[:, 1] @ (digit / 16) @ weights[:, 0].transpose(0, 2, 1)  # [8, 32, 32]
    background, colour = _background(rng), rng.uniform(150, 255, 3)
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


def clip_path(split: str, index: int) -> str:
    """Where a clip lies under the root, as its list names it."""
    return f'clips/{split}/{index:05d}.mp4'


def clip_label(index: int) -> int:
    """Class of a split's clip: the eight take turns, so that their counts differ by one at most."""
    return index % 8


def _make_clip(root: Path, seed: int, job: tuple[str, int]) -> None:
    split, index = job
    # A generator of its own for each clip, so that neither the workers nor the other counts change it.
    rng = np.random.default_rng([seed, list(POOL_SHARES).index(split), index])
    centres = trajectory(split.split('_')[0], clip_label(index), rng)
    frames = render(digit_images()[rng.choice(digit_pools(seed)[split])], centres, rng)
    write_clip(root / clip_path(split, index), frames)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable]:
    """A ``map`` that shares the work among processes; they end with the context, done or not."""
    if workers <= 1:
        yield map
        return
    # Processes, as threads gain nothing here; forked, as a fresh one would first import torch and mmaction2.
    context = multiprocessing.get_context('fork')
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer.
    pool = ProcessPoolExecutor(workers, context, signal.signal, ignore_interrupt)
    try:
        yield partial(pool.map, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def _clear(root: Path) -> None:
    """Remove what an earlier generation wrote, the state first: from there on it counts as not finished."""
    (root / STATE_FILE).unlink(missing_ok=True)
    for split in POOL_SHARES:
        (root / f'{split}.txt').unlink(missing_ok=True)
        shutil.rmtree(root / 'clips' / split, ignore_errors=True)


def _write_lists(root: Path, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        lines = [f'{clip_path(split, index)} {clip_label(index)}\n' for index in range(count)]
        (root / f'{split}.txt').write_text(''.join(lines))
    for domain, names in DOMAINS.items():
        (root / f'{domain}_classes.txt').write_text('\n'.join(names) + '\n')


def _check(counts: dict[str, int]) -> None:
    for split, count in counts.items():
        if split not in POOL_SHARES:
            raise unknown('split of the demo clips', split, POOL_SHARES)
        if count < 1:
            raise UserError(f'The demo clips need 1 clip or more in each split: {split} has {count}.')


def make_demo_clips(
    root: Path, counts: dict[str, int], seed: int = 0, workers: int = 2, progress: bool = True
) -> None:
    """Write the clips, one list of 'clips/<split>/<index>.mp4 LABEL' for each split, and the class names.

    Returns at once where the same settings have been written in full; what other settings, or an interrupted
    call, have left is removed and made again.

    Args:
        root: the folder to write to.
        counts: clips in each split of ``POOL_SHARES`` that is wanted, such as ``{'source_train': 4000}``.
        seed: decides every clip, whatever ``workers`` is.
        workers: processes.
        progress: show a bar with the time left.
    """
    _check(counts)
    root = Path(root)
    state = {'format': FORMAT, 'seed': seed, 'counts': dict(counts)}
    with suppress(OSError, ValueError):
        if json.loads((root / STATE_FILE).read_text()) == state:
            return
    _clear(root)
    for split in counts:
        (root / 'clips' / split).mkdir(parents=True)
    digit_pools(seed)  # Here once, for every worker to inherit.
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    with _mapper(workers) as run:
        done = run(partial(_make_clip, root, seed), jobs)  # Forks, so before the bar starts its thread.
        with Progress(disable=not progress) as bar:
            for _ in bar.track(done, total=len(jobs), description='Making the demo clips'):
                pass
    _write_lists(root, counts)
    # Last and in one step: where this file is, everything before it is.
    with written_whole(root / STATE_FILE) as partial_file:
        partial_file.write_text(json.dumps(state, indent=2) + '\n')
