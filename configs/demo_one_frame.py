# Control: BAPAT that sees one frame of each clip, eight times
_base_ = 'demo_bapat.py'
train_dataloader = _base_.train_dataloader
val_dataloader = _base_.val_dataloader
test_dataloader = _base_.test_dataloader
train_dataloader.dataset.pipeline[1].frame_interval = 0
test_dataloader.dataset.pipeline[1].frame_interval = 0
val_dataloader.dataset.pipeline[1].frame_interval = 0
