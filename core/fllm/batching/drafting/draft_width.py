"""How many drafts one sequence gets, by how many of its last ones were right."""

from __future__ import annotations

from msgspec import Struct

INITIAL_WIDTH = 1
"""Number of tokens in the first draft. It doubles as long as whole drafts are accepted."""
MAX_PAUSE = 32
"""Maximum number of steps without a draft for a sequence whose drafts are rejected repeatedly."""

IDLE_STEPS = 8
"""Number of steps without any drafts after which the drafter is asked every second step, then every third."""
MAX_IDLE_PAUSE = 3


class DraftWidth(Struct):
    """The number of drafts that one sequence may have in a step.

    It grows while they are right. Each draft whose first token is wrong doubles a pause, so that a text that
    can't be guessed costs almost nothing.
    """

    width: int = INITIAL_WIDTH
    pause: int = 0
    """Number of steps without a draft after the next one that is wrong."""
    skip: int = 0
    """Number of steps until the next draft."""
    idle: int = 0
    """Number of times in a row that the drafter had no drafts."""

    def next(self) -> int:
        """Return the maximum number of drafts in this step."""
        if self.skip:
            self.skip -= 1
            return 0
        return self.width

    def found(self, count: int) -> None:
        """Record how many drafts there are. Without any, the drafter is asked less often."""
        self.idle = 0 if count else self.idle + 1
        self.skip = min(self.idle // IDLE_STEPS, MAX_IDLE_PAUSE)

    def update(self, drafted: int, accepted: int) -> None:
        """Allow more drafts after those that were all right, and pause after those of which none was."""
        if accepted:
            self.width = max(2 * drafted, self.width) if accepted == drafted else max(accepted, INITIAL_WIDTH)
            self.pause = 0
        else:
            self.width = INITIAL_WIDTH
            self.skip = self.pause
            self.pause = min(2 * self.pause + 1, MAX_PAUSE)
