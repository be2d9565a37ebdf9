# Mona (Yin et al. 2025) behind attention and MLP, convolutions of 3, 5 and 7; published for detection on Swin
petl = dict(deltas=dict(mona=dict(type='Mona', d_bottle=64, kernels=(3, 5, 7), dropout=0.1)), train=['head'])
