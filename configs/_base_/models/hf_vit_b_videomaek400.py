# VideoMAE's ViT-B/16 of Hugging Face, for 16 frames, pre-trained and then fine-tuned on Kinetics-400
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/videomae-base-finetuned-kinetics.safetensors',
        url='https://huggingface.co/MCG-NJU/videomae-base-finetuned-kinetics/resolve/main/model.safetensors',
    ),
    backbone=dict(type='HFBackbone', config=dict(model_type='videomae')),  # what is left out is ViT-B's
    cls_head=dict(type='PETLTokenHead', in_channels=768),
)
