_base_ = 'demo_sptlora.py'
model = dict(
    petl=dict(spt=dict(file='work_dirs/demo_sptloraprobesample/spt.safetensors', head='probe', gradients='sample'))
)
