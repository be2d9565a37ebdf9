# HMDB51, split 1 (3,570 training and 1,530 test clips), otherwise as SSv2
_base_ = 'ssv2_f8.py'
num_classes = 51
data_help = 'tools/prepare_data.py hmdb51 --src DIR makes it from the official download; see data/README.md'
_data = dict(
    data_prefix=dict(video='data/hmdb51/videos'),
    num_classes=num_classes,
    metainfo=dict(classes='data/hmdb51/classes.txt'),
)
train_dataloader = dict(dataset=dict(ann_file='data/hmdb51/trainval.txt', **_data))
val_dataloader = dict(dataset=dict(ann_file='data/hmdb51/trainval.txt', **_data))
test_dataloader = dict(dataset=dict(ann_file='data/hmdb51/test.txt', **_data))
