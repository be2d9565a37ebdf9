_base_ = ['_base_/few_shot.py', '_base_/methods/sptadapter.py']
petl = _base_.petl
petl.spt.update(
    file='work_dirs/vits14_sptadapter_cifar100shot10_dinov2/spt.safetensors', budget=294_912
)  # what LoRA tunes
model = dict(petl=petl)
optim_wrapper = dict(optimizer=dict(lr=0.003))
trials = 4  # learning rates, on held-out training images (docs/few_shot.md)
