# Food-101 (75,750 training and 25,250 test images), otherwise as CIFAR-100
_base_ = 'cifar100.py'
num_classes = 101
data_help = (
    'tools/prepare_data.py food101 --src DIR makes it from food-101.tar.gz, which is at '
    'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/'
)
dataset_type = 'PETLFood101'
data_root = 'data/food101'  # holds images and meta

_load = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # finds more damage than OpenCV
    dict(type='NumpyToPIL', to_rgb=True),  # mmcv loads BGR
]
train_pipeline = [*_load, *_base_.train_pipeline[1:]]
test_pipeline = [*_load, *_base_.test_pipeline[1:]]
_data = dict(type=dataset_type, data_root=data_root)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **_data))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **_data))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **_data))
