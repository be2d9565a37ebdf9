"""Find the videos to measure on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import av

from ..datasets.video_reader import open_video
from ..errors import UserError
from ..preparation.found import VIDEO_SUFFIXES, walk


def find_videos(source: Path) -> list[Path]:
    """Return the videos in a folder, or those in a list of ``path`` or ``path label`` lines.

    Paths in a list are relative to its folder or to ``videos/`` in it.

    Raises:
        UserError: when ``source`` does not exist or has no videos.
    """
    if os.path.isdir(source):  # Path.is_dir raises for a name that is too long
        found = [d / f for d, _, files in walk(source) for f in files if Path(f).suffix.lower() in VIDEO_SUFFIXES]
    elif os.path.isfile(source):
        lines = source.read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
        found = [_listed(source.parent, line.strip()) for line in lines if line.strip()]
    else:
        raise UserError(f'--videos {source} does not exist; give a folder of videos or a list of them.')
    if not found:
        raise UserError(f'There are no videos in {source}.')
    return found


def _listed(folder: Path, line: str) -> Path:
    for name in (line, line.rpartition(' ')[0]):
        for root in (folder, folder / 'videos'):
            if name and os.path.isfile(root / name):
                return root / name
    raise UserError(f'{line!r} names no file in {folder} or {folder / "videos"}.')


def codec_of(video: Path) -> str:
    """Return a video's codec and file type, such as ``'h264 with B-frames, .mp4'``."""
    with suppress(av.FFmpegError, OSError, IndexError), open_video(video) as container:
        codec = container.streams.video[0].codec_context
        return f'{codec.name}{" with B-frames" if codec.has_b_frames else ""}, {video.suffix.lower()}'
    return f'unreadable, {video.suffix.lower()}'
