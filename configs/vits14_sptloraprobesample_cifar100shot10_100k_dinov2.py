_base_ = 'vits14_sptloraprobesample_cifar100shot10_dinov2.py'
model = dict(
    petl=dict(
        spt=dict(
            file='work_dirs/vits14_sptloraprobesample_cifar100shot10_100k_dinov2/spt.safetensors', budget=100_000
        )
    )
)
