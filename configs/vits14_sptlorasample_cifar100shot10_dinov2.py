_base_ = 'vits14_sptlora_cifar100shot10_dinov2.py'
model = dict(
    petl=dict(
        spt=dict(file='work_dirs/vits14_sptlorasample_cifar100shot10_dinov2/spt.safetensors', gradients='sample')
    )
)
