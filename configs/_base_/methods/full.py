# Full fine-tuning
petl = dict(train=['all'])
