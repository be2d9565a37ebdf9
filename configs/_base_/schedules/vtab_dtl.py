# DTL's recipe for VTAB-1k: 10 epochs of warm-up and 100 more, and in the leaf 32 images a step. It chooses the rate
# for each task, from 1e-4 to 1e-2, and drop-path (0, 0.1 or 0.2).
_base_ = 'vtab_100e.py'
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=110, T_max=100)
train_cfg = dict(max_epochs=110)
