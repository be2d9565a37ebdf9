# Convpass (Jie and Deng 2022) beside attention and MLP; s is chosen for each task from 0.01 to 100
petl = dict(
    deltas=dict(convpass=dict(type='Convpass', d_bottle=8, scale=1.0, dropout=0.1, drop_path=0.1)), train=['head']
)
