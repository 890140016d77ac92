"""Random numbers without a state: a pure function of seed, epoch, image, view and stream.

Legend: B images, n numbers an image.

Every number is a hash of what it is for (counter-based, as Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"), here with the finaliser of SplitMix64 (Steele, Lea, Flood 2014). So the same seed gives the
same views on any device, in any process and in any batch, and a resumed run has no generator to restore.
"""

from functools import lru_cache
from hashlib import blake2b
from math import prod, tau

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


class Draws:
    """The random numbers of one view of a batch of images.

    Args:
        seed: any integer.
        epoch: how often the data has been gone through.
        index: int64 (B,), the number of each image in its dataset.
        view: 0 for the first view, 1 for the second.

    Streams are named, and numbers of two streams are independent. A number does not depend on the other
    images of the batch. Integers and uniform numbers are equal on every device; normal ones up to the
    device's own rounding of log, sin and cos.

    >>> import torch
    >>> two = Draws(0, epoch=3, index=torch.tensor([7, 9]), view=0)
    >>> one = Draws(0, epoch=3, index=torch.tensor([9]), view=0)
    >>> bool(two.uniform("crop")[1] == one.uniform("crop")[0])
    True
    """

    def __init__(self, seed: int, epoch: int, index: Tensor, view: int) -> None:
        place = 0
        for value in (seed, epoch, view):
            place = _mix_int(place + _GOLDEN + value)
        self._images = mix(index.to(torch.int64) * _signed(_GOLDEN) + _signed(place))
        self._prefix = ""

    def within(self, name: str) -> "Draws":
        """The same images, with streams of their own below ``name``."""
        inner = object.__new__(Draws)
        inner._images = self._images
        inner._prefix = f"{self._prefix}{name}/"
        return inner

    def keys(self, stream: str) -> Tensor:
        """int64 (B,): 64 random bits an image, from which :func:`uniforms` and :func:`normals` count on."""
        return mix(self._images + _hashed(self._prefix + stream))

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """float32 (B, *shape), uniform on the multiples of 2^-24 in [0, 1)."""
        return uniforms(self.keys(stream), prod(shape)).view(-1, *shape)

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """float32 (B, *shape), standard normal (Box-Muller; within +-5.8)."""
        return normals(self.keys(stream), prod(shape)).view(-1, *shape)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """float32 (B, count) in [0, 1) from int64 keys (B,)."""
    return _fraction(_words(keys, count), 40)


def normals(keys: Tensor, count: int) -> Tensor:
    """float32 (B, count), standard normal, from int64 keys (B,): one word gives two numbers."""
    words = _words(keys, (count + 1) // 2)
    # 1 - u lies in (0, 1], where the logarithm is finite, and is exact: log1p would take three times as long
    radius = (1.0 - _fraction(words, 40)).log_().mul_(-2.0).sqrt_()
    angle = _fraction(words, 16).mul_(tau)
    return torch.cat([radius * angle.cos(), radius.mul_(angle.sin_())], 1)[:, :count]


def mix(words: Tensor) -> Tensor:
    """Scramble int64 words in place (a bijection) and return them: the finaliser of SplitMix64."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        words.bitwise_xor_(_shift_right(words, shift)).mul_(_signed(factor))
    return words.bitwise_xor_(_shift_right(words, 31))


def _words(keys: Tensor, count: int) -> Tensor:
    # (B, n): the n next words of each key
    return mix(keys.unsqueeze(1) + _counters(count, keys.device))


@lru_cache(maxsize=64)
def _counters(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _signed(_GOLDEN)


def _fraction(words: Tensor, shift: int) -> Tensor:
    # 24 bits, which is what a float32 in [0, 1) can hold
    return _shift_right(words, shift).bitwise_and_((1 << 24) - 1).to(torch.float32).mul_(2.0**-24)


def _shift_right(words: Tensor, shift: int) -> Tensor:
    # torch shifts signed integers arithmetically; the copies of the sign are masked away
    return (words >> shift).bitwise_and_((1 << (64 - shift)) - 1)


def _signed(word: int) -> int:
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def _mix_int(word: int) -> int:
    word &= _WORD
    word = (word ^ (word >> 30)) * _FIRST & _WORD
    word = (word ^ (word >> 27)) * _SECOND & _WORD
    return word ^ (word >> 31)


@lru_cache(maxsize=1024)
def _hashed(name: str) -> int:
    return _signed(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))
