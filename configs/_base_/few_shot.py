# Few-shot transfer on a CPU: a real ViT-S/14 and CIFAR-100 with 10 training and 20 test images a class. 20 epochs of
# 32 images a step, AdamW, two epochs of warm-up; bfloat16 where the CPU has it. The learning rates in the configs are
# the best of four on 200 of the 1,000 images (docs/few_shot.md).
_base_ = ['models/vits14_dinov2.py', 'datasets/cifar100n50.py', 'schedules/transfer_adamw.py', 'runtime.py']
train_dataloader = dict(dataset=dict(per_class=10))
val_dataloader = dict(batch_size=200, dataset=dict(per_class=10))
test_dataloader = dict(batch_size=200)
model = dict(head=dict(num_classes=_base_.num_classes))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=2, end=20, T_max=18, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
