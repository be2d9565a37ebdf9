"""A grid's runs of SPT: what is to be tuned is found first, and once."""

from __future__ import annotations

from pathlib import Path

import tools
from vpetl_mm.commands.grid import NEW, RESUME, TEST, plan

REPO = Path(__file__).parents[2]
CONFIGS = REPO / 'configs'
SPT, LORA = 'vit_sptlora_vtabkitti_in21k', 'vit_lora_vtabkitti_r8_in21k'
SPT_FILE = 'model.petl.spt.file'


def test_a_run_of_spt_begins_with_its_sensitivity(tmp_path):
    (run,) = plan([SPT], CONFIGS, tmp_path)
    file = tmp_path / SPT / 'seed_0' / 'spt.safetensors'
    first, train, test = run.commands
    assert run.state == NEW and first[1:] == (
        *(str(REPO / 'tools/sensitivity.py'), str(CONFIGS / f'vtab1k/{SPT}.py'), '--out', str(file)),
        *('--cfg-options', 'randomness.seed=0'),
    )
    assert all(f'{SPT_FILE}={file}' in c and 'randomness.seed=0' in c for c in (train, test))
    args = tools.tool('sensitivity').parser.parse_args(list(first[2:]))
    assert (args.out, args.cfg_options, args.budget) == (str(file), ['randomness.seed=0'], None)
    (other,) = plan([LORA], CONFIGS, tmp_path)
    assert len(other.commands) == 2 and SPT_FILE not in str(other.commands)


def test_a_sensitivity_that_is_there_is_kept(tmp_path):
    folder = tmp_path / SPT / 'seed_1'
    folder.mkdir(parents=True)
    (folder / 'spt.safetensors').write_text('')
    (folder / 'epoch_3.pth').write_text('')
    first, second = plan([SPT], CONFIGS, tmp_path, seeds=2)
    assert len(first.commands) == 3 and second.state == RESUME and len(second.commands) == 2
    (folder / 'adapter_epoch_100.pth').write_text('')
    assert plan([SPT], CONFIGS, tmp_path, seeds=2)[1].state == TEST
