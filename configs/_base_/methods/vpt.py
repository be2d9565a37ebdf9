# Visual prompt tuning (Eq. 8), deep, one token a block
petl = dict(deltas=dict(prompt=dict(type='Prompt', num_tokens=1, deep=True)), train=['head'])
