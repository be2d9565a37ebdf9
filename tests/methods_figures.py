"""Where a method sits in a transformer block, as an SVG of 240 x 226; a page's colours may be light or dark.

Grey: the residual stream on the left, and the two branches that leave it and are added to it again. Red: what the
method adds, or whose weights it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

GREY, RED = '#7b838c', '#cf3238'
WIDTH, HEIGHT = 240, 226
STREAM = 12  # x of the residual stream
RIGHT = 237  # x where a branch turns back
LEFT, BOX, GAP = 28, 44, 10  # of the boxes of a branch, in x
ROWS = dict(attention=58, mlp=138)  # y of the middle of a branch's boxes
PARALLEL, BACK = 23, 40  # below that: a parallel box's middle, and the way back to the stream
BRANCHES = dict(attention=('norm1', 'qkv', 'heads', 'proj'), mlp=('norm2', 'fc1', 'act', 'fc2'))
# a place of several boxes -> its branch, its first and its last box
SPANS = dict(attn=('attention', 1, 3), mlp=('mlp', 1, 3))
OUTSIDE = dict(patch_embed=('patch embedding', 12), last_norm=('last norm', 214))
# on the stream: place and how -> y
ON_STREAM = {
    ('block', 'before'): 33,
    ('between', 'before'): 114,
    ('between', 'output'): 114,
    ('block', 'output'): 194,
}


def figure(title: str, label: str, marks: Iterable[tuple[str, str]]) -> str:
    """The SVG of a method.

    Args:
        title: what is read aloud in its place.
        label: what stands in the boxes that the method adds.
        marks: places, and how the method acts there: ``'weights'``, ``'input'``, ``'output'``, ``'norm'``,
            ``'stream'``, ``'before'`` or ``'keys'``.
    """
    marks = sorted(set(marks))
    changed = {place for place, how in marks if how == 'weights'}
    added = (part for place, how in marks if how != 'weights' for part in _added(label, place, how))
    parts = [*_block(changed), *added]
    return '\n'.join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="10.5" text-anchor="middle" fill="none" '
            f'stroke="{GREY}" stroke-width="1.2">',
            f'<title>{title}</title>',
            *parts,
            '</svg>\n',
        ]
    )


def _block(changed: set[str]) -> Iterator[str]:
    """The stream, the two branches and their boxes; those whose weights change are red."""
    yield _path(f'M{STREAM} 20V{HEIGHT - 20}')
    for name, y in ROWS.items():
        starts = [LEFT + i * (BOX + GAP) for i in range(4)]
        gaps = ''.join(f'M{x + BOX} {y}h{GAP}' for x in starts[:3])
        yield _path(f'M{STREAM} {y}H{LEFT}{gaps}M{starts[3] + BOX} {y}H{RIGHT}V{y + BACK}H{STREAM}')
        yield f'<circle cx="{STREAM}" cy="{y + BACK}" r="4" fill="{GREY}" stroke="none"/>'
        for x, box in zip(starts, BRANCHES[name], strict=True):
            yield _box(x, y - 10, BOX, 20, box, box in changed)
    for place, (text, y) in OUTSIDE.items():
        yield _box(4, y - 8, 100, 16, text, place in changed)


def _added(label: str, place: str, how: str) -> Iterator[str]:
    """What a method adds at a place."""
    if (place, how) in ON_STREAM:
        yield _box(4, ON_STREAM[place, how] - 8, _width(label), 16, label, True)
        return
    if how == 'keys':
        x = LEFT + 2 * (BOX + GAP)
        yield _path(f'M{x + BOX / 2} 40V48', RED)
        yield _box(x - 10, 24, BOX + 20, 16, 'k, v', True)
        return
    name, first, last = ('attention', 1, 3) if place == 'between' else _span(place)
    y, start, end = ROWS[name], LEFT + first * (BOX + GAP) - GAP / 2, LEFT + last * (BOX + GAP) + BOX + GAP / 2
    if how == 'output' and last == 3:  # on the way back to the stream
        yield _box((WIDTH - _width(label)) / 2, y + BACK - 8, _width(label), 16, label, True)
    elif how in ('output', 'before'):
        yield _box((end if how == 'output' else start) - 3.5, y - 12, 7, 24, '', True)
    else:
        end = RIGHT if last == 3 else end
        start = STREAM if how == 'stream' else start
        yield _path(f'M{start} {y}V{y + PARALLEL}H{end}V{y + BACK if last == 3 else y}', RED)
        middle = (start + end) / 2
        yield _box(middle - _width(label) / 2, y + PARALLEL - 7, _width(label), 14, label, True)


def _span(place: str) -> tuple[str, int, int]:
    if place in SPANS:
        return SPANS[place]
    return next((name, boxes.index(place), boxes.index(place)) for name, boxes in BRANCHES.items() if place in boxes)


def _width(label: str) -> float:
    return 6.2 * len(label) + 10


def _path(d: str, colour: str = GREY) -> str:
    return f'<path d="{d}"' + (f' stroke="{colour}"/>' if colour != GREY else '/>')


def _box(x: float, y: float, width: float, height: float, text: str, red: bool) -> str:
    style = f'fill="{RED}" stroke="{RED}"' if red else f'fill="{GREY}" fill-opacity=".12"'
    rect = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" {style}/>'
    fill = '#fff' if red else GREY
    words = f'<text x="{x + width / 2:g}" y="{y + height / 2 + 3.7:g}" fill="{fill}" stroke="none">{text}</text>'
    return rect + (words if text else '')
