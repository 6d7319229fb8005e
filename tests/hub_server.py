"""A stand-in for the Hub on the loopback interface: enough of its HTTP for models, and for reading data sets.

    with HubServer() as hub:
        subprocess.run([...], env=os.environ | hub.environment(cache_folder))

Repos and LFS objects live in memory and outlive the server, so that a test can let it die and enter it again. A child
process sets the attributes below by posting them to `/control`.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repo:
    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)  # (sha, name -> content), oldest first

    def files(self, revision):
        """The commit that a branch or a sha names: (sha, files); None when there is none."""
        found = [commit for commit in self.commits if revision in ("main", commit[0])]
        return found[-1] if found else None

    def commit(self, files):
        listing = json.dumps([len(self.commits), {name: git_oid(data) for name, data in files.items()}])
        self.commits.append((hashlib.sha1(listing.encode()).hexdigest(), files))
        return self.commits[-1][0]


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubServer:
    """Repos by name, and how the server behaves.

    Attributes:
        lfs: Files with these endings are uploaded by the LFS protocol, others inside the commit.
        die_at: A path; the server stops in the middle of reading the body of a request for it.
        requests: (method, path) of all requests.
        sent: The bytes of the answers, by path.
    """

    def __init__(self):
        self.repos, self.objects, self.requests = {}, {}, []
        self.lfs, self.die_at, self.sent = [], None, Counter()

    def __enter__(self):
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache):
        """Variables for a child process that talks to this server with an empty cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # a server cannot refuse it
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.route(
            (rf"/api/models/{REPO}(?:/revision/(?P<revision>[^/]+))?", self.model_info),
            (rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self.resolve),
            (rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)(?:/.*)?", self.tree),
        )

    do_HEAD = do_GET

    def do_PUT(self):
        self.route((r"/lfs/(?P<oid>\w+)", self.lfs_upload))

    def do_POST(self):
        self.route(
            (r"/control", self.control),
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", lambda: self.answer({"errors": [], "warnings": []})),
            (rf"/api/models/{REPO}/paths-info/(?P<revision>[^/]+)", self.paths_info),
            (rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", self.preupload),
            (rf"/{REPO}\.git/info/lfs/objects/batch", self.lfs_batch),
            (rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", self.commit),
        )

    def route(self, *routes):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0)
        if path == self.hub.die_at:
            self.rfile.read(length // 2 or 1000)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            threading.Thread(target=self.hub.stop, daemon=True).start()
            return
        self.body = self.read_chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else None
        self.body = self.rfile.read(length) if self.body is None else self.body
        path = path.replace("/api/datasets/", "/api/models/", 1).removeprefix("/datasets")  # one room for both kinds
        for pattern, handle in routes:
            if match := re.fullmatch(pattern, path):
                return handle(**match.groupdict())
        self.refuse(404, "there is no such route")

    def read_chunks(self):
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def control(self):
        vars(self.hub).update(json.loads(self.body))
        self.answer({})

    # ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": len(data)} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.hub.sent[unquote(urlsplit(self.path).path)] += len(data)

    def refuse(self, status, message, code=None):
        self.answer({"error": message}, status, X_Error_Message=message, **({"X_Error_Code": code} if code else {}))

    def open(self, repo, write=False):
        """The repo, or None after a refusal. A private repo looks like none to other people; all may only read."""
        found, trusted = self.hub.repos.get(repo), self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not trusted):
            self.refuse(401 if not trusted else 404, "Repository not found", "RepoNotFound")
        elif write and not trusted:
            self.refuse(403, "You may not write to this repo")
        else:
            return found
        return None

    def open_revision(self, repo, revision):
        if (found := self.open(repo)) is None:
            return None
        if (commit := found.files(revision or "main")) is None:
            self.refuse(404, "Invalid rev id", "RevisionNotFound")
        return commit

    # ── pull ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def model_info(self, repo, revision):
        if commit := self.open_revision(repo, revision):
            sha, files = commit
            tag = re.search(rb"^pipeline_tag: (\S+)", files.get("README.md", b""), re.MULTILINE)
            self.answer(
                {
                    "id": repo,
                    "sha": sha,
                    "private": self.hub.repos[repo].private,
                    "siblings": [{"rfilename": name} for name in files],
                    "pipeline_tag": tag[1].decode() if tag else None,
                    "library_name": "transformers",
                    "tags": [],
                }
            )

    def resolve(self, repo, revision, name):
        if commit := self.open_revision(repo, revision):
            sha, files = commit
            if name not in files:
                self.answer({}, 404, X_Repo_Commit=sha, X_Error_Code="EntryNotFound")
            else:
                etag, data, status = f'"{git_oid(files[name])}"', files[name], 200
                if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
                    data, status = data[int(wanted[1]) : int(wanted[2]) + 1], 206
                self.answer(data, status, X_Repo_Commit=sha, ETag=etag, Content_Type="application/octet-stream")

    def tree(self, repo, revision, wanted=None):
        if commit := self.open_revision(repo, revision):
            files = [(name, data) for name, data in commit[1].items() if wanted is None or name in wanted]
            self.answer([{"type": "file", "path": n, "size": len(d), "oid": git_oid(d)} for n, d in files])

    def paths_info(self, repo, revision):
        self.tree(repo, revision, parse_qs(self.body.decode())["paths"])

    # ── push ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self):
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Invalid username or password.")
        known = repo in self.hub.repos
        if not known:
            private = wanted.get("private") or wanted.get("visibility") == "private"
            self.hub.repos[repo] = Repo(private=bool(private))
            self.hub.repos[repo].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer({"url": f"{self.hub.url}/{repo}"}, 409 if known else 200)

    def preupload(self, repo, revision):
        if found := self.open(repo, write=True):
            now = found.files("main")[1]
            self.answer({"files": [self.upload_mode(file["path"], now) for file in json.loads(self.body)["files"]]})

    def upload_mode(self, path, now):
        """How a file is to be sent; `oid` is what the repo has, by which the client leaves unchanged files out."""
        is_lfs = path.endswith(tuple(self.hub.lfs))
        data = now.get(path)
        oid = None if data is None else hashlib.sha256(data).hexdigest() if is_lfs else git_oid(data)
        return {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False, "oid": oid}

    def lfs_batch(self, repo):
        if self.open(repo, write=True):
            objects = [{"oid": item["oid"], "size": item["size"]} for item in json.loads(self.body)["objects"]]
            for item in objects:
                if item["oid"] not in self.hub.objects:
                    item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            self.answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.refuse(422, "the object has another sha256")
        self.hub.objects[oid] = self.body
        self.answer({})

    def commit(self, repo, revision):
        if (found := self.open(repo, write=True)) is None:
            return
        sha, files = found.files("main")
        files = dict(files)
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header" and value.get("parentCommit", sha) != sha:
                return self.refuse(412, "A commit has happened since. Please refresh and try again.")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = found.commit(files)
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"})
