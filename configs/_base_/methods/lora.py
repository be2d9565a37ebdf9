# LoRA on q and v
petl = dict(deltas=dict(lora=dict(type='LoRA', at='qkv', slots='qv', rank=16)), train=['head'])
