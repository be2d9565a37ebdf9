# SSF (Lian et al. 2022): a scale and a shift behind every operation, which start near 1 and 0, as published
petl = dict(deltas=dict(ssf=dict(type='SSF', init='normal')), train=['head'])
