"""Whatever a checkpoint wraps around a backbone: the same tensors, or a reason why not."""

from __future__ import annotations

import pytest
import torch
from convert_command import call, refused, timm, write
from references import REFERENCES, prefixed
from safetensors.torch import load_file

from vpetl_mm.commands.conversion import convert
from vpetl_mm.models.build import on_meta
from vpetl_mm.weights.base import base_state


def plain(state: dict) -> dict[str, torch.Tensor]:
    """What becomes of the file without anything around it."""
    write(state, 'plain.pth')
    convert('plain.pth', 'plain.safetensors', force=True)
    return load_file('plain.safetensors')


def same(file: str, expected: dict[str, torch.Tensor], **options) -> str:
    """Convert ``file`` and compare; the name of the part that was taken."""
    origin = convert(file, 'dst.safetensors', force=True, **options).origin
    ours = load_file('dst.safetensors')
    assert ours.keys() == expected.keys() and all(torch.equal(ours[k], v) for k, v in expected.items())
    return origin.source['part']


def inside_blocks(state: dict, what: str) -> dict:
    """As torch names modules that are wrapped one by one."""
    return {
        k.replace('blocks.0.', f'blocks.0.{what}.').replace('blocks.1.', f'blocks.1.{what}.'): v
        for k, v in state.items()
    }


WRAPPINGS = {
    'compiled': lambda s: dict(state_dict=prefixed('_orig_mod.', s)),
    'ddp of compiled': lambda s: dict(model=prefixed('module._orig_mod.', s), optimizer={'state': {0: {'step': 1}}}),
    'lightning': lambda s: {'state_dict': prefixed('model.', s), 'pytorch-lightning_version': '2.5', 'epoch': 3},
    'net in a nest in a nest': lambda s: dict(state=dict(student=prefixed('net.encoder.', s)), step=1),
    'deepspeed': lambda s: dict(module=prefixed('module.backbone.', s), ds_config={}),
    'fsdp, checkpointed': lambda s: prefixed(
        '_fsdp_wrapped_module.', inside_blocks(s, '_fsdp_wrapped_module._checkpoint_wrapped_module')
    ),
    'blocks compiled': lambda s: dict(ema=inside_blocks(s, '_orig_mod')),
    'teacher alone': lambda s: dict(teacher=prefixed('backbone.', s) | {'dino_head.mlp.0.weight': torch.ones(2, 2)}),
    'averaged': lambda s: prefixed('module.', s) | {'n_averaged': torch.tensor(3)},
}  # fmt: skip


@pytest.mark.parametrize('wrapping', WRAPPINGS)
@pytest.mark.parametrize('name', ['dinov2', 'swin2d', 'mmaction_videomae'])
def test_what_is_around(name, wrapping):
    reference = REFERENCES[name]()
    state = {k.removeprefix('backbone.'): v for k, v in reference.state.items()}
    write(WRAPPINGS[wrapping](state))
    for kind in (None, reference.kind):
        same('src.pth', plain(state), kind=kind)


def test_the_remark(capsys):
    write(dict(state_dict=prefixed('module._orig_mod.', timm()), state_dict_ema=timm()))
    assert call('src.pth', 'dst.safetensors') == 0
    out = capsys.readouterr().out
    for part in ('taken from  state_dict.module\n', '_orig_mod', 'also there  state_dict_ema: --part NAME'):
        assert part in out


STEPS = dict(steps=torch.ones(()))  # beside mmengine's averages


def other() -> dict:
    return {k: v + 1 for k, v in timm().items()}


@pytest.mark.parametrize(
    ('content', 'taken'),
    [
        (lambda: dict(model=timm(), model_ema=other()), 'model'),
        (lambda: dict(state_dict=timm(), ema_state_dict=prefixed('module.', other()) | STEPS), 'state_dict'),
        (lambda: dict(state_dict=prefixed('model.', timm()) | prefixed('ema_model.', other())), 'state_dict.model'),
        (lambda: timm() | dict(teacher=other()), ''),
        (lambda: timm() | prefixed('ema.', other()), ''),
    ],
)  # fmt: skip
def test_the_model_itself_is_taken_rather_than_its_average(content, taken):
    write(content())
    assert same('src.pth', plain(timm())) == taken
    average = 'teacher' if 'teacher' in content() else 'ema'
    name = next(n for n in convert('src.pth', 'dst.safetensors', force=True).others if average in n)
    assert same('src.pth', plain(other()), part=name) == name


def test_between_a_student_and_a_teacher_the_user_chooses(capsys):
    write(dict(student=prefixed('backbone.', timm()), teacher=prefixed('backbone.', other())))
    error = refused(capsys, 'src.pth')
    assert 'student.backbone, teacher.backbone' in error and '--part' in error
    assert same('src.pth', plain(other()), part='teacher') == 'teacher.backbone'
    error = refused(capsys, 'src.pth', '--part', 'techer')
    assert 'none of its models: student.backbone, teacher.backbone' in error


def test_a_config_reads_what_is_around_too():
    from mmpretrain.models import VisionTransformer

    state = REFERENCES['mmpretrain_vit']().state
    write(dict(model=prefixed('module.', state), model_ema=prefixed('module.', {k: v + 1 for k, v in state.items()})))
    with on_meta():
        arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=64)
        backbone = VisionTransformer(arch, 16, 8)
    for convert_ in (None, 'mmpretrain_vit'):
        found = base_state(backbone, dict(file='src.pth', convert=convert_))
        assert all(torch.equal(v, state[f'backbone.{k}']) for k, v in found.items())


def test_a_model_under_two_names_is_one():
    state = timm()
    write(dict(state_dict=state, model=state))
    assert same('src.pth', plain(timm())) == 'state_dict'
