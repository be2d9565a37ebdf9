# CIFAR-100 (50,000 training and 10,000 test images of 32 x 32) at 224 x 224. Every pipeline ends in uint8 RGB.
num_classes = 100
data_help = (
    'tools/prepare_data.py cifar100 --src DIR makes it from cifar-100-python.tar.gz, which is at '
    'https://www.cs.toronto.edu/~kriz/cifar.html'
)
holdout = dict(
    fraction=0.0, seed=0
)  # share of the training split to validate on; 0: none, the last epoch is reported
dataset_type = 'PETLCIFAR100'
data_root = 'data/cifar100'  # holds cifar-100-python

train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),  # the arrays are RGB
    dict(type='torchvision/RandomResizedCrop', size=224, interpolation='bicubic'),
    dict(type='torchvision/RandomHorizontalFlip', p=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='torchvision/Resize', size=256, interpolation='bicubic'),  # the shorter side
    dict(type='torchvision/CenterCrop', size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,  # on 4 GPUs
    num_workers=8,
    persistent_workers=False,  # workers that outlive an epoch would make a resumed run differ
    drop_last=True,
    worker_init_fn=dict(type='seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', held_out=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='test', pipeline=test_pipeline),
)
val_evaluator = dict(type='PETLAccuracy')
test_evaluator = dict(type='PETLAccuracy')
