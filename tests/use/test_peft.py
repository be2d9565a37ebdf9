"""LoRA in the folder of Hugging Face PEFT, there and back, judged by PEFT's own logits on timm's own ViT."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import HOSTS, VIT, classify, randomised, refused
from torch import Tensor, nn

from tools import call
from tools import refused as refused_by
from vpetl_mm import build_model
from vpetl_mm.engine.adapter import adapter_state, trained_meta
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import bundled_model
from vpetl_mm.use.peft.low_rank import LowRank, by_slot, stacked
from vpetl_mm.use.peft.reading import from_peft, model_with
from vpetl_mm.use.peft.timm_vit import timm_state
from vpetl_mm.use.peft.writing import to_peft, write_peft
from vpetl_mm.weights.vit import from_timm

CLOSE = dict(atol=1e-5, rtol=0)
QKV = dict(type='LoRA', at='qkv', rank=3, alpha=6)
EVERYWHERE = {
    f'on_{at}': dict(type='LoRA', at=at, rank=2 + n, alpha=n) for n, at in enumerate(('proj', 'fc1', 'fc2'))
}
PLAIN_HEAD = dict(head=dict(bn=False))


def trained(deltas: dict[str, Any], **options: Any) -> tuple[dict[str, Any], nn.Module]:
    """A config's model part, and its model with every number drawn, the running statistics of the head too."""
    config = VIT.config(deltas, **options)
    model = randomised(build_model(config)).eval()
    if model.head.bn is not None:
        model.head.bn.running_mean.normal_()
        model.head.bn.running_var.uniform_(0.5, 2)
    return config['model'], model


def there(folder: Path) -> nn.Module:
    """The model that the folder's own README makes of it, with PEFT and timm."""
    pytest.importorskip('peft')
    pytest.importorskip('timm')
    code = re.search(r'```python\n(.+)```', folder.joinpath('README.md').read_text(), re.S)[1]
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope['model']


def back(folder: Path, model: dict[str, Any], backbone: dict[str, Tensor]) -> tuple[dict[str, Any], nn.Module]:
    """The config and the model that a PEFT folder becomes, on a backbone's weights."""
    read = from_peft(folder, model)
    config = model_with(model, read)
    built = build_model(dict(default_scope='mmpretrain', model=config)).eval()
    built.initial_buffers = {}
    plain = {f'backbone.{name}': value for name, value in backbone.items()}
    built.load_state_dict({**plain, **read.tensors})
    return config, built


def plain(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.backbone.state_dict().items() if '.deltas.' not in name}


@pytest.mark.parametrize(
    ('deltas', 'options'),
    [
        (dict(lora=QKV), {}),
        (dict(lora=dict(QKV, slots='k'), **EVERYWHERE), PLAIN_HEAD),
        (dict(lora=QKV, more=dict(QKV, slots='kv', rank=1, alpha=None)), dict(qkv_bias=False)),  # scales differ
        (dict(lora=dict(QKV, slots='qkv', alpha=1.7)), dict(layer_scale_init_value=0.1)),
        (dict(EVERYWHERE, off=dict(QKV, alpha=0)), dict(out_type='avg_featmap', final_norm=False, depth=3)),
    ],
)
def test_the_same_logits_in_timm_and_back(tmp_path, deltas, options):
    config, model = trained(deltas, **options)
    x = VIT.sample(4)
    expected = classify(model, x)
    assert expected.abs().mean() > 0.1
    write_peft(to_peft(config, adapter_state(model)), tmp_path / 'peft', backbone=timm_state(model.backbone))
    torch.testing.assert_close(there(tmp_path / 'peft')(x), expected, **CLOSE)
    _, again = back(tmp_path / 'peft', config, plain(model))
    torch.testing.assert_close(classify(again, x), expected, **CLOSE)


