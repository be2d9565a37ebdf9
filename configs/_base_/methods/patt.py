# PATT alone (Eq. 9, 10)
petl = dict(deltas=dict(patt=dict(type='PATT', at='qkv', slots='kv', d_bottle=128, scale=0.8)), train=['head'])
