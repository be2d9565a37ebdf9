# BAPAT with PATT on queries and keys
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(slots='qk')))
