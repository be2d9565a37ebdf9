"""Registers everything of ours in mmengine's root registries, so that every host library's scope finds it."""

from __future__ import annotations

from mmengine.registry import MODELS

from .models.recognizer import PETLRecognizer3D
from .models.video_head import PETLVideoHead
from .models.window_attention import FastWindowAttention3D
from .petl import DELTAS


def register() -> None:
    """Register every module; called once by ``import vpetl_mm``."""
    for module in (*DELTAS, PETLRecognizer3D, PETLVideoHead, FastWindowAttention3D):
        MODELS.register_module(module=module)


register()
