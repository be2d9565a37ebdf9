"""report.html of real runs and of large ones, as a person and a browser see it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine import Config
from playwright.sync_api import sync_playwright
from synthetic import leave_test, many

from tools import REPO, call
from vpetl_mm.datasets.demo_clips import make_demo_clips
from vpetl_mm.engine.record import read_record
from vpetl_mm.engine.run_folder import remove_run
from vpetl_mm.use.report.page import leave_report, write_report
from vpetl_mm.use.report.strips import arrays_of, strip_of

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
HOSTILE = '<script>document.title="owned"</script>'
NAMES = [
    HOSTILE,
    '{{ 7 * 7 }}',
    '"><img src=http://127.0.0.1/x>',
    '$\\frac{',
    '\x1b[2J\u202eevil',
    'x' * 5000,
    'é',
    '跑步',
]
CONFIG = f"""\
_base_ = '{REPO}/configs/demo_fc.py'
_data = dict(data_prefix=dict(video='clips'), metainfo=dict(classes='names.txt'))
train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(ann_file='clips/target_train.txt', **_data))
val_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(ann_file='clips/target_train.txt', **_data))
test_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(ann_file='clips/test.txt', **_data))
model = dict(
    base=None, backbone=dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2])), cls_head=dict(in_channels=16))
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
holdout = dict(fraction=0.25)
train_cfg = dict(max_epochs=2)
"""


@pytest.fixture(scope='module')
def tested(tmp_path_factory) -> SimpleNamespace:
    """A run of a few clips whose classes and files have hostile names, trained and tested by the tools."""
    folder = tmp_path_factory.mktemp('tested')
    make_demo_clips(folder / 'clips', dict(target_train=16, target_test=9), progress=False)
    lines = []
    for number, line in enumerate((folder / 'clips/target_test.txt').read_text().splitlines()):
        path, label = line.rsplit(' ', 1)
        hostile = Path(path).with_name(f'{number} <script>alert(1)<b> "\'&.mp4')
        (folder / 'clips' / path).rename(folder / 'clips' / hostile)
        lines.append(f'{hostile} {label}\n')
    (folder / 'clips/test.txt').write_text(''.join(lines))
    (folder / 'clips' / lines[0].rsplit(' ', 1)[0]).write_bytes(b'cut short')
    (folder / 'names.txt').write_text('\n'.join(NAMES), encoding='utf-8')
    (folder / 'small.py').write_text(CONFIG)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert call('train', 'small.py') == 0
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr('builtins.print', lambda *words, **_: printed.append(' '.join(map(str, words))))
            status = call('test', 'small.py', 'work_dirs/small/adapter_epoch_2.pth')
    finally:
        os.chdir(before)
    return SimpleNamespace(folder=folder, run=folder / 'work_dirs/small', printed=printed, status=status)


def test_a_test_writes_its_report_and_says_where(tested):
    assert tested.status == 0 and 'report: work_dirs/small/report.html' in tested.printed
    text, record = (tested.run / 'report.html').read_text('utf-8'), read_record(tested.run / 'result.json')
    assert record.by == {'head': 8 * 16 + 8} == {'head': record.params}
    assert f'{record.top1:.1f} <small>%' in text and 'head</th>' in text and '1 of 9 could not be read' in text
    assert len(re.findall('src="data:image/jpeg', text)) == 6 * min(text.count('but it is'), 12) > 0
    assert (
        not re.search(r'<script|<img src=http|onerror|\x1b|\u202e|x{200}', text) and '49' not in text.split('<h2')[1]
    )
    assert all(title in text for title in ('Training loss', 'Top-1 on what was held out', 'Learning rate'))
    assert 'PyTorch' in text and 'model.petl.train' in text


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium is installed')
def test_a_browser_shows_the_report_without_a_network_and_without_errors(tested, tmp_path):
    labels, logits = many(2000, 174)
    (tmp_path / 'large').mkdir()
    large = leave_test(tmp_path / 'large', labels, logits)
    pages = tested.run / 'report.html', write_report(large / 'result.json', large / 'predictions.csv')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        for file in pages:
            for width, scheme in ((1280, 'light'), (400, 'dark')):
                page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
                asked, said = [], []
                page.on('request', lambda request, asked=asked: asked.append(request.url))
                page.on('console', lambda message, said=said: said.append(message.text))
                page.on('pageerror', lambda error, said=said: said.append(str(error)))
                page.goto(file.as_uri())
                page.evaluate('document.querySelectorAll("details").forEach(part => part.open = true)')
                assert [url for url in asked if not url.startswith('data:')] == [file.as_uri()] and said == []
                assert page.evaluate('document.documentElement.scrollWidth') <= width, file
                record = read_record(file.with_name('result.json'))
                assert page.title() == f'{record.config}: {record.top1:.1f} % top-1'
                broken = '[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length'
                assert page.evaluate(broken) == 0 and page.locator('script, iframe, object').count() == 0
                assert page.locator('h1').count() == 1 and page.locator('h2').count() == 8
                ids = page.evaluate('[...document.querySelectorAll("[id]")].map(e => e.id)')
                assert {'classes', 'confusion', 'mistakes', 'calibration'} <= {*ids}
                paper = page.evaluate('getComputedStyle(document.body).backgroundColor')
                assert (sum(map(int, re.findall(r'\d+', paper))) > 384) is (scheme == 'light')
                page.close()
        browser.close()


def test_a_report_of_many_classes_is_small_and_names_each(tmp_path):
    labels, logits = many(3000, 400)
    names = [f'name {c:03}' for c in range(400)]
    run = leave_test(tmp_path / 'run', labels, logits, unreadable=(3, 5))
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    config = run / '20260101_000000/vis_data/config.py'
    dataset = f"dict(dataset=dict(type='RepeatDataset', dataset=dict(metainfo=dict(classes='{tmp_path}/names.txt'))))"
    config.write_text(f'{config.read_text()}test_dataloader = {dataset}\n')
    report = write_report(run / 'result.json', run / 'predictions.csv')
    text = report.read_text('utf-8')
    assert report.stat().st_size < 1_500_000 and all(text.count(name) >= 2 for name in names)
    assert '16 groups' in text and text.count('the file is no longer there') == 12 and '2 of 3,000' in text


def test_a_report_that_cannot_be_drawn_loses_nothing(tmp_path):
    labels, logits = many(40, 4)
    run = leave_test(tmp_path / 'run', labels, logits)
    predictions = run / 'predictions.csv'
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text(''.join(lines[:-1]))
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    said = leave_report(run / 'result.json', predictions)
    assert said.startswith('report: none') and '39 samples' in said and '\n' not in said
    assert {p: p.read_bytes() for p in run.rglob('*') if p.is_file()} == before
    assert 'other scores' in leave_report(run / 'result_other.json', predictions)
    predictions.write_text(''.join(lines))
    assert leave_report(run / 'result.json', predictions) == f'report: {run}/report.html'
    remove_run(run)
    assert not (run / 'report.html').exists() and not (run / 'result.json').exists()


def test_images_are_shown_from_their_files_and_out_of_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    labels, arrays = np.array([0, 1, 1]), tmp_path / 'a.npz'
    np.savez(arrays, test_images=images, test_labels=labels, classes=['a', 'b'])
    dataset = dict(type='ImageArrays', ann_file=str(arrays), split='test', pipeline=[dict(type='PackInputs')])
    read = arrays_of(Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dataset))))
    np.testing.assert_array_equal(read(2, 1), images[2])
    assert strip_of('', 2, 1, {}, read).pictures[0][0].startswith('data:image/jpeg;base64,')
    assert 'changed' in strip_of('', 2, 0, {}, read).why and 'array' in strip_of('', 2, 1, {}, None).why
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG broken')
    os.mkfifo(tmp_path / 'pipe.mp4')  # reading it would never end
    for name, why in (('broken.png', 'cannot be read'), ('pipe.mp4', 'no longer'), ('gone\0.mp4', 'no longer')):
        assert why in strip_of(str(tmp_path / name), 0, 0, {}, None).why
