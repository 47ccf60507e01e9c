"""Copy the data of a bucket to this node, as the cluster files' set-up does on every node.

    ERMGAP_BUCKET=s3://NAME/PREFIX python cluster/fetch.py /mnt/shared/data

What lies under ERMGAP_BUCKET/data is copied; without ERMGAP_BUCKET nothing is done: then a folder
that all nodes mount holds the data. Nothing is copied twice: a folder that holds every file of the
bucket in the bucket's sizes is left as it is. Credentials are the machine's own role, or the usual
environment variables and files of the cloud.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCHEMES = ("s3://", "gs://", "file://")  # file: a folder stands for a bucket, in the tests


def sizes(filesystem, folder: str) -> dict[str, int]:
    """Size in bytes of every file below a folder, by its path within it; {} without the folder."""
    from pyarrow import fs

    below = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    return {
        info.path[len(folder) :].lstrip("/"): info.size
        for info in filesystem.get_file_info(below)
        if info.type == fs.FileType.File and info.size
    }


def fetch(bucket: str, target: Path) -> str:
    """Copy `bucket`/data to `target`; returns a sentence on what was done.

    Raises:
        ValueError: the bucket's name is no URI of a bucket, or nothing lies there.
        OSError: the bucket or the target cannot be reached.
    """
    from pyarrow import fs

    if not bucket.startswith(SCHEMES):
        raise ValueError(
            f"ERMGAP_BUCKET={bucket} names no bucket; write s3://NAME/PREFIX or gs://NAME/PREFIX."
        )
    source, path = fs.FileSystem.from_uri(f"{bucket.rstrip('/')}/data")
    wanted = sizes(source, path)
    if not wanted:
        raise ValueError(f"{bucket.rstrip('/')}/data is empty; upload the corpora there first.")
    local = fs.LocalFileSystem()
    copied = sizes(local, str(target))
    if all(copied.get(name) == size for name, size in wanted.items()):
        return f"{target} holds all {len(wanted)} files of {bucket}/data"
    target.mkdir(parents=True, exist_ok=True)
    fs.copy_files(path, str(target), source_filesystem=source, destination_filesystem=local)
    return f"{len(wanted)} files copied from {bucket}/data to {target}"


def main(arguments: list[str]) -> int:
    """The command; returns its exit status, 1 after one sentence on what is wrong."""
    if len(arguments) != 1:
        print("error: give one folder to copy to, such as /mnt/shared/data.", file=sys.stderr)
        return 1
    bucket = os.environ.get("ERMGAP_BUCKET", "")
    if not bucket:
        print(f"no ERMGAP_BUCKET: data are expected in {arguments[0]}, a folder that nodes share")
        return 0
    try:
        print(fetch(bucket, Path(arguments[0]).absolute()))
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
