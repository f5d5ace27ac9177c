"""Questions about a state, whatever the API: their options, how they are asked, what the answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from fllm_dialects.systemone.labels import Label, LabelTokens

MIN_LOGPROB = -9999.0
MAX_OPTIONS = 255
"""Maximum number of options of a question, as in TypeSafe's and OpenAI's APIs."""

_REQUESTS = {
    "noul": "Answer with {labels} only.",
    "choice": "Answer with the label of one option only.",
    "score": "Answer with the label of one level only.",
}


class Option(Struct, frozen=True):
    """An option, and what it means."""

    name: str
    description: str = ""


class Question(Struct, frozen=True):
    """A question with a fixed set of answers."""

    kind: Literal["noul", "choice", "score"]
    instructions: str
    options: tuple[Option, ...]
    """Of a ``noul``: for yes and for no."""

    def labels(self, tokens: LabelTokens) -> list[Label]:
        """Return a label for each option. Raise `RequestError` if there are not enough."""
        match self.kind:
            case "noul":
                return tokens.yes_or_no()
            case "score":
                return tokens.levels(len(self.options))
            case "choice":
                return tokens.letters(len(self.options))

    def text(self, labels: Sequence[Label]) -> str:
        """Return the question as the model reads it."""
        lines = [self.instructions] if self.instructions else []
        for label, option in zip(labels, self.options, strict=True):
            meaning = ": ".join(filter(None, (option.name, option.description)))
            if meaning:
                lines.append(f"{label.text}. {meaning}")
        names = " or ".join(label.text for label in labels)
        return "\n".join([*lines, _REQUESTS[self.kind].format(labels=names)])


class Reading(Struct, frozen=True):
    """What the model answers to a question."""

    probabilities: tuple[float, ...]
    """Of each option. They sum to 1."""
    label_mass: float
    """Probability of all labels together, among all tokens of the vocabulary."""
    argmax_is_label: bool
    """Whether the most likely token is a label."""

    @property
    def best(self) -> int:
        """Index of the most likely option."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """1 if one option is certain, 0 if all are equally likely: TypeSafe's formula."""
        count = len(self.probabilities)
        return 1.0 if count == 1 else (count * max(self.probabilities) - 1) / (count - 1)

    @property
    def score(self) -> float:
        """The expected index."""
        return sum(index * probability for index, probability in enumerate(self.probabilities))


def new_reading(labels: Sequence[Label], logprobs: dict[int, float], sampled: int) -> Reading:
    """Return the reading for the log-probabilities of all tokens of the labels, and the most likely token."""
    # With a lower bound, because the model may give no probability to any label.
    scores = [[max(logprobs[token], MIN_LOGPROB) for token in label.token_ids] for label in labels]
    top = max(map(max, scores))
    weights = [math.fsum(math.exp(score - top) for score in each) for each in scores]
    total = math.fsum(weights)
    return Reading(
        probabilities=tuple(weight / total for weight in weights),
        label_mass=min(total * math.exp(top), 1.0),
        argmax_is_label=any(sampled in label.token_ids for label in labels),
    )
