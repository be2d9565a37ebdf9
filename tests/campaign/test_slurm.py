"""A campaign on a real Slurm: requeued, cancelled, a lost node, two drivers, and what is refused."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from counted import counted, done_steps
from slurm_cluster import Cluster, running_slurm, wait_for, why_not

from vpetl_mm.campaign.attempt import read_attempt
from vpetl_mm.campaign.cluster import cluster_jobs, hours_of
from vpetl_mm.campaign.driver import AGAIN, DONE, FAILED, STARTED, drive
from vpetl_mm.campaign.slurm import SlurmEngine, read_id
from vpetl_mm.errors import UserError

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
QUICK = dict(gpus=0, hours=0.1, pause=0.3)
STEPS = 30  # 6 seconds, more than it takes to disturb a job


@pytest.fixture(scope='module')
def slurm() -> Iterator[Cluster]:
    with running_slurm() as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(Path(__file__).parent))  # where the jobs find their work
        # as if the driver itself ran inside of a job; srun takes one of the two at most
        patch.setenv('SLURM_MEM_PER_CPU', '100')
        patch.setenv('SLURM_MEM_PER_NODE', '200')
        yield cluster


class Campaign:
    """Jobs, two at a time; what befalls them, and what the driver said of each."""

    def __init__(self, slurm: Cluster, root: Path) -> None:
        self.slurm, self.root = slurm, root
        self.jobs = [
            counted(root, 'requeued', STEPS, 0.2),
            counted(root, 'lost', STEPS, 0.2, fail='the loss is nan'),
            counted(root, 'cancelled'),
        ]
        self.engine = SlurmEngine(root, max_parallel=2, **QUICK)
        self.said: dict[str, list[str]] = {}
        self.trouble: list[Exception] = []

    def run(self) -> None:
        meddling = threading.Thread(target=self._meddle)
        meddling.start()
        for event in drive(self.jobs, self.engine, 0.1):
            self.said.setdefault(event.job.name, []).append(event.what + f': {event.reason}' * bool(event.reason))
        meddling.join()
        if self.trouble:
            raise self.trouble[0]

    def _meddle(self) -> None:
        try:
            self._second_driver()
            requeued, lost, cancelled = self.jobs
            wait_for(lambda: len(done_steps(requeued.folder)) > 2 and len(done_steps(lost.folder)) > 2)
            self.running = {i for i, j in cluster_jobs(self.engine.name).items() if j.state == 'RUNNING'}
            self.slurm.ask('scancel', read_id(cancelled.folder))
            self.slurm.ask('scontrol', 'requeue', read_id(requeued.folder))
            wait_for(lambda: cluster_jobs(self.engine.name)[read_id(requeued.folder)].state == 'PENDING')
            self.slurm.kill_node()
            wait_for(lambda: self.slurm.ask('sinfo', '--noheader', '--format=%t').startswith('down'))
            self.slurm.start_node()
        except Exception as error:  # the test shows it, as a thread would not
            self.trouble.append(error)

    def _second_driver(self) -> None:
        wait_for(lambda: all(read_id(job.folder) for job in self.jobs))
        self.before = set(cluster_jobs(self.engine.name))
        second = SlurmEngine(self.root, max_parallel=2, **QUICK)
        self.taken = second.start(self.jobs)
        self.after = set(cluster_jobs(self.engine.name))
        self.left = second.stop()


@pytest.fixture(scope='module')
def campaign(slurm, tmp_path_factory) -> Campaign:
    campaign = Campaign(slurm, tmp_path_factory.mktemp('grid'))
    campaign.run()
    return campaign


def test_a_job_that_is_requeued_or_loses_its_node_goes_on_and_no_step_is_done_twice(campaign):
    for job in campaign.jobs[:2]:
        assert done_steps(job.folder) == [str(step) for step in range(STEPS)]
        assert (job.folder / 'attempts').read_text() == '..'
        assert 'Restarts=1 ' in campaign.slurm.ask('scontrol', 'show', 'job', read_id(job.folder))
    assert campaign.said['requeued'] == [STARTED, DONE]


def test_no_more_jobs_run_than_may(campaign):
    assert campaign.running == {read_id(job.folder) for job in campaign.jobs[:2]}


def test_what_fails_or_is_cancelled_says_why_and_is_not_tried_again(campaign):
    cancelled = campaign.jobs[2]
    assert campaign.said['lost'] == [STARTED, f'{FAILED}: the loss is nan']
    why = f'its Slurm job {read_id(cancelled.folder)} was cancelled'
    assert campaign.said['cancelled'] == [STARTED, f'{FAILED}: {why}']
    assert read_attempt(cancelled.folder).reason == why and not (cancelled.folder / 'attempts').exists()


def test_a_second_driver_takes_up_what_is_queued_and_submits_nothing(campaign):
    assert campaign.taken == campaign.jobs and campaign.before == campaign.after and len(campaign.before) == 3
    array = read_id(campaign.jobs[0].folder).partition('_')[0]
    assert campaign.left == (
        f'3 jobs go on in Slurm: the same command takes them up again, and "scancel {array}" cancels them.'
    )


def test_the_job_that_a_folder_names_must_be_one_of_the_campaign(slurm, tmp_path, monkeypatch):
    """The note names a job of somebody else, or is no note: the job is submitted all the same."""
    other = slurm.ask('sbatch', '--parsable', '--hold', '--output=/dev/null', '--wrap=true')
    jobs = [counted(tmp_path, name) for name in ('one', 'two', 'three')]
    for job, note in zip(jobs, (f'{{"job": "{other}"}}', '{"job": "1; rm -rf ~"}', '['), strict=True):
        job.folder.mkdir()
        (job.folder / 'slurm.json').write_text(note)
    monkeypatch.setenv('SBATCH_PARTITION', 'short')  # sbatch would put it above what its script says
    engine = SlurmEngine(tmp_path, partition='main', max_parallel=1, **QUICK)
    assert engine.start(jobs) == jobs
    assert set(slurm.ask('squeue', '--noheader', '--array', '--format=%P', f'--name={engine.name}').split()) == {
        'main'
    }
    assert sorted(read_id(job.folder) for job in jobs) == sorted(cluster_jobs(engine.name))
    assert engine.start([counted(tmp_path, 'four')]) == [], 'there is no room for it'
    slurm.ask('scancel', *cluster_jobs(engine.name))


def test_a_job_that_slurm_cannot_launch_does_not_wait_for_ever(slurm, tmp_path):
    """Its node is broken: Slurm puts the job back and holds it, until somebody releases it."""
    conf, kept = slurm.folder / 'slurm.conf', (slurm.folder / 'slurm.conf').read_text()
    conf.write_text(f'{kept}Prolog=/bin/false\n')
    slurm.ask('scontrol', 'reconfigure')
    engine = SlurmEngine(tmp_path, **QUICK)
    events = drive([counted(tmp_path, 'one')], engine, 0.1)
    try:
        assert [next(events).what for _ in range(2)] == [STARTED, AGAIN]
        held = cluster_jobs(engine.name)
        assert [job.state for job in held.values()] == ['CANCELLED']
    finally:
        events.close()
        conf.write_text(kept)
        slurm.ask('scontrol', 'reconfigure')
        slurm.ask('scontrol', 'update', f'nodename={slurm.ask("sinfo", "--noheader", "--format=%n")}', 'state=resume')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(partition='man'), "no partition 'man', sinfo names main, short. Did you mean 'main'"),
        (dict(gpus=8), 'cannot run a job with .* --gpus-per-node=8.*: Requested node configuration is not available'),
        (dict(partition='short', hours=1.0), 'of 1 hours is more than the 0.167 that its partition allows'),
        (dict(options=dict(array='0-9')), "array='0-9' cannot be an option of sbatch here"),
        (dict(options={'no-such': '1'}), "--no-such=1: sbatch: unrecognized option '--no-such=1'"),
        (dict(gpus=0, cpus=0), 'cannot have 0 GPUs, 0 cores'),
        (dict(max_parallel=0), '--max-parallel must be at least 1, got 0'),
    ],
)
def test_what_the_cluster_could_not_run_is_refused(slurm, tmp_path, options, said):
    with pytest.raises(UserError, match=said) as caught:
        SlurmEngine(tmp_path, **options)
    assert '\n' not in str(caught.value) and not [*tmp_path.iterdir()]


def test_where_slurm_or_submitit_is_missing_it_says_so(slurm, tmp_path, monkeypatch):
    conf = (slurm.folder / 'slurm.conf').read_text()
    silent = slurm.folder / 'silent.conf'
    silent.write_text(re.sub(r'SlurmctldPort=\d+', 'SlurmctldPort=1', conf))
    with monkeypatch.context() as patch:
        patch.setenv('SLURM_CONF', str(silent))
        with pytest.raises(UserError, match='sbatch exists, but no cluster answers'):
            SlurmEngine(tmp_path)
        patch.setenv('PATH', str(tmp_path))
        with pytest.raises(UserError, match=r'There is no sbatch here: .*--engine local'):
            SlurmEngine(tmp_path)
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(UserError, match='needs submitit: pip install submitit'):
        SlurmEngine(tmp_path)


@pytest.mark.parametrize(
    ('limit', 'hours'), [('infinite', None), ('30:00', 0.5), ('12:30:00', 12.5), ('2-06:00:00', 54.0), ('n/a', None)]
)
def test_time_limits_are_read_as_slurm_writes_them(limit, hours):
    assert hours_of(limit) == hours
