# The norms in front of attention alone, without the classification layer (Table 1)
petl = dict(train=['norm1'])
