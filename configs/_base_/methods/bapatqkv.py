# BAPAT with PATT on queries, keys and values
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(slots='qkv')))
