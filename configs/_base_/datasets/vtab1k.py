# VTAB-1k: 800 training and 200 validation images per task, and its whole test set, at 224 x 224. Both sides are
# resized, and nothing is augmented. An experiment's name has the task after "vtab", a config that inherits has
# vtab_task = 'dtd': vpetl_mm/config.py then replaces {task}, {folder} and {classes}, here and in configs/vtab1k/.
vtab_tasks = dict(
    cifar=dict(folder='cifar', classes=100),
    caltech101=dict(folder='caltech101', classes=102),
    dtd=dict(folder='dtd', classes=47),
    flowers102=dict(folder='oxford_flowers102', classes=102),
    svhn=dict(folder='svhn', classes=10),
    sun397=dict(folder='sun397', classes=397),
    iiitpet=dict(folder='oxford_iiit_pet', classes=37),
    patchcamelyon=dict(folder='patch_camelyon', classes=2),
    eurosat=dict(folder='eurosat', classes=10),
    resisc45=dict(folder='resisc45', classes=45),
    diabeticretinopathy=dict(folder='diabetic_retinopathy', classes=5),
    clevrcount=dict(folder='clevr_count', classes=8),
    clevrdist=dict(folder='clevr_dist', classes=6),
    dmlab=dict(folder='dmlab', classes=6),
    kitti=dict(folder='kitti', classes=4),
    dspritesloc=dict(folder='dsprites_loc', classes=16),
    dspritesori=dict(folder='dsprites_ori', classes=16),
    smallnorbazi=dict(folder='smallnorb_azi', classes=18),
    smallnorbele=dict(folder='smallnorb_ele', classes=9),
)
data_help = (
    'tools/prepare_data.py vtab1k --src DIR makes it from a tree DIR/<task>/{train800,val200,test}.txt with images/'
)
# 0.2: trained on train800 and validated on val200, to choose settings; 0: trained on both, for the final run
holdout = dict(fraction=0.0, seed=0)
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # finds more damage than OpenCV
    dict(type='NumpyToPIL', to_rgb=True),  # mmcv loads BGR
    dict(type='torchvision/Resize', size=[224, 224], interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = train_pipeline

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,  # workers that outlive an epoch would make a resumed run differ
    worker_init_fn=dict(type='seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='VTAB1k', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VTAB1k', split='train', held_out=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VTAB1k', split='test', pipeline=test_pipeline),
)
val_evaluator = dict(type='PETLAccuracy')
test_evaluator = dict(type='PETLAccuracy')
num_classes = '{classes}'
_data = dict(data_root='data/vtab1k/{folder}', num_classes=num_classes)
train_dataloader['dataset'].update(_data)
val_dataloader['dataset'].update(_data)
test_dataloader['dataset'].update(_data)
