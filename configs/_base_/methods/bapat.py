# BAPAT: PATT in the attention and AdaptMLP beside the MLP
petl = dict(
    deltas=dict(
        patt=dict(type='PATT', at='qkv', slots='kv', d_bottle=128, scale=0.8),
        adapter=dict(type='AdaptMLP', at='mlp', d_bottle=64, scale=0.1),
    ),
    train=['head'],
)
