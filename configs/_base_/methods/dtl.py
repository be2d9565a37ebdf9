# DTL (Fu et al. 2024), a stream beside the blocks. Its authors' head reads the mean of the patch tokens, the heads of
# these configs what they read for the other methods
petl = dict(deltas=dict(dtl=dict(type='DTL', rank=2)), train=['head'])
