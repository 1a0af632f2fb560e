"""Settings of a campaign: what is asked, of whom, and what they agree to first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmpo_app.domain import Question
from dmpo_app.settings.group import Group


class LabelingSettings(Group):
    """What people are asked, and what it takes to take part."""

    questions: Annotated[tuple[Question, ...], Field(min_length=1)] = (Question.OVERALL,)
    """What is asked about a pair, one question after another, each answered by a vote of its own: overall, appeal, fit,
    as JSON: ["overall", "fit"]."""
    training_question: Question = Question.OVERALL
    """Rounds learn from the votes on this question; it is one of those asked."""
    reports_to_retire: Annotated[int, Field(ge=1, le=100)] = 1
    """A pair that so many people have reported leaves the pool until an administrator clears the reports."""
    consent: Annotated[str, Field(min_length=1)] | None = None
    """What people agree to before their first pair: a text, or a .txt or .md file that holds it; None: nothing."""
    consent_version: Annotated[str, Field(min_length=1, max_length=32)] = "1"
    """Stored with every agreement. A new text or version is agreed to anew."""
    access: Literal["open", "invite"] = "open"
    """Who may open a session: everybody, or whoever has a link of `dmpo invite create`."""

    @model_validator(mode="after")
    def _questions_make_sense(self) -> LabelingSettings:
        if len(set(self.questions)) < len(self.questions):
            raise ValueError(f"a question is asked once; questions are {', '.join(self.questions)}")
        if self.training_question not in self.questions:
            raise ValueError(
                f"rounds would wait forever: training_question is {self.training_question.value!r}, which is not among "
                f"the questions {', '.join(self.questions)}; set both"
            )
        return self
