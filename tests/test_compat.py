"""What is mended in the host libraries, and that it changes nothing else."""

from __future__ import annotations

from mmengine import Config
from yapf.yapflib.yapf_api import FormatCode

from vpetl_mm import compat


def test_a_config_is_formatted_as_before_and_once(monkeypatch):
    from mmengine.config import config

    calls = []

    def counted(text, **options):
        calls.append(text)
        return FormatCode(text, **options)

    monkeypatch.setattr(config, 'FormatCode', FormatCode)
    one, other = Config(dict(a=1, b=dict(c=[1, 2, 3]))), Config(dict(a=2))
    expected = [one.pretty_text, other.pretty_text]
    monkeypatch.setattr(config, 'FormatCode', counted)
    compat.format_configs_once()
    assert [one.pretty_text, one.pretty_text, one.dump(), other.pretty_text] == [expected[0]] * 3 + expected[1:]
    assert len(calls) == 2
