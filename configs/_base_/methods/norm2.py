# The norms in front of the MLPs alone, without the classification layer (Table 1)
petl = dict(train=['norm2'])
