# BAPAT whose K_p and V_p come from a trained table, one row for each of 4 x 7 x 7 window tokens ("No Z" in Table 6)
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(source='tokens', num_tokens=196)))
