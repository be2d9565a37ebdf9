# V-JEPA 2's ViT-L/16 of Hugging Face. It was trained on 64 frames of 256 x 256; img_size sets its rotary positions.
default_scope = 'mmaction'
model = dict(
    type='PETLRecognizer3D',
    base=dict(
        file='data/weights/vjepa2-vitl-fpc64-256.safetensors',
        url='https://huggingface.co/facebook/vjepa2-vitl-fpc64-256/resolve/main/model.safetensors',
    ),
    # what is left out is ViT-L's
    backbone=dict(type='HFBackbone', config=dict(model_type='vjepa2'), img_size=224, frames=16),
    cls_head=dict(type='PETLTokenHead', in_channels=1024),
)
