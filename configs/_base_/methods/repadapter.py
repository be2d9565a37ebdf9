# RepAdapter (Luo et al. 2023) in front of attention and MLP, as for VTAB-1k, where s is chosen for each task, from
# 0.1 to 10; its code for video has d_bottle=2
petl = dict(
    deltas=dict(repadapter=dict(type='RepAdapter', d_bottle=8, groups=2, scale=1.0, dropout=0.1)), train=['head']
)
