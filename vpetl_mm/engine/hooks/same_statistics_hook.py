"""One set of BatchNorm statistics on all ranks."""

from __future__ import annotations

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm


class SameStatisticsHook(Hook):
    """Gives every rank rank 0's running statistics before it validates.

    In training each GPU normalises by its own batch, as in the published code. The running statistics that count
    are rank 0's: they are what checkpoints hold, and so what the other ranks must validate with.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Broadcast them; the other buffers are the same everywhere."""
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                for statistic in module.buffers():
                    broadcast(statistic)
