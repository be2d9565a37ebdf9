# V-PETL's recipe for images (AdaptFormer's): as for video, with 20 epochs of warm-up of 100; lr is 0.1 at 64 x 4 GPUs
_base_ = 'video_70e.py'
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=20)
param_scheduler[1].update(begin=20, end=100, T_max=80)
train_cfg = dict(max_epochs=100)
