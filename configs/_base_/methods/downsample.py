# The patch mergings between the stages alone, without the classification layer (Table 1)
petl = dict(train=['downsample'])
