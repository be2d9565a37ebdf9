# AIM on a ViT-B, as published on Kinetics-400 with 8 frames: the attention used again over time, an adapter behind
# the one in space, another beside the MLP. Something-Something v2 has num_tadapter=2 and scale=1.0.
petl = dict(
    deltas=dict(
        frames=dict(type='FrameEmbedding', num_frames=8),  # first: the block's deltas act in this order
        time=dict(type='AIMTime', d_bottle=192, num_tadapter=1, drop_path=0.2),
        space=dict(type='LinearAdapter', at='proj', d_bottle=192),
        joint=dict(type='AdaptMLP', d_bottle=192, act='GELU', scale=0.5, drop_path=0.2),
    ),
    train=['head', 'last_norm'],
)
