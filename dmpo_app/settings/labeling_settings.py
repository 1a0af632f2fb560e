"""Settings of a campaign: what is asked, of whom, what they agree to first, and what their votes count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dmpo_app.domain.vote import Question
from dmpo_app.settings.settings_group import Group

PUBLIC_SHARE = 0.05


class LabelingSettings(Group):
    """What people are asked, and what it takes to take part."""

    questions: Annotated[tuple[Question, ...], Field(min_length=1)] = (Question.OVERALL,)
    """What is asked about a pair, one question after another, each answered by a vote of its own: overall, appeal, fit,
    as JSON: ["overall", "fit"]."""
    training_question: Question = Question.OVERALL
    """Rounds learn from the votes on this question; it is one of those asked."""
    asks: tuple[Literal["strength", "comment"], ...] = ()
    """What may go with an answer on the page, as JSON: ["strength"] asks whether a picture is slightly or clearly
    better, ["comment"] offers a line of text."""
    ranking_size: Literal[0, 3, 4] = 0
    """So many images of a prompt are ranked, best first, instead of judging pairs. 0: pairs; those that are in
    the home already come back then."""
    reports_to_retire: Annotated[int, Field(ge=1, le=100)] = 1
    """A pair that so many people have reported leaves the pool until an administrator clears the reports."""
    consent: Annotated[str, Field(min_length=1)] | None = None
    """What people agree to before their first pair: a text, or a .txt or .md file that holds it; None: nothing."""
    consent_version: Annotated[str, Field(min_length=1, max_length=32)] = "1"
    """Stored with every agreement. A new text or version is agreed to anew."""
    strategy: Literal["fresh", "overlap", "uncertainty", "scorers", "coverage", "ratings", "random"] = "fresh"
    """Which pair next. fresh: the least judged, of the newest version. overlap: every n-th pair to several people.
    uncertainty: what the policy is least sure of. scorers: what automatic scorers disagree on. coverage: prompts with
    the fewest votes. ratings: what votes say least about. random: any."""
    overlap_every: Annotated[int, Field(ge=1)] = 5
    """overlap: every so-manieth pair ..."""
    overlap_people: Annotated[int, Field(ge=2, le=1000)] = 3
    """... goes to so many people."""
    showings_per_pair: Annotated[int, Field(ge=1)] | None = None
    """A pair is given out so often at most, on each question; None: while somebody is left who has not seen it."""
    gold_rate: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of showings that are of gold pairs (`dmpo gold`), which tell who answers right; not trained on."""
    repeat_rate: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of showings that are of pairs the person has judged before, sides swapped. Not trained on again."""
    repeat_after: Annotated[int, Field(ge=1)] = 20
    """... at least so many votes ago."""
    access: Literal["auto", "open", "invite", "login"] = "auto"
    """Who may take part. open: everybody; invite: whoever has a link of `dmpo invite create`; login: whoever signed in.
    auto: login in public mode where there is somebody to sign in with, as on a Space with `hf_oauth: true`, else
    open."""
    free_prompts: bool = False
    """Annotators may add prompts of their own, which pairs are then made of; on the Before / after tab."""
    free_prompts_per_day: Annotated[int, Field(ge=1, le=10_000)] = 20
    """... at most so many within 24 hours, each of them."""
    free_prompt_length: Annotated[int, Field(ge=1, le=1000)] = 300
    """... of at most so many characters."""
    blocked_words: Path | None = None
    """A text file of words or phrases, one a line; prompts with any of them are refused, whole words, whatever their
    case or accents. For prompts of annotators and imports; None: nothing is blocked."""
    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Prompts on both sides of the split may share less than this of their words (Jaccard similarity of the sets)."""
    reliability: Literal["off", "dawid_skene"] = "off"
    """dawid_skene: in a round, an annotator's votes count by how far the others bear them out; the mean is 1, and 0 who
    clicks at random or against the others. off: every vote counts 1."""
    max_annotator_share: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] | None = "auto"
    """What one annotator may weigh of all votes of a round; none: any share. auto: 0.05 in public mode, none
    otherwise."""

    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")] | None = None
    """Licence of what is collected, as the hub names it (cc-by-4.0, mit, other): stands on the card of exports, and is
    needed to push one."""

    @field_validator("max_annotator_share", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        """Neither environment variables nor TOML can say None otherwise."""
        return None if isinstance(value, str) and value.lower() == "none" else value

    @property
    def num_images(self) -> int:
        """The images of a showing: 2 for a pair."""
        return self.ranking_size or 2

    def annotator_share(self, *, public: bool) -> float | None:
        """The cap in force; None where there is none."""
        if self.max_annotator_share == "auto":
            return PUBLIC_SHARE if public else None
        return self.max_annotator_share

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
