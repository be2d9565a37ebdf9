# Compacter (Mahabadi et al. 2021) behind attention and MLP, a 32nd as wide as ViT-B, and all norms; published for T5
petl = dict(deltas=dict(compacter=dict(type='Compacter', n=4, k=1, d_bottle=24)), train=['norm', 'head'])
