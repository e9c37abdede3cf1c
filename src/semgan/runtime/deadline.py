"""When training stops: by the clock on the wall, by the processor's, or by whichever comes first."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """wall: in `time.monotonic` seconds; cpu: in `time.process_time` seconds, of all threads of this process together.

    The processor's clock stands still while other programs have the machine, and does not know what a GPU does.
    final: the end of the CPU time, or of the time where that is not limited, is the end of the training, not a pause
    """

    wall: float | None = None
    cpu: float | None = None
    final: bool = False

    @classmethod
    def after(cls, minutes: float | None, cpu_minutes: float | None = None, *, final: bool = False) -> Deadline | None:
        """From now on; None where there is no limit."""
        if minutes is None and cpu_minutes is None:
            return None
        return cls(
            None if minutes is None else time.monotonic() + 60 * minutes,
            None if cpu_minutes is None else time.process_time() + 60 * cpu_minutes,
            final,
        )

    def passed(self) -> bool:
        """Whether it is time to stop, for a while or for good."""
        wall_passed = self.wall is not None and time.monotonic() >= self.wall
        return wall_passed or (self.cpu is not None and time.process_time() >= self.cpu)

    def now(self) -> float:
        """Seconds by the clock that can end the training."""
        return time.monotonic() if self.cpu is None else time.process_time()

    def ends_training(self, early_s: float = 0.0) -> bool:
        """Whether the training is over for good, or will be within ``early_s`` seconds of that clock."""
        end = self.wall if self.cpu is None else self.cpu
        return self.final and end is not None and self.now() >= end - early_s
