_base_ = 'vits14_sptlorashuffled_cifar100shot10_dinov2.py'
model = dict(
    petl=dict(
        spt=dict(
            file='work_dirs/vits14_sptlorashuffled_cifar100shot10_1000k_dinov2/spt.safetensors', budget=1_000_000
        )
    )
)
