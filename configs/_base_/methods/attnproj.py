# The output projections of attention alone, without the classification layer (Table 1)
petl = dict(train=['attn.proj'])
