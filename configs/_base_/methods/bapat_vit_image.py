# BAPAT on a ViT: no bias in PATT's up-projection (Tables 7, 8); AdaptFormer's adapter reads the residual stream
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(bias='down'), adapter=dict(source='residual', dropout=0.1)))
