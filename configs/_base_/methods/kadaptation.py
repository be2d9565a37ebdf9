# KAdaptation (He et al. 2023) of q and v, as the paper has it: 32 Kronecker products; the released code trains none
petl = dict(deltas=dict(kadaptation=dict(type='KAdaptation', at='qkv', slots='qv', n=32)), train=['head'])
