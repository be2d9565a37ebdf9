# A control: nothing is pre-trained, and LayerScale is at 1, without which no frozen block passes anything on
_base_ = 'vits14_sptlora_cifar100shot10_dinov2.py'
model = dict(
    base=None,
    backbone=dict(layer_scale_init_value=1.0),
    petl=dict(spt=dict(file='work_dirs/vits14_sptlora_cifar100shot10_random/spt.safetensors')),
)
trials = 0  # its own learning rate has not been looked for yet
