# SPT-Adapter: as SPT-LoRA, with an adapter behind each matrix that is mostly sensitive
_base_ = 'sptlora.py'
petl = dict(spt=dict(structured='AdaptMLP'))
