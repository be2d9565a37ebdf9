# A control: nothing is pre-trained, and LayerScale is at 1, without which no frozen block passes anything on
_base_ = 'vits14_fc_cifar100shot10_dinov2.py'
model = dict(base=None, backbone=dict(layer_scale_init_value=1.0))
trials = 0  # its own learning rate has not been looked for yet
