"""Keeps linear algebra on matrices of a few hundred rows on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS uses one thread.

    For matrices this small its threads cost more than they bring, and on a machine whose cores are busy with models
    they wait for each other: a factorisation then takes up to twenty times as long.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield
