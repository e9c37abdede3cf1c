"""One of the processes of test_patience.py: the first one does everything slowly that has no sums in it.

python unequal.py RUN   with torchrun's environment
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from fake_stage import TOTAL, FakeStage, train

from semgan import ranks

ranks.COLLECTIVE_S = 2.0
LONGER_S = 4.0


def slowly(seconds: float = LONGER_S) -> None:
    if ranks.is_first():
        time.sleep(seconds)


class SlowStart(FakeStage):
    """Its first state takes long, as a checkpoint does that comes from a slow disk."""

    asked = 0

    def state(self):
        self.asked += 1
        if self.asked == 1:
            slowly()
        return super().state()


def preview(images_seen):
    slowly()
    return {"validation/dice": 0.5}


with ranks.joined():
    result = train(sys.argv[1], SlowStart(), preview=preview)
    assert result.images_seen == TOTAL
    slowly()
    assert ranks.of_first(3 - ranks.rank()) == 3
    print("finished")
