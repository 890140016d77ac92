"""Tar shards as WebDataset has them, for the tests."""

import io
import tarfile
from pathlib import Path


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar file of these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
