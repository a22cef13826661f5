"""The S3 server of the tests of storage."""

from tests.data.conftest import bucket, s3_server

__all__ = ["bucket", "s3_server"]
