# SSF's recipe for VTAB-1k with the values that most tasks have: it chooses the rate, from 1e-3 to 5e-2, weight
# decay (0.05 for some) and drop-path (0, 0.1 or 0.2)
_base_ = 'vtab_100e.py'
optim_wrapper = dict(optimizer=dict(lr=5e-3, weight_decay=5e-5))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(eta_min=1e-8)
