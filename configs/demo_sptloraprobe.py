_base_ = 'demo_sptlora.py'
model = dict(petl=dict(spt=dict(file='work_dirs/demo_sptloraprobe/spt.safetensors', head='probe')))
