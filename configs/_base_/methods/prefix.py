# Prefix-tuning (Eq. 5) beside AdaptMLP, as Table 3 counts it
petl = dict(
    deltas=dict(
        prefix=dict(type='Prefix', at='attn', num_tokens=16, d_middle=128),
        adapter=dict(type='AdaptMLP', at='mlp', d_bottle=64, scale=0.1),
    ),
    train=['head'],
)
