"""A small Hugging Face Hub on this machine: what huggingface_hub asks for, answered from folders."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Hub:
    """Repositories: name -> revision -> commit and files; and every request that came."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, tuple[str, dict[str, bytes]]]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    def put(self, repo: str, files: dict[str, bytes], revision: str = 'main') -> str:
        """Commit files to a branch; return the commit."""
        text = ''.join(f'{n} {hashlib.sha256(v).hexdigest()}\n' for n, v in sorted(files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.repos.setdefault(repo, {}).update({revision: (commit, files), commit: (commit, files)})
        return commit

    def found(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Answer ``/<repo>/resolve/<revision>/<file>`` as huggingface.co does."""
        repo, _, rest = path.strip('/').partition('/resolve/')
        revision, _, name = rest.partition('/')
        if repo in self.gated:
            return 403, {'X-Error-Code': 'GatedRepo'}, b''
        if repo not in self.repos:
            return 404, {'X-Error-Code': 'RepoNotFound'}, b''
        if revision not in self.repos[repo]:
            return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
        commit, files = self.repos[repo][revision]
        if name not in files:
            return 404, {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': commit}, b''
        sha = hashlib.sha256(files[name]).hexdigest()
        large = name.endswith(('.safetensors', '.bin'))  # kept by LFS, whose name for it is the SHA-256
        etag = sha if large else hashlib.sha1(files[name]).hexdigest()
        return 200, {'X-Repo-Commit': commit, 'ETag': f'"{etag}"'}, files[name]


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve inside; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            hub.asked.append(f'{self.command} {self.path}')
            status, headers, content = hub.found(self.path)
            self.send_response(status)
            for name, value in {**headers, 'Content-Length': str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()


def pointed_at(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path, offline: bool = False) -> None:
    """Set what HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE set, which huggingface_hub reads when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(
        constants, 'HUGGINGFACE_CO_URL_TEMPLATE', address + '/{repo_id}/resolve/{revision}/{filename}'
    )
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', offline)
