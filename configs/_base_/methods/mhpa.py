# MH-PA (He et al. 2022), the multi-head parallel adapter alone: 30 trained keys and values that a ReLU weighs
petl = dict(deltas=dict(mhpa=dict(type='MHPA', num_tokens=30)), train=['head'])
