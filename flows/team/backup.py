"""The state of the team's stack as a folder: databases, objects, secrets, and a list of it all that is written last.

The databases are taken first and the objects after them: whatever a row names was in the store before the row was.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from flows.team import postgres
from flows.team.settings import BUCKETS, DATABASES, OWNERS, TeamError, inside, libpq, secret

if TYPE_CHECKING:
    from botocore.client import BaseClient

LIST = "backup.json"
FORMAT = 1
PAGE = 1000


class Listing(TypedDict):
    """The list that a backup ends with: sha256 of its files by their path in it, and when it was made, in UTC."""

    format: int
    made: str
    files: dict[str, str]


def backup(target: Path, own_secrets: Path) -> Listing:
    """Write a backup to ``target``, a folder that is not there yet; whole or not at all.

    Returns:
        The list that it ends with.

    Raises:
        TeamError: ``target`` exists, or a service does not answer.
    """
    if target.exists():
        raise TeamError(f"{target} exists; name a folder that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    unfinished.mkdir(mode=0o700)
    try:
        for name in DATABASES:
            _program("pg_dump", "-Fc", "-f", str(unfinished / f"{name}.dump"), name, user=OWNERS[name])
        for bucket in BUCKETS:
            _fetch(bucket, unfinished / "objects" / bucket)
        shutil.copytree(own_secrets, unfinished / "secrets")
        files = {str(path.relative_to(unfinished)): _hash(path) for path in _files(unfinished)}
        said: Listing = {"format": FORMAT, "made": time.strftime("%FT%TZ", time.gmtime()), "files": files}
        (unfinished / LIST).write_text(json.dumps(said, indent=1, sort_keys=True))
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return said


def check(source: Path) -> Listing:
    """The list of a backup whose files are all there and as they were.

    Raises:
        TeamError: it is none, of another format, or not whole; the message names the first file at fault.
    """
    try:
        said: Listing = json.loads((source / LIST).read_text())
        wanted = dict(said["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise TeamError(f"{source} is no whole backup: {LIST}, which is written last, is missing or damaged") from None
    if said.get("format") != FORMAT:
        raise TeamError(f"{source} is of format {said.get('format')}, this version reads {FORMAT}; take its own")
    for name, digest in sorted(wanted.items()):
        path = source / name
        if not path.is_file() or _hash(path) != digest:
            raise TeamError(f"{source} is damaged: {name} is {'not what was written' if path.is_file() else 'missing'}")
    return said


def restore(source: Path) -> None:
    """Fill the databases and buckets of an empty stack, whose PostgreSQL and store are up, from a checked backup.

    Raises:
        TeamError: the backup is damaged, or the stack is not empty; then nothing was done.
    """
    check(source)
    for name in DATABASES:
        if _program("psql", "-XAtc", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name).strip() != "0":
            raise TeamError(f"database '{name}' is not empty; restore into a new stack, or remove the data of this one")
    make_buckets()
    for bucket in BUCKETS:
        if next(_objects(bucket), None) is not None:
            raise TeamError(f"bucket '{bucket}' is not empty; restore into a new stack, or remove the data of this one")
    for name in DATABASES:
        _program("pg_restore", "--no-owner", "--no-acl", "--exit-on-error", "--single-transaction", "-d", name,
                 str(source / f"{name}.dump"), user=OWNERS[name])  # fmt: skip
    for bucket in BUCKETS:
        folder = source / "objects" / bucket
        for path in _files(folder):
            _client().upload_file(str(path), bucket, str(path.relative_to(folder)))


def make_buckets() -> None:
    """Make the buckets that are not there yet.

    Raises:
        TeamError: the store does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        there = {bucket["Name"] for bucket in _client().list_buckets()["Buckets"]}
        for name in set(BUCKETS) - there:
            _client().create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        raise TeamError(f"the store does not answer: {error}") from None


def _program(name: str, *arguments: str, user: str = "postgres") -> str:
    password = secret(next((DATABASES[each] for each, owner in OWNERS.items() if owner == user), "postgres"))
    command = [postgres.program(name), *arguments]
    done = subprocess.run(command, env=libpq(os.environ, password, user), capture_output=True, text=True)
    if done.returncode:
        raise TeamError(f"{name} failed: {done.stderr.strip()}")
    return done.stdout


def _client() -> BaseClient:
    import boto3

    return boto3.client("s3", endpoint_url=inside("store"), aws_access_key_id=secret("s3-key"),
                        aws_secret_access_key=secret("s3-secret"), region_name="us-east-1")  # fmt: skip


def _objects(bucket: str) -> Iterator[str]:
    pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": PAGE})
    for page in pages:
        # A store of folders lists them too; they come back with what is in them.
        yield from (each["Key"] for each in page.get("Contents", []) if not each["Key"].endswith("/"))


def _fetch(bucket: str, folder: Path) -> None:
    client = _client()
    for key in _objects(bucket):
        path = (folder / key).resolve()
        if folder.resolve() not in path.parents:
            raise TeamError(f"bucket '{bucket}' holds '{key}', which names a place outside of it; remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
