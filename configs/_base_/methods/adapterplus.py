# Adapter+ (Steitz and Roth 2024) behind each block
petl = dict(
    deltas=dict(adapterplus=dict(type='AdapterPlus', d_bottle=8, learn_scale='channel', drop_path=0.1)),
    train=['head'],
)
