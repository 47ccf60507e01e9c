"""A real S3-compatible server on loopback (moto), in a process of its own, and a bucket there.

with Bucket() as bucket: ...            # bucket.uri; the environment has key, secret, endpoint
bucket.down(); bucket.up()              # the same port, the same objects: the server is stopped
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

SERVER = """
import logging, sys
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""
KEYS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-no-file-may-hold",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def missing() -> str | None:
    """Why no server can be started here, or None."""
    lacking = [name for name in ("moto", "flask", "boto3") if not importlib.util.find_spec(name)]
    return f"{', '.join(lacking)} not installed" if lacking else None


class Bucket:
    """A server with one bucket; its place and keys are in `environment`."""

    name = "bucket"

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = KEYS | {"AWS_ENDPOINT_URL": self.endpoint}
        self.uri = f"s3://{self.name}/sweeps"

    def __enter__(self) -> Bucket:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(self.port)])
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.05)
        self.client().create_bucket(Bucket=self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.up()
        self.process.kill()
        self.process.wait()
        for name, value in self._before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

    def down(self) -> None:
        """Nothing answers any more: what is asked waits."""
        self.process.send_signal(signal.SIGSTOP)

    def up(self) -> None:
        """It answers again."""
        self.process.send_signal(signal.SIGCONT)

    def client(self):
        """boto3's client of it: another library than the one that the project uses."""
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint)

    def objects(self) -> dict[str, bytes]:
        """Every object by its key."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        found = {}
        for key in keys:
            try:
                found[key] = client.get_object(Bucket=self.name, Key=key)["Body"].read()
            except client.exceptions.NoSuchKey:
                pass  # removed since it was listed
        return {key: content for key, content in found.items() if not key.endswith("/")}
