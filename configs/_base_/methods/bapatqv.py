# BAPAT with PATT on queries and values
_base_ = 'bapat.py'
petl = dict(deltas=dict(patt=dict(slots='qv')))
