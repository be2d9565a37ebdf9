# The MAM adapter (He et al. 2022): 30 prefix tokens, and a scaled adapter beside the MLP, 512 wide as for BART-large;
# prefix_nomlp, their prefix without an MLP that makes it
petl = dict(
    deltas=dict(
        prefix=dict(type='Prefix', at='attn', num_tokens=30, d_middle=None),
        adapter=dict(type='AdaptMLP', at='mlp', d_bottle=512, scale=4.0),
    ),
    train=['head'],
)