def test_one_lora_comes_back_as_it_was(tmp_path):
    """Slots, rank, alpha and every value, through a B whose blocks are the slots."""
    config, model = trained(dict(lora_qkv=dict(QKV, slots='qv')), **PLAIN_HEAD)
    state = adapter_state(model)
    write_peft(to_peft(config, state), tmp_path / 'peft')
    written = json.loads((tmp_path / 'peft/adapter_config.json').read_text())
    assert written['r'] == 6 and written['lora_alpha'] == 12  # two slots
    read = from_peft(tmp_path / 'peft', config)
    assert read.petl['deltas'] == dict(lora_qkv=dict(QKV, slots='qv'))
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(read.tensors[name], value) for name, value in state.items())


# what another library trained


def foreign(folder: Path, depth: int = 2, **lora: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """A LoRA that PEFT puts on timm's ViT, all numbers drawn, saved by PEFT; its model and the backbone's weights."""
    peft = pytest.importorskip('peft')
    timm = pytest.importorskip('timm.models.vision_transformer')
    sizes = dict(img_size=16, patch_size=8, embed_dim=16, depth=depth, num_heads=2, num_classes=5)
    vit = timm.VisionTransformer(**sizes)
    config = dict(target_modules=['attn.qkv'], modules_to_save=['head'], r=4, lora_alpha=3)
    model = randomised(peft.get_peft_model(vit, peft.LoraConfig(**{**config, **lora}))).eval()
    model.save_pretrained(folder)
    state = {k.replace('.base_layer', ''): v for k, v in model.get_base_model().state_dict().items()}
    return model, {from_timm(k): v for k, v in state.items() if 'lora_' not in k and not k.startswith('head')}


REGEX = r'blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])'


@pytest.mark.parametrize(
    'lora',
    [
        {},
        dict(target_modules=['qkv', 'mlp.fc1', 'attn.proj', 'fc2'], lora_dropout=0.1),
        dict(target_modules=REGEX, use_rslora=True),
        dict(
            target_modules=REGEX,
            rank_pattern={'blocks.1.attn.qkv': 2, 'mlp.fc1': 7, r'^blocks\.\d+\.mlp\.fc2': 3},
            alpha_pattern={r'^blocks\.0\.attn\.qkv': 9, '^proj': 7, 'proj': 1.5, '1.mlp.fc2': 0},
        ),
        dict(target_modules=['qkv', 'fc1'], layers_to_transform=[1], layers_pattern='blocks'),
        dict(target_modules='all-linear', init_lora_weights='gaussian'),
        dict(target_modules=['blocks.0.attn.qkv', '1.mlp.fc2']),
        dict(target_modules=['proj'], exclude_modules=['patch_embed.proj']),
    ],
)
def test_what_peft_trained_gives_the_same_logits_here(tmp_path, lora):
    model, backbone = foreign(tmp_path / 'peft', **lora)
    config, ours = back(tmp_path / 'peft', VIT.config()['model'], backbone)
    x = VIT.sample(4)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(classify(ours, x), expected, **CLOSE)
    assert config['head']['num_classes'] == 5
    qkv = config['petl']['deltas'].get('lora_qkv')
    assert qkv is None or qkv['slots'] == 'qkv'  # a B trained as one mixes the slots


# parts


def test_several_updates_are_one():
    """By the definition: the sum of scale B A in the rows of each."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    updates = [
        LowRank(draw(2, 5), draw(3, 2), 0.5),
        LowRank(draw(1, 5), draw(3, 1), 2.0, start=6),
        LowRank(draw(4, 5), draw(9, 4), 0.0),
    ]
    expected = torch.zeros(9, 5)
    for u in updates:
        expected[u.start : u.start + len(u.b)] += u.scale * u.b @ u.a
    whole = stacked(updates, 9)
    assert whole.rank == 7
    torch.testing.assert_close(whole.scale * whole.b @ whole.a, expected)
    again = torch.zeros(9, 5)
    for slot, u in by_slot(whole).items():
        again['qkv'.index(slot) * 3 : 'qkv'.index(slot) * 3 + 3] += u.scale * u.b @ u.a
    torch.testing.assert_close(again, expected)


# what is refused


@pytest.fixture(scope='module')
def good(tmp_path_factory) -> Path:
    """A folder that is read."""
    config, model = trained(dict(lora=QKV, **EVERYWHERE))
    folder = tmp_path_factory.mktemp('good') / 'peft'
    write_peft(to_peft(config, adapter_state(model)), folder)
    from_peft(folder, config)
    return folder


def changed(good: Path, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor | None]) -> Path:
    """A copy of a folder, with some fields and tensors set; a tensor that is None is left out."""
    folder.mkdir()
    given = json.loads((good / 'adapter_config.json').read_text())
    (folder / 'adapter_config.json').write_text(json.dumps({**given, **config}))
    state = {**load_file(good / 'adapter_model.safetensors'), **tensors}
    save_file({k: v for k, v in state.items() if v is not None}, folder / 'adapter_model.safetensors')
    return folder


A, BLOCK = 'base_model.model.blocks.1.attn.qkv.lora_A.weight', 'base_model.model.blocks.{}.{}'


@pytest.mark.parametrize(
    ('config', 'tensors', 'words'),
    [
        (dict(peft_type='LOHA'), {}, ['LOHA']),
        (dict(use_dora=True), {}, ['use_dora']),
        (dict(lora_bias=True), {}, ['lora_bias']),
        (dict(bias='all'), {}, ["bias is 'all'"]),
        (dict(fan_in_fan_out=True), {}, ['fan_in_fan_out']),
        (dict(init_lora_weights='pissa'), {}, ['pissa']),
        (dict(target_parameters=['blocks.0.attn.qkv.weight']), {}, ['target_parameters']),
        (dict(a_field_of_tomorrow=3), {}, ['a_field_of_tomorrow']),
        (dict(r=0), {}, ['r is 0']),
        (dict(r=True), {}, ['r is True']),
        (dict(r=5), {}, ['rank 6', '5']),
        (dict(lora_alpha=float('nan')), {}, ['lora_alpha is nan']),
        (dict(lora_alpha='2'), {}, ["lora_alpha is '2'"]),
        (dict(rank_pattern={'attn.qkv': 'many'}), {}, ['rank_pattern']),
        (dict(alpha_pattern={'(x+x+)+y': 2}), {}, ['(x+x+)+y', 'not run']),
        (dict(lora_dropout=1), {}, ['lora_dropout']),
        (dict(layers_to_transform=[0]), {}, ['LoRA on blocks.1', 'leave it out']),
        (dict(target_modules=['attn.qkv']), {}, ['blocks.0.attn.proj', 'leave it out']),
        ({}, {A: None}, ['lacks', A]),
        ({}, {A.replace('lora_A', 'lora_B'): torch.zeros(47, 6)}, ['another architecture', '47', '48']),
        ({}, {A: torch.zeros(5, 16)}, ['A of rank 5', 'B of rank 6']),
        ({}, {A: torch.zeros(6, 16, 1)}, ['another architecture']),
        ({}, {A: torch.full((6, 16), torch.nan)}, [A, 'not finite']),
        ({}, {A: torch.zeros(6, 16, dtype=torch.int32)}, ['I32']),
        ({}, {A.replace('lora_A.weight', 'lora_magnitude_vector'): torch.ones(48)}, ['DoRA']),
        ({}, {BLOCK.format(0, 'attn.qkv.lora_B.bias'): torch.ones(48)}, ['lora_B.bias', 'not LoRA']),
        ({}, {BLOCK.format(0, 'attn.qkv.hada_w1_a'): torch.ones(4, 4)}, ['LoHa']),
        ({}, {BLOCK.format(2, 'mlp.fc1.lora_A.weight'): torch.ones(3, 16)}, ['another architecture', '2 blocks']),
        ({}, {'base_model.model.patch_embed.proj.lora_A.weight': torch.ones(2, 3, 8, 8)}, ['patch_embed.proj']),
        ({}, {'base_model.model.head.weight': None}, ['modules_to_save']),
        ({}, {'base_model.model.head.weight': torch.ones(3, 8)}, ['another architecture', '16']),
        ({}, {'base_model.model.head.bias': torch.ones(4)}, ['head.bias']),
        ({}, {'base_model.model.norm.weight': torch.ones(16)}, ['norm.weight', 'not LoRA']),
        ({}, {A.replace('lora_A', f'lora_{w}'): None for w in 'AB'}, ['no LoRA on blocks.1.attn.qkv']),
    ],
)
def test_a_folder_that_is_not_plain_lora_is_refused(good, tmp_path, config, tensors, words):
    folder = changed(good, tmp_path / 'peft', config, tensors)
    with refused(*words):
        from_peft(folder, VIT.config()['model'])


def test_a_broken_folder_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = VIT.config()['model']

    def says(*words: str) -> None:
        with refused(*words):
            from_peft(Path('peft'), model)

    says('peft', 'not a folder')
    folder = changed(good, Path('peft'), {}, {})
    tensors, settings = folder / 'adapter_model.safetensors', folder / 'adapter_config.json'
    whole, text = tensors.read_bytes(), settings.read_text()
    tensors.write_bytes(whole[:-4])
    says('adapter_model.safetensors', 'broken')
    header = json.dumps({A: dict(dtype='F32', shape=[1 << 40, 16], data_offsets=[0, 1 << 46])}).encode()
    tensors.write_bytes(len(header).to_bytes(8, 'little') + header)
    says('adapter_model.safetensors', 'broken')
    tensors.rename(folder / 'adapter_model.bin')
    says('adapter_model.bin', 'pickle')
    tensors.write_bytes(whole)
    for wrong, words in (('{', 'not JSON'), ('[]', 'not a JSON object'), ('[' * 100_000, 'nested too deeply')):
        settings.write_text(wrong)
        says('adapter_config.json', words)
    settings.write_text(text + ' ' * (1 << 20))
    says('bytes')
    settings.unlink()
    says('adapter_config.json does not exist')


def test_nothing_that_a_strangers_config_says_is_done(good, tmp_path, monkeypatch):
    """Neither a regular expression that takes forever, nor a class, nor a path."""
    monkeypatch.chdir(tmp_path)
    endless = '(b+)+(l+)+(([a-z]+)*)*(.+)*(.+)*(.+)*!'
    config = dict(
        target_modules=endless,
        rank_pattern={endless: 6, 'attn.proj': 2, 'fc1': 3, 'fc2': 4},
        auto_mapping=dict(base_model_class='mkdir', parent_library='os'),
        base_model_name_or_path='/etc/passwd',
        runtime_config=dict(a='b'),
    )
    read = from_peft(changed(good, tmp_path / 'peft', config, {}), VIT.config()['model'])
    same = from_peft(good, VIT.config()['model'])
    assert read.petl == same.petl
    assert [p.name for p in Path().iterdir()] == ['peft']


def test_a_pattern_cannot_tell_which_blocks_are_meant(good, tmp_path):
    tensors = {A.replace('lora_A', f'lora_{w}'): None for w in 'AB'}
    folder = changed(good, tmp_path / 'peft', dict(target_modules=REGEX), tensors)
    with refused('blocks.1.attn.qkv', 'target_modules'):
        from_peft(folder, VIT.config()['model'])


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, 'the disk is full')


def test_what_peft_or_timm_does_not_have_is_refused(tmp_path, monkeypatch):
    for host, deltas, options, words in (
        ('vit', dict(patt=dict(type='PATT', d_bottle=2), lora=QKV), {}, ['PATT (patt)']),
        ('vit', dict(lora=QKV), dict(train=['head', 'bias']), ["train='bias'"]),
        ('vit', {}, {}, ['has none']),
        ('swin2d', dict(lora=QKV), {}, ['SwinTransformer']),
        ('videomae', dict(lora=QKV), {}, ['PETLRecognizer3D']),
        ('vit', dict(lora=QKV), dict(pre_norm=True), ['pre_norm=True']),
        ('vit', dict(lora=QKV), dict(out_type='avg_featmap'), ['out_type']),
        ('vit', dict(lora=QKV), dict(norm_cfg=dict(type='LN')), ['norm_cfg']),
    ):
        with refused(*words):
            to_peft(HOSTS[host].config(deltas, **options)['model'], {})
    config, model = trained(dict(lora=QKV))
    state = adapter_state(model)
    with refused('head.fc.weight', 'missing'):
        to_peft(config, {k: v for k, v in state.items() if k != 'head.fc.weight'})
    with refused('backbone.cls_token'):
        to_peft(config, {**state, 'backbone.cls_token': torch.zeros(1, 1, 16)})
    adapter = to_peft(config, state)
    with refused('exists'):
        write_peft(adapter, tmp_path)
    with refused('its folder does not exist'):
        write_peft(adapter, tmp_path / 'a/b')
    monkeypatch.setattr(Path, 'write_text', full)
    with refused('full'):
        write_peft(adapter, tmp_path / 'peft')
    assert not [*tmp_path.iterdir()]


# the commands


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Path:
    """The config of an image experiment with LoRA, in the current folder, and the base beside it."""
    monkeypatch.chdir(tmp_path)
    options = dict(train=['head'], layer_scale_init_value=0.1)
    plain_vit = randomised(build_model(VIT.config(**options))).backbone
    torch.save(timm_state(plain_vit), 'base.pth')
    config = VIT.config(dict(lora=QKV, **EVERYWHERE), base=dict(file='base.pth', convert='timm_vit'), **options)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
    config['test_dataloader'] = dict(dataset=dict(pipeline=pipeline, classes=['cat', 'dog', 'cow']))
    Path('vit.py').write_text(''.join(f'{name} = {value!r}\n' for name, value in config.items()))
    return Path('vit.py')


def test_a_bundle_goes_to_peft_and_comes_back(experiment, capsys):
    model = build_model(experiment, init_weights=True)
    drawn = randomised(build_model(experiment)).state_dict()
    model.load_state_dict({k: v for k, v in drawn.items() if 'deltas' in k or k.startswith('head')}, strict=False)
    meta = dict(adapter_format=1, epoch=3, **trained_meta(model))
    torch.save(dict(state_dict=dict(adapter_state(model)), meta=meta), 'adapter_epoch_3.pth')
    assert call('adapter', 'pack', experiment, 'adapter_epoch_3.pth', '-o', 'vit.safetensors') == 0
    assert 'exists' in refused_by(capsys, 'adapter', 'to-peft', 'vit.safetensors', '.')
    assert call('adapter', 'to-peft', 'vit.safetensors', 'peft', '--base', 'base.pth') == 0
    x = VIT.sample(4)
    expected = classify(model.eval(), x)
    torch.testing.assert_close(there(Path('peft'))(x), expected, **CLOSE)
    assert call('adapter', 'from-peft', 'peft', experiment, '-o', 'again.safetensors') == 0
    bundle = read_bundle('again.safetensors')
    assert bundle.about.name == 'peft' and bundle.about.classes == ['cat', 'dog', 'cow']
    torch.testing.assert_close(classify(bundled_model(bundle, 'base.pth'), x), expected, **CLOSE)
    Path('names.txt').write_text('cat\ndog\n')
    for words, *argv in (
        ('2 names', 'peft', experiment, '-o', 'new.safetensors', '--classes', 'names.txt'),
        ('again.safetensors exists', 'peft', experiment, '-o', 'again.safetensors'),
        ('adapter_config.json does not exist', '.', experiment, '-o', 'new.safetensors'),
    ):
        assert words in refused_by(capsys, 'adapter', 'from-peft', *argv)
