"""A local Hugging Face Hub server with the part of the protocol needed to save and load models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_secret"


class Repository:
    """Files by commit, and the commit of each branch."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.gated: bool | str = False
        self.card: dict[str, Any] | None = None
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.commit("main", {})

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        """Add files to a branch; returns the name of the new commit."""
        whole = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        text = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in whole.items()}) + str(
            len(self.commits)
        )
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.refs[ref] = whole, sha
        return sha


class Hub(ThreadingHTTPServer):
    """The server; ``address`` is the value of HF_ENDPOINT.

    Attributes:
        repositories: name -> repository.
        broken: names of files of which the next download breaks off half-way.
        flipped: names of files of which the next download has a wrong byte.
        dropping: whether connections are taken and dropped.
        requests_seen: method and path of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.flipped: set[str] = set()
        self.dropping = False
        self.requests_seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """Responses of the Hub."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Disable logging."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0])
        self.server.requests_seen.append(f"{self.command} {path}")
        if self.server.dropping:
            self.close_connection = True
            return None
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.startswith("/upload/"):
            self.server.uploads[path.rpartition("/")[2]] = body
            return self._json({})
        for pattern, action in (
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
            (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._lfs),
            (r"/([^/]+/[^/]+)/resolve/(.+)", self._resolve),
        ):
            if match := re.fullmatch(pattern, path):
                name, *rest = match.groups()
                repository = self.server.repositories.get(name)
                if repository is None or (repository.private and not self._authorized()):
                    # the Hub gives unauthenticated users the same answer in both cases
                    status = 404 if self._authorized() else 401
                    return self._error(status, "RepoNotFound", "Repository not found")
                return action(name, repository, body, *rest)
        return self._error(404, "NotFound", path)

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        self._json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def _create(self, options: dict[str, Any]) -> None:
        if not self._authorized():
            return self._error(401, "Unauthorized", "Invalid username or password.")
        name = f"{options['organization']}/{options['name']}" if options.get("organization") else options["name"]
        if name in self.server.repositories:
            return self._json(
                {"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}, 409
            )
        private = options.get("visibility") == "private" or bool(options.get("private"))
        self.server.repositories[name] = Repository(private)
        return self._json({"url": f"{self.server.address}/{name}", "name": name})

    def _sha(self, repository: Repository, revision: str | None) -> str | None:
        revision = revision or "main"
        return repository.refs.get(revision) or (revision if revision in repository.commits else None)

    def _info(self, name: str, repository: Repository, _: bytes, revision: str | None) -> None:
        sha = self._sha(repository, revision)
        if sha is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [{"rfilename": file} for file in repository.commits[sha]]
        about = {"id": name, "modelId": name, "sha": sha, "private": repository.private, "siblings": siblings}
        return self._json(about | {"gated": repository.gated, "cardData": repository.card})

    def _tree(self, _: str, repository: Repository, __: bytes, revision: str) -> None:
        files = repository.commits[self._sha(repository, revision.partition("/")[0]) or ""]
        entries = []
        for file, data in files.items():
            entry = {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            if file.endswith(".safetensors"):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _preupload(self, _: str, __: Repository, body: bytes, ___: str) -> None:
        if not self._authorized():
            return self._error(403, "Forbidden", "No write access")
        files = json.loads(body)["files"]
        modes = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in files
        ]
        return self._json({"files": modes})

    def _lfs(self, _: str, __: Repository, body: bytes) -> None:
        objects = [
            {
                "oid": o["oid"],
                "size": o["size"],
                "actions": {"upload": {"href": f"{self.server.address}/upload/{o['oid']}"}},
            }
            for o in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, body: bytes, revision: str) -> None:
        if not self._authorized():
            return self._error(403, "Forbidden", "No write access")
        if revision not in repository.refs:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.server.uploads[entry["value"]["oid"]]
        sha = repository.commit(revision, files)
        return self._json(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.server.address}/{name}/commit/{sha}",
                "hookOutput": "",
            }
        )

    def _resolve(self, _: str, repository: Repository, __: bytes, rest: str) -> None:
        revision, _, file = rest.partition("/")
        sha = self._sha(repository, revision)
        if sha is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repository.commits[sha].get(file)
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        start = int(re.sub(r"\D", "", (self.headers.get("Range") or "0").partition("-")[0]) or 0)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", sha)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if file in self.server.flipped:
            self.server.flipped.remove(file)
            data = data[:-1] + bytes([data[-1] ^ 1])
        if file in self.server.broken:
            self.wfile.write(data[start : len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return None
        self.wfile.write(data[start:])
        return None
