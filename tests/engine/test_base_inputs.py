"""A run whose inputs are normalised otherwise than its base's says so, once, at its start."""

from __future__ import annotations

from vpetl_mm.commands.conversion import convert
from vpetl_mm.engine import experiment
from vpetl_mm.engine.experiment import Options, prepare, train


def test_train_and_test_say_it_in_one_line(clips, config, tmp_path, capsys):
    convert(str(clips / 'base.pth'), str(tmp_path / 'base.safetensors'), kind='mmaction_swin')
    other = {
        'model.base.file': str(tmp_path / 'base.safetensors'),
        'model.data_preprocessor.mean': [0, 0, 0],
        'train_cfg.max_epochs': 1,
        'train_dataloader.num_workers': 0,
        'test_dataloader.num_workers': 0,
    }
    run = Options(str(tmp_path / 'run'), cfg_options=other)
    for start in (
        lambda: train(prepare(config, run)),
        lambda: experiment.test(prepare(config, run), tmp_path / 'run/adapter_epoch_1.pth'),
    ):
        capsys.readouterr()
        start()
        said = capsys.readouterr()
        lines = [line for line in (said.out + said.err).splitlines() if 'data_preprocessor' in line]
        assert len(lines) == 1 and '123.675' in lines[0] and '[0.0, 0.0, 0.0]' in lines[0]
