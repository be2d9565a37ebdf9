# VeRA (Kopiczko et al. 2024) on q and v, as for their ViT-B: of frozen random matrices two vectors are trained
petl = dict(deltas=dict(vera=dict(type='VeRA', at='qkv', slots='qv', rank=256, d_initial=0.1)), train=['head'])
