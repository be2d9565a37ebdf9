# Compacter (Mahabadi et al. 2021) behind attention and MLP, a 32nd of their width, and all norms; published for T5
petl = dict(deltas=dict(compacter=dict(type='Compacter', n=4, rank=1, d_bottle=None)), train=['norm', 'head'])
