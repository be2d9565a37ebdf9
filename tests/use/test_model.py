"""From a bundle back to the model: the same logits, bit for bit, on the base it was trained on and on no other."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import chosen
import packed
import pytest
import torch
from cases import adapter, both, cases, patt, prefix
from packed import bundle_of, content_of, run_of, save, write
from tiny import HOSTS, classify, refused
from torch import nn

from vpetl_mm.spt.allocation import tensors_sha256
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import bundled_model
from vpetl_mm.use.bundle.packing import pack

BAPAT = both(patt(), adapter()).deltas
# host -> methods that together have every delta, every option of theirs and every place
COVERED = {
    'swin3d': ('prefix_patt_prompt', 'lora_everywhere', 'concat_tokens'),
    'videomae': ('shallow_and_deep', 'three_adapters', 'patt_qkv_learn_scale', 'st_adapter'),
    'vit': ('linear_adapter_everywhere', 'shallow_residual', 'patt_bias_down', 'lora_dropout', 'aim'),
    'vit_layerscale': ('bapat',),
    'swin2d': ('patt_tokens', 'lora_and_linear_adapter'),
}
METHODS = [(host, case) for host, names in COVERED.items() for case in names]


def on_base(
    host: str, folder: Path, deltas: dict | None = None, train: tuple[str, ...] = ('head',), **options
) -> dict:
    base = dict(file=str(packed.base_of(HOSTS[host], folder)), url=packed.URL)
    return HOSTS[host].config(deltas, train, base=base, seed=1, **options)


def with_spt(host: str, folder: Path, structured: str = 'LoRA') -> tuple[dict[str, Any], Path]:
    """A config with SPT, and its file."""
    base = packed.base_of(HOSTS[host], folder)
    about = dict(file=str(base), sha256=tensors_sha256(torch.load(base)))
    file = chosen.written(HOSTS[host], folder, structured, seed=1, base=about)
    return on_base(host, folder, petl=chosen.options(file, structured)), file


def assert_same_logits(host: str, one: nn.Module, other: nn.Module) -> None:
    assert not other.training
    x = HOSTS[host].sample()
    with torch.no_grad():
        assert torch.equal(classify(other, x), classify(one, x))


def again(run: packed.Run, base: Path | None = None, to: str = 'b.safetensors') -> nn.Module:
    """Pack a run, and build its model from the bundle."""
    return bundled_model(read_bundle(pack(run.config, run.checkpoint, run.config.with_name(to))), base or run.base)


# The same model


@pytest.mark.parametrize(('host', 'case'), METHODS)
def test_a_bundle_gives_the_model_that_was_trained(tmp_path, host, case):
    run = run_of(tmp_path, on_base(host, tmp_path, cases(HOSTS[host])[case].deltas))
    assert_same_logits(host, run.model, again(run))


@pytest.mark.parametrize('structured', ['LoRA', 'AdaptMLP'])
@pytest.mark.parametrize('host', ['swin3d', 'vit'])
def test_spt_needs_neither_its_file_nor_the_file_of_the_run(tmp_path, host, structured):
    config, file = with_spt(host, tmp_path, structured)
    run = run_of(tmp_path, config)
    bundle = pack(run.config, run.checkpoint, tmp_path / 'b.safetensors')
    file.unlink(), run.config.unlink(), run.checkpoint.unlink()
    assert_same_logits(host, run.model, bundled_model(read_bundle(bundle), run.base))


@pytest.mark.parametrize('full', [False, True], ids=['adapter', 'full state'])
@pytest.mark.parametrize('host', ['swin3d', 'videomae'])
def test_full_tuning_needs_no_base(tmp_path, host, full):
    """VideoMAE's table of positions is a buffer, which comes from the base and is no constant of the model."""
    config = on_base(host, tmp_path, train=('all',))
    if host == 'videomae':
        state = torch.load(config['model']['base']['file'])
        state['pos_embed'] = torch.rand(1, 8, 16)
        torch.save(state, config['model']['base']['file'])
    run = run_of(tmp_path, config, full=full)
    bundle = read_bundle(pack(run.config, run.checkpoint, tmp_path / 'b.safetensors'))
    run.base.unlink()
    assert bundle.about.frozen_sha256 is None
    assert_same_logits(host, run.model, bundled_model(bundle))


@pytest.mark.parametrize('full', [False, True], ids=['adapter', 'full state'])
@pytest.mark.parametrize('host', ['swin3d', 'swin2d'])
def test_a_random_frozen_backbone_is_in_the_bundle(tmp_path, host, full):
    run = run_of(tmp_path, HOSTS[host].config(BAPAT, seed=1), full=full)
    assert_same_logits(host, run.model, again(run))


@pytest.mark.parametrize('full', [False, True], ids=['adapter', 'full state'])
def test_running_statistics_and_a_frozen_head_stay(tmp_path, full):
    def used(model: nn.Module) -> None:
        model.train()(HOSTS['vit'].sample(8), mode='tensor')
        model.eval()

    run = run_of(tmp_path, on_base('vit', tmp_path, BAPAT, train=()), used, full)
    assert not run.model.head.fc.weight.requires_grad and run.model.head.bn.running_mean.abs().max() > 0
    assert_same_logits('vit', run.model, again(run))


