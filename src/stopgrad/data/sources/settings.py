"""Which images a run learns from."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from stopgrad.frozen import Frozen


class DataSettings(Frozen):
    """Names a data set and how it is read.

    ``name`` is a row of ``DATASETS`` (``digits``, ``folder``, ``cifar10`` ...) or the path of a folder of
    images. ``dir`` is where the folder, the shards or the official archive lie. ``KIND:PLACE``, such as
    ``hf:ylecun/mnist``, is short for both.
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
    #: which column (Hugging Face) or suffix of a member (WebDataset) holds the image; None finds it
    image: str | None = None
    #: likewise the label, a number or a name; None finds it or does without
    label: str | None = None
    #: Hugging Face: the split to train on
    split: str = "train"
    #: Hugging Face: which of several subsets of a data set
    subset: str | None = None
    #: Hugging Face: read the training images in their order, without fetching them all beforehand
    streaming: bool = False
    #: decoding threads or processes; None takes the processors that this process may use
    workers: int | None = Field(default=None, ge=0)
