# DTL's recipe for VTAB-1k: 32 images a step, 10 epochs of warm-up and 100 more. It chooses the rate for each task,
# from 1e-4 to 1e-2, and drop-path (0, 0.1 or 0.2)
_base_ = 'vtab_100e.py'
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=110, T_max=100)
train_cfg = dict(max_epochs=110)
