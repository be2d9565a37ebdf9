"""Weights on the Hugging Face Hub: fetched by huggingface_hub, and the same ones every time."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.logging import print_log

from ..errors import UserError, reason, tellable
from ..files import from_json
from .license import CARD, CONFIG, license_beside
from .shards import SUFFIX, parts_of, shards_of, weights_sha256

# what may be fetched, the first that a repository has; a pickle is read as every pickle here is, without its code
FILES = ('model.safetensors', f'model{SUFFIX}', 'pytorch_model.bin')
REPO = re.compile(r'(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}', re.ASCII)
REVISION = re.compile(r'[A-Za-z0-9][\w.-]{0,99}(?:/[A-Za-z0-9][\w.-]{0,99}){0,3}', re.ASCII)
NAME = re.compile(r'(?:[\w-][\w.-]{0,99}/){0,3}[\w-][\w.-]{0,199}\.(?:safetensors|bin|pth|pt|npz)', re.ASCII)
COMMIT, SHA256 = re.compile(r'[0-9a-f]{40}'), re.compile(r'[0-9a-f]{64}')
PINS = Path('data/weights/hub')
SITE = 'https://huggingface.co'


def check_hub(base: Mapping[str, Any]) -> None:
    """Check what a config says of weights on the Hub.

    Args:
        base: ``hub``, and optionally ``revision`` and ``name``.

    Raises:
        UserError: for what is no repository, no revision or no file of weights in one.
    """
    for key, right, what in (
        ('hub', REPO, "a repository such as 'timm/vit_small_patch14_dinov2.lvd142m'"),
        ('revision', REVISION, "a branch, a tag or a commit, such as 'main'"),
        ('name', NAME, "a file of weights in the repository, such as 'model.safetensors'"),
    ):
        value = base.get(key)
        wrong = not isinstance(value, str) or not right.fullmatch(value) or '..' in value or '--' in value
        if (value is not None or key == 'hub') and wrong:
            raise UserError(f'model.base.{key} is {tellable(repr(value))[:80]}, and must be {what}.')


def located(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a base with its file at hand, fetched if it is on the Hub and not in the cache.

    Args:
        base: of a model's config, checked.

    Returns:
        ``base``; one of a repository with ``file``, ``commit``, ``name`` and, where its card names one, ``license``.

    Raises:
        UserError: when it cannot be fetched, with what to do; and when it is not what this machine got before.
    """
    if not base.get('hub') or 'commit' in base:
        return dict(base)
    repo, revision = base['hub'], base.get('revision') or 'main'
    names = FILES if base.get('name') is None else (base['name'],)
    file, is_online = _fetched(repo, names, revision)
    commit, name, sha256 = _commit_of(file), _name_of(file), _whole(file)
    license = base.get('license') or _license(repo, commit, file, is_online)
    _check_pin(dict(hub=repo, revision=revision, name=name, commit=commit, sha256=sha256))
    print_log(f'model.base: {repo} at {commit}, SHA-256 {sha256}, license {license or "unknown"}.', 'current')
    return dict(base, file=str(file), commit=commit, name=name, **(dict(license=license) if license else {}))


def url_of(base: Mapping[str, Any]) -> str | None:
    """Return the address of the file of a base that was fetched; its own ``url`` where it is not from the Hub."""
    if not base.get('hub') or not base.get('commit'):
        return base.get('url')
    return f'{SITE}/{base["hub"]}/resolve/{base["commit"]}/{base.get("name")}'


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError('model.base.hub needs huggingface_hub: pip install vpetl_mm[hf]') from error
    return huggingface_hub


def _fetched(repo: str, names: Sequence[str], revision: str) -> tuple[Path, bool]:
    """Return the first file of ``names`` that there is, all its parts fetched, and whether the Hub was reached."""
    is_online = True
    for name in names:
        file, is_online = _one(repo, name, revision, is_online)
        if file is None:
            continue
        for part in sorted({*_listed(repo, file)}) if name.endswith(SUFFIX) else ():
            if _one(repo, part, _commit_of(file), is_online)[0] is None:
                raise UserError(f'model.base.hub: {part}, which {name} of {repo} lists, is not there.')
        return file, is_online
    if is_online:
        raise UserError(
            f'model.base.hub: {repo} has no {" or ".join(names)} at {revision}; name its file in model.base.name.'
        )
    raise UserError(
        f'model.base.hub: {repo} is not in the cache and the Hub cannot be reached from here: where there is a '
        f'network, run "hf download {repo} {names[0]} {CARD} --revision {revision} --local-dir FOLDER", bring the '
        f'folder, and set model.base=dict(file="FOLDER/{names[0]}").'
    )


