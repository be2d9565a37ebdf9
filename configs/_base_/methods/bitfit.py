# BitFit as the paper counts it: bias vectors, relative-position-bias tables and the blocks' norms
petl = dict(train=['bias', 'attn.rpb', 'norm1', 'norm2', 'head'])
