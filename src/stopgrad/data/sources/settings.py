"""Which images a run learns from."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from stopgrad.frozen import Frozen


class DataSettings(Frozen):
    """Names a data set and how it is read.

    ``name`` is a row of ``DATASETS`` (``digits``, ``folder``, ``cifar10`` ...) or the path of a folder of
    images. ``dir`` is where the folder or the official archive lies.
    """

    name: str = "digits"
    dir: Path | None = None
    #: 1 grey, 3 RGB, None as the data set has it (folders: 3)
    channels: Literal[1, 3] | None = None
    #: stored size in pixels: shorter side resized to it and the centre cut out, once, before any
    #: augmentation; None keeps every image as it is
    image_size: int | None = Field(default=None, ge=4, le=4096)
    #: fetch the official archive into ``dir`` when it is not there
    download: bool = False
    #: train on the first ``limit`` images only (parts that come sorted by class are shuffled beforehand)
    limit: int | None = Field(default=None, ge=1)
    #: decoding threads or processes; None takes the processors that this process may use
    workers: int | None = Field(default=None, ge=0)
