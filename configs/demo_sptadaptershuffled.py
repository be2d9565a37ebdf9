_base_ = 'demo_sptadapter.py'
model = dict(petl=dict(spt=dict(file='work_dirs/demo_sptadaptershuffled/spt.safetensors', control='shuffled')))
