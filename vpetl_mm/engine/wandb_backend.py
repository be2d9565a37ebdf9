"""Weights & Biases."""

from __future__ import annotations

from typing import Any

from mmengine import Config, visualization
from mmengine.visualization.vis_backend import force_init_env

from ..errors import UserError, reason
from .record import json_safe


class WandbVisBackend(visualization.WandbVisBackend):
    """mmengine's WandbVisBackend, replaced under its name, without the copy of the code.

    mmengine's also sends every .py file below the current folder, even those of a virtual environment. A resumed run
    may change its config.

    Args:
        kwargs: of mmengine's WandbVisBackend: ``init_kwargs=dict(project=...)`` and so on.

    Raises:
        UserError: when Weights & Biases does not start, such as for want of a login.
    """

    def _init_env(self) -> None:
        """Start the run of Weights & Biases."""
        import wandb

        try:
            super()._init_env()
        except (wandb.Error, TypeError, ValueError) as error:
            raise UserError(
                f'Weights & Biases does not start ({reason(error, 300)}); see init_kwargs of WandbVisBackend, or '
                '`wandb login`, or set WANDB_MODE=offline.'
            ) from error

    @force_init_env
    def add_config(self, config: Config, **_: Any) -> None:
        """Record the config, as JSON can hold it."""
        self._wandb.config.update(json_safe(config.to_dict()), allow_val_change=True)
