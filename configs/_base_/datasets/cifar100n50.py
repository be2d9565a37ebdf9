# CIFAR-100 with 50 training and 20 test images a class, from one array file, at 112 x 112
_base_ = 'cifar100.py'
data_help = 'copy cifar100_subset.npz to data/cifar100n50; docs/real_transfer.md says what it holds'
data_root = None  # ImageArrays reads one file
_data = dict(_delete_=True, type='ImageArrays', ann_file='data/cifar100n50/cifar100_subset.npz')
_resize = dict(type='torchvision/Resize', size=112, interpolation='bicubic')
train_pipeline = [
    dict(type='NumpyToPIL', to_rgb=False),  # the arrays are RGB
    _resize,
    dict(type='torchvision/RandomHorizontalFlip', p=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [train_pipeline[0], _resize, train_pipeline[-1]]
train_dataloader = dict(batch_size=32, num_workers=1, dataset=dict(split='train', pipeline=train_pipeline, **_data))
val_dataloader = dict(num_workers=1, dataset=dict(split='train', held_out=True, pipeline=test_pipeline, **_data))
test_dataloader = dict(num_workers=1, dataset=dict(split='test', pipeline=test_pipeline, **_data))
