# ST-Adapter in front of attention and MLP, the published 24x384 of Something-Something v2; Kinetics-400's 12x384 has
# before_attn=None. For image models on the frames of clips, and for the joint tokens of a video ViT.
petl = dict(
    deltas=dict(
        before_attn=dict(type='STAdapter', at='block', d_bottle=384),
        before_mlp=dict(type='STAdapter', at='between', d_bottle=384),
    ),
    train=['head'],
)
