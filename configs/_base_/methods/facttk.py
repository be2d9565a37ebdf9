# FacT (Jie and Deng 2023) in Tucker's form, of its largest rank. The released code mixes the slices of an MLP's
# layer: published=True
petl = dict(deltas=dict(fact=dict(type='FacT', form='TK', rank=32, scale=1.0, dropout=0.1)), train=['head'])
