"""An experiment as its sensitivity is measured: a plain backbone, all of it trained."""

from __future__ import annotations

import copy

from mmengine import Config

from .optim import check_groups


def plain_experiment(cfg: Config) -> Config:
    """Return a copy of an experiment without its method.

    Learning rates by group go with it, as the groups are what the method trains.

    Raises:
        UserError: for groups that no method has.
    """
    cfg = copy.deepcopy(cfg)  # Config.copy() shares what is nested
    host = {k: v for k, v in cfg.model.petl.items() if k in ('attention', 'fast')}
    cfg.model.petl = dict(train=['all'], **host)
    cfg.cache_features = None
    check_groups((cfg.optim_wrapper.get('paramwise_cfg') or {}).pop('groups', None))
    return cfg
