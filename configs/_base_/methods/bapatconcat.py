# BAPAT whose K_p and V_p are put beside k and v instead of added to them ("Concat" in Table 6)
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(mode='concat')))
