# The relative-position-bias tables ("Attn, SoftMax") alone, without the classification layer (Table 1)
petl = dict(train=['attn.rpb'])
