# FacT (Jie and Deng 2023) as a tensor train, of its largest rank; s is chosen for each task, from 0.01 to 100
petl = dict(deltas=dict(fact=dict(type='FacT', form='TT', rank=16, scale=1.0, dropout=0.1)), train=['head'])
