# AdaptFormer as published for image ViTs: the adapter reads the residual stream, with dropout
_base_ = 'adaptformer.py'
petl = dict(deltas=dict(adapter=dict(source='residual', dropout=0.1)))
