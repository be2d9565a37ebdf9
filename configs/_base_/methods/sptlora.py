# SPT-LoRA: low-rank updates of the matrices that are mostly sensitive, single weights elsewhere; one choice a budget
petl = dict(
    spt=dict(structured='LoRA', rank=8, budget=['0.2M', '0.4M', '0.6M', '0.8M', '1.0M']),
    train=['head'],
)
