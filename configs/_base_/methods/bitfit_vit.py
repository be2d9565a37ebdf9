# BitFit on a ViT: the bias vectors, and the classification layer
petl = dict(train=['bias', 'head'])
