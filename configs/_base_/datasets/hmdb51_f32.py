# 32 frames at stride 2
_base_ = 'hmdb51_f8.py'
train_dataloader = _base_.train_dataloader
val_dataloader = _base_.val_dataloader
test_dataloader = _base_.test_dataloader
train_dataloader.dataset.pipeline[1].clip_len = 32
val_dataloader.dataset.pipeline[1].clip_len = 32
test_dataloader.dataset.pipeline[1].clip_len = 32
