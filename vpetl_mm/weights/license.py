"""The license of pre-trained weights, as the card beside them names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import is_line
from ..files import from_json
from ..petl import find

CARD, CONFIG = 'README.md', 'config.json'
LONGEST_CARD, LONGEST_CONFIG, LONGEST = 1 << 16, 1 << 20, 200  # of front matter and a config, in bytes; of a license


def license_beside(file: str | Path) -> str | None:
    """Return the license that a model card, or a config of timm or transformers, in a file's folder names.

    Args:
        file: of weights, in a folder as the Hugging Face Hub has them.

    Returns:
        Such as ``'apache-2.0'``; None where nothing names one.
    """
    folder = Path(file).parent
    return license_in_card(folder / CARD) or license_in_config(folder / CONFIG)


def license_in_card(file: Path) -> str | None:
    """Return ``license`` in a card's front matter, or ``license_name`` where that is 'other'; None for none."""
    text = _start_of(file, LONGEST_CARD)
    lines = text.splitlines()
    if not lines or lines[0].strip() != '---' or '---' not in (line.strip() for line in lines[1:]):
        return None
    end = next(i for i, line in enumerate(lines[1:], 1) if line.strip() == '---')
    return _named(_matter(lines[1:end]))


def _matter(lines: list[str]) -> dict[str, list[str]]:
    """Return the texts of front matter by name, of one line or a list; readers of all YAML can be made to hang."""
    found: dict[str, list[str]] = {}
    name = ''
    for line in lines:
        if pair := re.fullmatch(r'(\w+):(?:\s+(.*))?', line.rstrip()):
            name, values = pair[1], re.sub(r'^\[(.*)\]$', r'\1', pair[2] or '').split(',')
            found[name] = [v.strip() for v in values if v.strip()]
        elif name and (item := re.fullmatch(r'\s*-\s+(.*)', line.rstrip())):
            found[name].append(item[1].strip())
    texts = {n: [re.sub(r'^(["\'])(.*)\1$', r'\2', v) for v in values] for n, values in found.items()}
    return {n: [v for v in values if re.match(r'\w', v)] for n, values in texts.items()}


def license_in_config(file: Path) -> str | None:
    """Return ``license`` of timm's ``pretrained_cfg``, or of the config itself; None for none."""
    text = _start_of(file, LONGEST_CONFIG)
    try:
        content = from_json(text) if text else None
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    inner = content.get('pretrained_cfg')
    return (_named(inner) if isinstance(inner, dict) else None) or _named(content)


def license_of_tag(backbone: nn.Module) -> str | None:
    """Return the license that timm's table names for a backbone's weights, where its config names their tag."""
    if '.' not in str(getattr(backbone, 'name', '')) or (where := find(backbone)) is None:
        return None
    table = getattr(backbone.get_submodule(where.path), 'pretrained_cfg', None)
    return _named(table) if isinstance(table, Mapping) else None


def _named(content: Mapping[Any, Any]) -> str | None:
    values = [content.get('license')]
    if values in (['other'], [['other']]):
        values = [content.get('license_name') or 'other', content.get('license_link')]
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    text = ', '.join(v.strip() for v in flat if isinstance(v, str) and v.strip())
    return text if text and is_line(text) and len(text) <= LONGEST else None


def _start_of(file: Path, most: int) -> str:
    """Return the first bytes of a text file; '' where there is none."""
    if not file.is_file():
        return ''
    try:
        with file.open('rb') as stream:
            return stream.read(most).decode('utf-8', errors='replace')
    except OSError:
        return ''
