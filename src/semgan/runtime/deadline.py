"""When training stops: by the clock on the wall, by the processor's, or by whichever comes first."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """wall: in `time.monotonic` seconds; cpu: in `time.process_time` seconds, of all threads of this process together.

    The processor's clock stands still while other programs have the machine, and does not know what a GPU does.
    """

    wall: float | None = None
    cpu: float | None = None

    @classmethod
    def after(cls, minutes: float | None, cpu_minutes: float | None = None) -> Deadline | None:
        """From now on; None where there is no limit."""
        if minutes is None and cpu_minutes is None:
            return None
        return cls(
            None if minutes is None else time.monotonic() + 60 * minutes,
            None if cpu_minutes is None else time.process_time() + 60 * cpu_minutes,
        )

    def passed(self) -> bool:
        return (self.wall is not None and time.monotonic() >= self.wall) or self.cpu_passed()

    def cpu_passed(self) -> bool:
        return self.cpu is not None and time.process_time() >= self.cpu
