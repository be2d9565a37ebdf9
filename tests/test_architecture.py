"""Imports run downward only, as docs/architecture.md says, and petl needs torch alone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[1]
PACKAGE = REPO / 'vpetl_mm'


def table() -> dict[str, set[str]]:
    """Package -> the packages that it may import, from the ground up."""
    text = (REPO / 'docs/architecture.md').read_text(encoding='utf-8')
    text = text.partition('## Who may import whom')[2].partition('\n## ')[0]
    rows = re.findall(r'^\| `(\w+)` \|[^|]+\|([^|]*)\|$', text, re.M)
    allowed: dict[str, set[str]] = {}
    for name, given in rows:
        allowed[name] = {*allowed} if given.strip() == 'everything above' else {*re.findall(r'\w+', given)}
    return allowed


def imports(file: Path) -> Iterator[str]:
    """The modules of vpetl_mm that a file imports, dotted, wherever in the file."""
    package = file.relative_to(REPO).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *([node.module] if node.module else [])])
            yield from (f'{module}.{alias.name}' for alias in node.names)


def package_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix('').parts[0]


FILES = [f for f in PACKAGE.rglob('*.py') if f.parent != PACKAGE or f.name != '__init__.py']


def test_the_table_has_every_package_in_order():
    allowed = table()
    assert {*allowed} == {package_of(f) for f in FILES}
    order = list(allowed)
    for name, below in allowed.items():
        assert below <= {*order[: order.index(name)]}, f'{name} may import what stands below it'


def test_imports_run_downward_only():
    allowed = table()
    for file in FILES:
        ours = {m.split('.')[1] for m in imports(file) if m.startswith('vpetl_mm.')} - {package_of(file)}
        wrong = ours - allowed[package_of(file)]
        assert not wrong, f'{file.relative_to(REPO)} imports {wrong}'


def test_nothing_in_petl_or_models_knows_of_fast():
    for folder in ('petl', 'models'):
        for file in (PACKAGE / folder).glob('*.py'):
            assert not any('fast' in module.split('.') for module in imports(file)), file


WITHOUT = """\
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmengine', 'mmcv', 'mmaction', 'mmpretrain'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
"""


def test_petl_needs_torch_alone():
    """In a process that finds no OpenMMLab: a delta on a plain linear layer trains."""
    program = WITHOUT + (
        'import vpetl_mm, torch\n'
        'from vpetl_mm.petl import PATT\n'
        'from vpetl_mm.petl.host import attach\n'
        'qkv = torch.nn.Linear(4, 12).requires_grad_(False)\n'
        'x = torch.randn(2, 3, 4)\n'
        'y = qkv(x)\n'
        "attach(qkv, 'patt', PATT(4, d_bottle=2))\n"
        'changed = (qkv(x) - y).abs().amax((0, 1)) > 0\n'
        'assert changed.tolist() == 4 * [False] + 8 * [True], changed\n'
        'qkv(x).sum().backward()\n'
        'assert qkv.weight.grad is None and qkv.deltas.patt.up.weight.grad.any()\n'
        "assert not {'mmengine', 'mmcv', 'mmaction', 'mmpretrain'} & {*sys.modules}\n"
        'try:\n    from vpetl_mm import build_model\n'
        'except ImportError as error:\n'
        "    assert 'not installed: mmengine, mmcv, mmaction, mmpretrain' in str(error)\n"
        'else:\n    raise AssertionError\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_is_adapted_trained_saved_and_merged_without_openmmlab(tmp_path):
    """The code of docs/hosts.md for plain PyTorch, on a small model."""
    program = WITHOUT + (
        'import timm, torch\n'
        'from torch.nn.functional import cross_entropy\n'
        'from vpetl_mm.petl import adapt\n'
        'from vpetl_mm.spt.plain import allocate, sensitivity\n'
        'from vpetl_mm.use.plain import adapt_from, save\n'
        'def vit():\n'
        '    torch.manual_seed(0)\n'
        '    sizes = dict(depth=2, embed_dim=24, num_heads=2, img_size=32, patch_size=8, num_classes=3)\n'
        "    return timm.create_model('vit_base_patch16_dinov3.lvd1689m', **sizes)\n"
        'x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])\n'
        'model = vit()\n'
        "deltas = dict(patt=dict(type='PATT', d_bottle=8), adapter=dict(type='AdaptMLP'))\n"
        "plan = adapt(model, deltas, train=['head'])\n"
        'optimizer = torch.optim.AdamW(plan.parameters(), lr=0.01)\n'
        'losses = []\n'
        'for _ in range(20):\n'
        '    losses.append(cross_entropy(model(x), y))\n'
        '    optimizer.zero_grad()\n'
        '    losses[-1].backward()\n'
        '    optimizer.step()\n'
        'assert losses[-1] < 0.5 * losses[0], losses\n'
        "save(plan, 'mine.safetensors', classes=['a', 'b', 'c'])\n"
        'again = vit()\n'
        "adapt_from(again, 'mine.safetensors')\n"
        'assert torch.equal(again.eval()(x), model.eval()(x))\n'
        'other = vit().eval()\n'
        'found = sensitivity(other, [(x, y)], lambda model, batch: cross_entropy(model(batch[0]), batch[1]))\n'
        "plan = adapt(other, spt=allocate(other, found, budget='2k', rank=2))\n"
        'before = other(x)\n'
        'assert (plan.merge()(x) - before).abs().max() < 1e-5\n'
        "assert not {'mmengine', 'mmcv', 'mmaction', 'mmpretrain'} & {*sys.modules}\n"
    )
    env = dict(os.environ, PYTHONPATH=str(REPO))
    options = dict(cwd=tmp_path, capture_output=True, text=True, env=env)
    done = subprocess.run([sys.executable, '-c', program], check=False, **options)
    assert done.returncode == 0, done.stderr


def test_petl_imports_torch_alone():
    found = {m.partition('.')[0] for file in (PACKAGE / 'petl').rglob('*.py') for m in imports(file)}
    assert found - {*sys.stdlib_module_names} == {'torch', 'vpetl_mm'}


def test_no_two_files_of_tests_share_a_name():
    """pytest imports each by its name alone."""
    names = sorted(f.name for f in (REPO / 'tests').rglob('*.py') if f.name != 'conftest.py')
    assert names == sorted({*names})


def test_every_import_can_be_read():
    """None by a name in a string, of the package as a whole, or of the command lines above it."""
    for file in PACKAGE.rglob('*.py'):
        named = {*imports(file)}
        assert not {'vpetl_mm', 'tools'} & named, file
        assert not any(m.startswith('tools.') for m in named), file
        assert not re.search(r'(import_module|__import__)\(', file.read_text(encoding='utf-8')), file
