"""A Kubernetes API server of a few lines: it takes Jobs, runs their container's command here, and says how they are.

Enough for kubectl to create, get and delete Jobs; images, volumes and limits are only recorded.
"""

import contextlib
import http.server
import json
import subprocess
import threading
from pathlib import Path

import yaml

KINDS = {"kind": "Job", "name": "jobs", "singularName": "job", "namespaced": True, "verbs": ["create", "delete", "get"]}
DISCOVERY = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "batch",
                "versions": [{"groupVersion": "batch/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "batch/v1", "version": "v1"},
            }
        ],
    },
    "/apis/batch/v1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "batch/v1",
        "resources": [KINDS],
    },
}


@contextlib.contextmanager
def cluster(folder: Path):
    """Yields (the jobs it was given: name -> manifest, path of a kubeconfig that leads to it)."""
    jobs, running = {}, {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, document: dict, code: int = 200) -> None:
            content = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def not_found(self) -> None:
            self.answer(
                {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}, 404
            )

        def do_GET(self):
            path = self.path.split("?")[0]
            name = path.rsplit("/", 1)[-1]
            if path in DISCOVERY:
                self.answer(DISCOVERY[path])
            elif "/jobs/" in path and name in running:
                self.answer(jobs[name] | {"status": condition(running[name])})
            else:
                self.not_found()

        def do_POST(self):
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, container = job["metadata"]["name"], job["spec"]["template"]["spec"]["containers"][0]
            jobs[name] = job
            running[name] = subprocess.Popen(container["command"], cwd=container["workingDir"])
            self.answer(job, 201)

        def do_DELETE(self):
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            if name not in running:
                return self.not_found()
            running.pop(name).terminate()
            self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield jobs, kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
    finally:
        for process in running.values():
            process.kill()
        server.shutdown()
        server.server_close()


def condition(process: subprocess.Popen) -> dict:
    """A Job's status while its process runs and after it ended."""
    if (code := process.poll()) is None:
        return {"active": 1}
    return {"conditions": [{"type": "Failed" if code else "Complete", "status": "True"}]}


def kubeconfig(path: Path, address: str) -> Path:
    context = {"cluster": "here", "user": "me"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": context}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