# The base


@pytest.fixture(scope='module')
def packed_once(tmp_path_factory) -> Path:
    """A folder with a bundle and its base."""
    folder = tmp_path_factory.mktemp('bapat')
    bundle_of(folder, on_base('swin3d', folder, BAPAT))
    return folder


@pytest.fixture
def bapat(packed_once, tmp_path) -> tuple[Path, Path]:
    """Copies of a bundle and its base."""
    return tuple(Path(shutil.copy(packed_once / name, tmp_path)) for name in ('b.safetensors', 'base_11.pth'))


def test_the_base_is_where_the_config_had_it(bapat, elsewhere):
    bundle, base = bapat
    with refused('needs its base, base_11.pth', '--base', packed.URL, content_of(bundle)[0]['base']['sha256']):
        bundled_model(read_bundle(bundle))
    Path('data/weights').mkdir(parents=True)
    base.rename('data/weights/base_11.pth')
    bundled_model(read_bundle(bundle))


def other_weights(base: Path) -> None:
    packed.base_of(HOSTS['swin3d'], base.parent, seed=12).replace(base)


def one_bit(base: Path) -> None:
    state = torch.load(base)
    state['layers.0.blocks.0.attn.qkv.weight'].view(torch.int32)[0, 0] ^= 1
    torch.save(state, base)


def another_host(base: Path) -> None:
    packed.base_of(HOSTS['vit'], base.parent).replace(base)


def cut(base: Path) -> None:
    base.write_bytes(base.read_bytes()[:2000])


@pytest.mark.parametrize('change', [other_weights, one_bit, another_host, cut])
def test_another_base_is_refused_with_both_hashes_and_its_source(bapat, change):
    bundle, base = bapat
    header = content_of(bundle)[0]
    change(base)
    with refused('base_11.pth', packed.URL, header['base']['sha256']) as error:
        bundled_model(read_bundle(bundle), base)
    loads = change in (other_weights, one_bit)
    wanted = header['frozen_sha256'] if loads else header['base']['sha256']
    hashes = set(re.findall('[0-9a-f]{64}', str(error.value)))
    assert wanted in hashes and len(hashes) == (3 if loads else 2), error.value


def test_a_base_that_is_not_there_is_named(bapat, tmp_path):
    with refused('none.pth does not exist', packed.URL):
        bundled_model(read_bundle(bapat[0]), tmp_path / 'none.pth')


def test_spt_on_another_base_is_another_base(tmp_path):
    bundle = read_bundle(bundle_of(tmp_path, with_spt('vit', tmp_path)[0]))
    with refused('this is a different or changed base', packed.URL):
        bundled_model(bundle, packed.base_of(HOSTS['vit'], tmp_path, seed=12))


# The tensors

KEY = 'cls_head.fc_cls.weight'
WRONG = {
    'missing': lambda tensors: tensors.pop(KEY),
    'further': lambda tensors: tensors.update(more=torch.ones(1)),
    'of another shape': lambda tensors: tensors.update({KEY: tensors[KEY][:2]}),
    'of whole numbers': lambda tensors: tensors.update({KEY: tensors[KEY].int()}),
    'of 8 bits': lambda tensors: tensors.update({KEY: tensors[KEY].to(torch.float8_e4m3fn)}),
    'of 64 bits': lambda tensors: tensors.update({KEY: tensors[KEY].double()}),
    'complex': lambda tensors: tensors.update({KEY: tensors[KEY].to(torch.complex64)}),
    'not a number': lambda tensors: tensors[KEY].view(-1)[:1].fill_(float('nan')),
    'infinite': lambda tensors: tensors[KEY].view(-1)[:1].fill_(float('inf')),
    'an entry of SPT': lambda tensors: tensors.update({'spt/a': torch.ones(1)}),
}


@pytest.mark.parametrize('change', WRONG.values(), ids=WRONG)
def test_a_wrong_tensor_is_named(bapat, tmp_path, change):
    header, tensors = content_of(bapat[0])
    change(tensors)
    with refused(str(tmp_path / 'wrong.safetensors')) as error:
        bundled_model(read_bundle(write(tmp_path / 'wrong.safetensors', header, tensors)), bapat[1])
    assert any(word in str(error.value) for word in (KEY, 'more', 'single entries'))


@pytest.mark.parametrize('name', ['trainable', 'total'])
def test_a_claim_about_the_model_is_checked(bapat, tmp_path, name):
    header, tensors = content_of(bapat[0])
    header[name] += 1
    with refused('parameter counts'):
        bundled_model(read_bundle(write(tmp_path / 'wrong.safetensors', header, tensors)), bapat[1])


def test_half_precision_is_widened(bapat, tmp_path):
    header, tensors = content_of(bapat[0])
    half = {k: v.to(torch.bfloat16) for k, v in tensors.items()}
    model = bundled_model(read_bundle(write(tmp_path / 'half.safetensors', header, half)), bapat[1])
    assert all(torch.equal(model.state_dict()[k], v.float()) for k, v in half.items())


@pytest.fixture(scope='module')
def tuned_once(tmp_path_factory) -> Path:
    """A bundle of SPT with a random backbone."""
    folder = tmp_path_factory.mktemp('spt')
    file = chosen.written(HOSTS['vit'], folder, seed=1)
    return bundle_of(folder, HOSTS['vit'].config(petl=chosen.options(file), seed=1))


@pytest.fixture
def tuned(tuned_once) -> tuple[dict, dict[str, torch.Tensor]]:
    return content_of(tuned_once)


def sparse(tensors: dict[str, torch.Tensor], start: str) -> torch.Tensor:
    return next(v for k, v in tensors.items() if k.startswith(start) and v.dtype == torch.int32)


def row(header: dict, choice: str) -> dict:
    return next(r for r in header['spt']['rows'] if r['choice'] == choice)


INCONSISTENT = {
    'a buffer that is not the choice': lambda h, t: sparse(t, 'backbone')[:1].add_(1),
    'an index out of range': lambda h, t: sparse(t, 'spt/')[-1:].fill_(1 << 30),
    'an index below 0': lambda h, t: sparse(t, 'spt/')[:1].fill_(-1),
    'entries in another order': lambda h, t: sparse(t, 'spt/').copy_(sparse(t, 'spt/').flip(0)),
    'entries of no unit': lambda h, t: t.update({'spt/x': torch.ones(1, dtype=torch.int32)}),
    'a unit left whole': lambda h, t: row(h, 'sparse').update(choice='none'),
    'a unit of another shape': lambda h, t: row(h, 'structured').update(shape=[1 << 40, 1 << 40]),
    'a unit of another name': lambda h, t: row(h, 'none').update(name='layers.0.x'),
    'a unit of a list': lambda h, t: row(h, 'none').update(name=['a']),
    'no rows': lambda h, t: h['spt'].update(rows=[]),
    'rows of numbers': lambda h, t: h['spt'].update(rows=[1, 2]),
    'another host': lambda h, t: h['spt'].update(host='os.mkdir'),
    'a huge rank': lambda h, t: (h['spt'].update(rank=10**6), h['model']['petl']['spt'].update(rank=10**6)),
    'another control': lambda h, t: h['spt'].update(control='os.mkdir'),
    'no choice': lambda h, t: h.update(spt=None),
    'no options': lambda h, t: h['model']['petl'].pop('spt'),
    'options of text': lambda h, t: h['model']['petl'].update(spt='LoRA'),
    'a file': lambda h, t: h['model']['petl']['spt'].update(file='/etc/passwd'),
}


@pytest.mark.parametrize('change', INCONSISTENT.values(), ids=INCONSISTENT)
def test_entries_that_are_not_the_choice_are_refused(tuned, tmp_path, change):
    header, tensors = tuned
    change(header, tensors)
    file = write(tmp_path / 'wrong.safetensors', header, tensors)
    with refused(str(file)):
        bundled_model(read_bundle(file))


def test_old_adapter_files_and_the_best_ones_pack(tmp_path):
    run = run_of(tmp_path, on_base('vit', tmp_path, BAPAT))
    content = torch.load(run.checkpoint)
    meta = {k: content['meta'][k] for k in ('adapter_format', 'base', 'frozen_sha256', 'deltas')}
    torch.save(dict(content, meta=meta), tmp_path / 'best_acc_top1_epoch_2.pth')
    run.checkpoint.unlink()
    run.base.rename(tmp_path / 'away.pth')  # an adapter needs no base to be packed
    file = pack(run.config, tmp_path / 'best_acc_top1_epoch_2.pth', tmp_path / 'b.safetensors')
    bundle = read_bundle(file)
    assert (bundle.about.classes, bundle.about.epoch, bundle.about.seed) == (None, 0, None)
    assert_same_logits('vit', run.model, bundled_model(bundle, tmp_path / 'away.pth'))


def test_a_full_state_packs_as_its_adapter(tmp_path):
    run = run_of(tmp_path, on_base('swin3d', tmp_path, BAPAT))
    full = save(run.model, tmp_path / 'epoch_3.pth', full=True)
    files = [pack(run.config, c, tmp_path / f'{c.stem}.safetensors') for c in (run.checkpoint, full)]
    (one, ours), (other, theirs) = map(content_of, files)
    assert ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert {**one, 'created': ''} == {**other, 'created': ''}


def test_a_shape_of_the_prefix_is_not_believed(tmp_path):
    """A header that says 10^6 tokens has to hold them."""
    file = bundle_of(tmp_path, on_base('vit', tmp_path, prefix().deltas))
    header, tensors = content_of(file)
    for where in (header['model']['petl']['deltas'], header['deltas']):
        where['prefix']['num_tokens'] = 1_000_000
    with refused('prefix.tokens'):
        bundled_model(read_bundle(write(tmp_path / 'wrong.safetensors', header, tensors)))
