"""How long the stages of an example take."""

import contextlib
import time
from collections.abc import Iterator


class Stages:
    """Seconds of the stages of a program.

    :param announce: say which stage begins.
    """

    def __init__(self, announce: bool) -> None:
        self.announce = announce
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Keep the seconds of the enclosed block under ``stage``."""
        if self.announce:
            print(f"{stage} ...", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
