# The classification layer alone (linear probing)
petl = dict(train=['head'])
