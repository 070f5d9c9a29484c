"""A Hugging Face Hub on this machine, of one repository: to make it, upload, list and delete.

It answers the calls that ``huggingface_hub`` makes, and keeps files by name, small ones from the
commit itself and large ones by Git LFS, as the real one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "1" * 40


@dataclass
class Hub:
    """What a Hub has been given, and the repository that it says it does not have."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lacks: str = "nobody/nothing"


@contextmanager
def local_hub(token: str) -> Iterator[Hub]:
    """A Hub at a free port of this machine that lets in whoever has the token."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, content: Any, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            path, _, _ = self.path.partition("?")
            if f"/{hub.lacks}/" in f"{path}/":
                self._absent("RepoNotFound")
            elif "/tree/" in path:
                self._tree(path.partition("/tree/")[2].partition("/")[2])
            elif not self._known() and re.fullmatch(r"/api/\w+/[^/]+/[^/]+", path):
                self._answer({"error": "who are you?"}, 401)
            elif "/revision/" in path or re.fullmatch(r"/api/\w+/[^/]+/[^/]+", path):
                named = [{"rfilename": name} for name in hub.files]
                self._answer({"id": "lab/model", "sha": COMMIT, "siblings": named})
            else:
                self._file(path)

        def do_HEAD(self) -> None:
            self._file(self.path)

        def _known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {token}"

        def _tree(self, folder: str) -> None:
            """All files below a folder."""
            inside = f"{unquote(folder)}/" if folder else ""
            found = [self._entry(name) for name in sorted(hub.files) if name.startswith(inside)]
            if found or not folder:
                self._answer(found)
            else:
                self._absent("EntryNotFound")

        def _entry(self, name: str) -> dict[str, Any]:
            content = hub.files[name]
            digest = hashlib.sha1(content).hexdigest()  # noqa: S324 - as git has it
            return {"type": "file", "path": name, "size": len(content), "oid": digest}

        def _absent(self, what: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", what)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _file(self, path: str) -> None:
            """A file of the only repository, at ``/org/name/resolve/revision/file``."""
            name = unquote(path.partition("/resolve/")[2].partition("/")[2])
            if name not in hub.files:
                self._absent("EntryNotFound")
                return
            content = hub.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_PUT(self) -> None:
            digest, body = self.path.rpartition("/")[2], self._body()
            assert hashlib.sha256(body).hexdigest() == digest
            hub.stored[digest] = body
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            if not self._known():
                self._answer({"error": "who are you?"}, 401)
            elif self.path == "/api/repos/create":
                said = json.loads(body)
                name = "/".join(filter(None, (said.get("organization"), said["name"])))
                hub.private[name] = said.get("visibility") == "private"
                self._answer({"url": f"{hub.url}/{name}"})
            elif self.path.startswith("/api/validate-yaml"):
                self._answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                named = [file["path"] for file in json.loads(body)["files"]]
                self._answer({"files": [self._mode(name) for name in named]})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [self._action(item) for item in json.loads(body)["objects"]]
                self._answer({"transfer": "basic", "objects": objects})
            elif "/paths-info/" in self.path:
                named = parse_qs(body.decode())["paths"]
                self._answer([self._entry(name) for name in named if name in hub.files])
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    self._take(json.loads(line))
                kind, _, repo = (
                    self.path.removeprefix("/api/").partition("/commit/")[0].partition("/")
                )
                kind = "" if kind == "models" else f"{kind}/"
                address = f"{hub.url}/{kind}{repo}/commit/{COMMIT}"
                self._answer({"success": True, "commitOid": COMMIT, "commitUrl": address})
            else:
                self._answer({"error": "not found"}, 404)

        def _mode(self, name: str) -> dict[str, Any]:
            mode = "lfs" if name.endswith(".safetensors") else "regular"
            return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}

        def _action(self, item: dict[str, Any]) -> dict[str, Any]:
            href = f"{hub.url}/store/{item['oid']}"
            return {**item, "actions": {"upload": {"href": href, "header": {}}}}

        def _take(self, line: dict[str, Any]) -> None:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[value["path"]] = hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                hub.files.pop(value["path"], None)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
