"""Backbones that are inferred from shapes; test_kinds.py checks the rest by their features."""

from __future__ import annotations

import pytest
from convert_command import refused, write
from references import swin

from vpetl_mm.commands.conversion import convert


def without_index(state: dict) -> dict:
    return {k: v for k, v in state.items() if 'index' not in k}


@pytest.mark.parametrize('window', [(16, 7, 7), (8, 8, 8), (1, 7, 7), (2, 4, 4), (4, 12, 12)])
def test_windows_are_inferred_from_the_tables(window):
    write(without_index(swin((1,), window).state_dict()))
    assert convert('src.pth', 'dst.safetensors').backbone['window_size'] == window


def test_an_ambiguous_window_is_inferred_from_the_index(capsys):
    """9 9 9 offsets are of a window (5, 5, 5), and of (41, 2, 2)."""
    state = swin((1,), (5, 5, 5)).state_dict()
    assert convert(write(state), 'dst.safetensors').backbone['window_size'] == (5, 5, 5)
    assert '--config' in refused(capsys, write(without_index(state)))
