# PATT's up-projection starts at zero, so that training starts from the plain backbone
_base_ = 'vits14_bapat_cifar100shot10_b32_dinov2.py'
model = dict(petl=dict(deltas=dict(patt=dict(init='zero'))))
optim_wrapper = dict(optimizer=dict(lr=0.003))
trials = 4  # learning rates, on held-out training images (docs/few_shot.md)
