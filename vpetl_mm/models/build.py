"""From a config to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.overrides import TorchFunctionMode

from ..config import load_config
from ..errors import UserError, reason

# what the hosts raise for options that do not fit
WRONG = (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, RuntimeError, NameError)


class _LinspaceOnCPU(TorchFunctionMode):
    """Compute torch.linspace on the CPU: the hosts call .item() on it while they are built, even on meta."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs['device'] = 'cpu'
        return func(*args, **kwargs)


@contextmanager
def on_meta() -> Iterator[None]:
    """Build models without memory: shapes and counts, no values."""
    with torch.device('meta'), _LinspaceOnCPU():
        yield


def build_model(
    config: str | Path | Config | Mapping[str, Any],
    cfg_options: Mapping[str, Any] | None = None,
    init_weights: bool = False,
    meta: bool = False,
) -> nn.Module:
    """Build the model of a config, its deltas in place and only the wanted parameters requiring gradients.

    Args:
        config: a config file's path, an mmengine Config, or a dict with ``default_scope`` and ``model``.
        cfg_options: dotted keys to override, such as ``{'model.petl.deltas.patt.d_bottle': 64}``.
        init_weights: also initialise: load the pre-trained base and draw head and deltas (from the config's
            seed, where it has one).
        meta: build on the meta device, for counting.

    Raises:
        UserError: when the config, its ``petl`` or its ``base`` is wrong.
    """
    cfg = load_config(config, cfg_options)
    with ExitStack() as stack:
        stack.enter_context(DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmaction')))
        if meta:
            stack.enter_context(on_meta())
        seed = cfg.get('randomness', {}).get('seed')
        with drawn_from(seed):
            model = _build(cfg)
        if init_weights:
            init_model(model, seed)
    return model


def _build(cfg: Config) -> nn.Module:
    try:
        return MODELS.build(cfg.model)
    except UserError:
        raise
    except WRONG as error:
        raise UserError(f'{cfg.filename or "The config"}: model is wrong: {reason(error, 400)}') from error


@contextmanager
def drawn_from(seed: int | None) -> Iterator[None]:
    """Draw from ``seed`` inside, and leave the random state outside as it was; None changes nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def init_model(model: nn.Module, seed: int | None) -> None:
    """Initialise ``model`` from ``seed`` alone, whatever was drawn before; None draws from the current state."""
    with drawn_from(seed):
        model.init_weights()
