"""How the digits of the demo clips move.

The canvas wraps round and the start is uniform on it, so the digit's position in any one frame is uniform for every
class: one frame says nothing. Each target class has a twin with the same motions in another order. In the source
domain a digit goes one way and on, or turns to its left or right: order matters there too, in other motions than the
target's.
"""

from __future__ import annotations

import numpy as np

FRAMES = 8
SIZE = 32  # pixels
THERE_AND_BACK = ('left_then_right', 'right_then_left', 'up_then_down', 'down_then_up')
COMPASS = {'north': 0, 'east': 90, 'south': 180, 'west': 270}  # degrees
HEADINGS = 8  # of what moves straight on
# a way and the one after the turn, which is never back: that is the target's
TURNS = [(a, b) for a in COMPASS for b in COMPASS if abs(COMPASS[a] - COMPASS[b]) != 180]
DOMAINS = {
    'source': tuple(a if a == b else f'{a}_then_{b}' for a, b in TURNS),
    'target': (*THERE_AND_BACK, 'clockwise', 'counterclockwise', 'speeding_up', 'slowing_down'),
}


def heading(degrees: float | np.ndarray) -> np.ndarray:
    """Return unit steps [..., 2] as (x, y) in image axes (y down); 0 degrees is north (up), 90 is east (right)."""
    return np.stack([np.sin(np.radians(degrees)), -np.cos(np.radians(degrees))], axis=-1)


def _there_and_back(degrees: float, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return offsets [8, 2] in pixels: along the heading at constant speed and back, turning near the middle."""
    turn = time.mean() + rng.uniform(-0.5, 0.5)
    return -np.abs(time - turn)[:, None] * rng.uniform(1.6, 2.8) * heading(degrees)


def _circle(sign: int, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return offsets [8, 2] in pixels: most of a circle, from near its top; sign 1 is clockwise on the screen."""
    angle = rng.uniform(-30, 30) + sign * rng.uniform(40, 52) * time
    return rng.uniform(3.5, 5.0) * heading(angle)


def _change_speed(forward: bool, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return offsets [8, 2] in pixels: straight on a random heading, from rest or, reversed, to rest."""
    clock = time if forward else time - time[-1]
    path = rng.uniform(0.24, 0.36) * clock**2 * np.sign(clock)
    return path[:, None] * heading(45 * rng.integers(8))


def _turn(before: str, after: str, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return offsets [8, 2] in pixels: at constant speed one way and, from near the middle on, another."""
    turn = time.mean() + rng.uniform(-0.5, 0.5)
    speed = rng.uniform(1.4, 3.0)
    ways = (heading(COMPASS[before]), heading(COMPASS[after]))
    path = np.minimum(time, turn)[:, None] * ways[0] + np.maximum(time - turn, 0)[:, None] * ways[1]
    return speed * path


def trajectory(domain: str, label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the digit's centres [8, 2] as (x, y) in pixels, not wrapped; modulo 32 each is uniform."""
    time = np.arange(FRAMES, dtype=float)
    if domain == 'source':
        offsets = _turn(*TURNS[label], time, rng)
    elif label < 4:
        offsets = _there_and_back((270, 90, 0, 180)[label], time, rng)
    elif label < 6:
        offsets = _circle(1 if label == 4 else -1, time, rng)
    else:
        offsets = _change_speed(label == 6, time, rng)
    return rng.uniform(0, SIZE, 2) + offsets


def straight_on(rng: np.random.Generator) -> np.ndarray:
    """Draw the centres [8, 2] of something that moves at constant speed on one of ``HEADINGS``."""
    way = heading(360 / HEADINGS * rng.integers(HEADINGS))
    offsets = np.arange(FRAMES, dtype=float)[:, None] * rng.uniform(1.4, 3.0) * way
    return rng.uniform(0, SIZE, 2) + offsets
