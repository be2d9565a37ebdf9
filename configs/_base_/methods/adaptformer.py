# AdaptFormer: a parallel adapter beside each MLP (Eq. 6, 7)
petl = dict(deltas=dict(adapter=dict(type='AdaptMLP', at='mlp', d_bottle=64, scale=0.1)), train=['head'])
