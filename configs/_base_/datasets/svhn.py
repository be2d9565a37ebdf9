# SVHN's cropped digits (73,257 training and 26,032 test images of 32 x 32), otherwise as CIFAR-100
_base_ = 'cifar100.py'
num_classes = 10
data_help = (
    'tools/prepare_data.py svhn --src DIR makes it from train_32x32.mat and test_32x32.mat, which are at '
    'http://ufldl.stanford.edu/housenumbers/'
)
dataset_type = 'SVHN'
data_root = 'data/svhn'
_data = dict(type=dataset_type, data_root=data_root)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
