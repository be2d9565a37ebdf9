"""The same BatchNorm statistics on all ranks."""

from __future__ import annotations

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm


class SameStatisticsHook(Hook):
    """Copies the running statistics of rank 0 to all ranks before validation.

    In training each GPU normalises by its own batch, as in the published code. Checkpoints hold the running
    statistics of rank 0, so all ranks must validate with them.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Broadcast them; other buffers are the same everywhere."""
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                for statistic in module.buffers():
                    broadcast(statistic)
