# DoRA (Liu et al. 2024) on q and v: LoRA, with the length of each row trained apart
petl = dict(deltas=dict(dora=dict(type='DoRA', at='qkv', slots='qv', rank=16)), train=['head'])