def _one(repo: str, name: str, revision: str, is_online: bool) -> tuple[Path | None, bool]:
    """Return one file in the cache, None where there is none, and whether the Hub was reached."""
    hub = _library()
    try:
        is_online = is_online and _is_reached(repo, name, revision)
        file = hub.hf_hub_download(repo, name, revision=revision, local_files_only=not is_online)
    except hub.errors.GatedRepoError as error:
        raise UserError(
            f'model.base.hub: {repo} is gated: accept its terms on {SITE}/{repo}, then log in with "hf auth login".'
        ) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise UserError(
            f'model.base.hub: there is no repository {repo}, or it is private and needs "hf auth login".'
        ) from error
    except hub.errors.RevisionNotFoundError as error:
        raise UserError(f'model.base.revision: {repo} has no {revision}.') from error
    except hub.errors.EntryNotFoundError:
        return None, is_online
    except (OSError, ValueError, RuntimeError, hub.errors.HTTPError) as error:
        raise UserError(f'model.base.hub: {name} of {repo} cannot be fetched ({reason(error, 120)}).') from error
    return Path(file), is_online


def _is_reached(repo: str, name: str, revision: str) -> bool:
    """Ask the Hub about a file, once; huggingface_hub's errors about the file itself pass."""
    hub = _library()
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, revision=revision))
    except (hub.errors.HfHubHTTPError, hub.errors.EntryNotFoundError) as error:
        if getattr(getattr(error, 'response', None), 'status_code', 500) >= 500:  # out of order
            return False
        raise
    except (OSError, hub.errors.HTTPError, hub.errors.OfflineModeIsEnabled):
        return False
    return True


def _listed(repo: str, index: Path) -> list[str]:
    try:
        return [*shards_of(index).values()]
    except UserError as error:
        raise UserError(f'model.base.hub: {index.name} of {repo} cannot be used: {error}') from error


def _commit_of(file: Path) -> str:
    """Return the commit that a file in the cache is of: its folder there is called so."""
    return file.parts[_at(file)]


def _name_of(file: Path) -> str:
    """Return a file's name in its repository."""
    return '/'.join(file.parts[_at(file) + 1 :])


def _at(file: Path) -> int:
    return max(i for i, part in enumerate(file.parts) if COMMIT.fullmatch(part))


def _license(repo: str, commit: str, file: Path, is_online: bool) -> str | None:
    """Return the license that the repository's card names, or its config; None where it is unknown."""
    for name in (CARD, CONFIG) if license_beside(file) is None else ():
        try:
            _one(repo, name, commit, is_online)
        except UserError:
            continue
        if license_beside(file):
            break
    return license_beside(file)


def _whole(file: Path) -> str:
    """Return the SHA-256 of a file in the cache, all of whose parts are those that the Hub has."""
    for part in parts_of(file):
        blob = part.resolve().name  # named after the SHA-256 that the Hub says, where it keeps it so
        if SHA256.fullmatch(blob) and weights_sha256(part) != blob:
            raise UserError(f'model.base.hub: {part} is not whole: delete {part.resolve()} and fetch it again.')
    return weights_sha256(file)


def _check_pin(now: Mapping[str, str]) -> None:
    """Refuse weights other than those that this machine got under the same names before; note them the first time."""
    pin = PINS / f'{now["hub"]}@{now["revision"]}@{now["name"]}.json'.replace('/', '--')
    before = _read_pin(pin)
    if before is None:
        _write_pin(pin, now)
    elif before.get('sha256') != now['sha256']:
        sha256, commit = (tellable(before.get(name))[:64] for name in ('sha256', 'commit'))
        raise UserError(
            f'model.base.hub: {now["hub"]} at {now["revision"]} is not what it was: {now["name"]} had the SHA-256 '
            f'{sha256} and has {now["sha256"]}; set model.base.revision={commit!r} for the weights of before, or '
            f'delete {pin} to take the new ones.'
        )


def _read_pin(pin: Path) -> dict[str, Any] | None:
    try:
        found = from_json(pin.read_bytes()) if pin.is_file() else None
    except (OSError, ValueError) as error:
        raise UserError(f'{pin} cannot be read ({reason(error, 80)}): delete it.') from error
    if found is not None and not isinstance(found, dict):
        raise UserError(f'{pin} is no record of fetched weights: delete it.')
    return found


def _write_pin(pin: Path, content: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all, also where several processes do it at once."""
    try:
        pin.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile('w', dir=pin.parent, delete=False) as stream:
            json.dump(content, stream, indent=1)
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, pin)
    except OSError as error:
        raise UserError(f'{pin} cannot be written: {error.strerror or error}.') from error
