"""Trains an adapted model by the Trainer of transformers, in a process where tests/datasets is not in the way."""

import sys

import torch
import transformers
from torch import Tensor

sys.modules['mmengine'] = None  # OpenMMLab takes seconds, and has no part in this

from vpetl_mm.petl import adapt  # noqa: E402

SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
DELTAS = dict(patt=dict(type='PATT', d_bottle=4), lora=dict(type='LoRA', rank=2, at='proj'))


class Clips(torch.utils.data.Dataset):
    """Four clips."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        torch.manual_seed(i)
        return dict(pixel_values=torch.randn(4, 3, 16, 16), labels=torch.tensor(i % 3))


torch.manual_seed(0)
config = transformers.VideoMAEConfig(**SIZES, image_size=16, patch_size=8, num_frames=4, num_labels=3)
model = transformers.VideoMAEForVideoClassification(config)
plan = adapt(model, DELTAS)
before = {n: p.detach().clone() for n, p in model.named_parameters()}
options = dict(per_device_train_batch_size=2, max_steps=3, learning_rate=0.1, report_to=[], use_cpu=True)
quiet = dict(save_strategy='no', logging_strategy='no', disable_tqdm=True)
arguments = transformers.TrainingArguments(sys.argv[1], **options, **quiet)
transformers.Trainer(model, arguments, train_dataset=Clips()).train()
print(*(n for n, p in model.named_parameters() if torch.equal(p, before[n]) == (n in plan.owners)))
