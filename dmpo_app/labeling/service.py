"""Labeling as its callers see it: sessions, pairs to judge, votes, and where things stand.

Between the store and whatever faces people. Knows neither HTTP nor Gradio; raises the studio's errors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from dmpo_app.domain.campaign import Report, ReportReason
from dmpo_app.domain.durability import OnThisDisk, Safekeeping
from dmpo_app.domain.image import ImageRef
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import RoundState, RoundStatus
from dmpo_app.domain.studio_status import StudioStatus
from dmpo_app.domain.vote import Annotator, Answer, Assignment, Choice, TakenVote
from dmpo_app.errors import BadInput, LoginNeeded, NotFound, NotInvited, NotYours
from dmpo_app.labeling.consent import Consent, read_consent
from dmpo_app.labeling.sign_in import Logins
from dmpo_app.labeling.strategies import offering_of
from dmpo_app.labeling.text_checks import clean_handle, clean_words
from dmpo_app.labeling.tokens import Sealer
from dmpo_app.settings import Settings
from dmpo_app.store import Store, utc_now

MAX_ASSIGNMENTS = 16
"""Showings one annotator can hold open: enough to prefetch, too few to lock others out of the pool."""
MAX_ELAPSED_MS = 24 * 3600 * 1000

_REMEMBERED_ANNOTATORS = 4096


class LabelingService:
    """One lineage's labeling. Safe for any number of threads. Raises SetupProblem when there is no text to agree to
    where the settings say it is.

    `problems`: looked at in order for `StudioStatus.last_error`, after the rounds; each answers a message or None.
    `safekeeping`: what keeps votes beyond this disk. While it cannot, whatever would record something raises
    BackupUnreachable.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        sealer: Sealer,
        *,
        rng: random.Random,
        now: Callable[[], datetime] = utc_now,
        problems: Sequence[Callable[[], str | None]] = (),
        safekeeping: Safekeeping | None = None,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._sealer = sealer
        self._rng = rng
        self._offering = offering_of(settings.labeling)
        self._now = now
        self._problems = problems
        self._safekeeping = safekeeping or OnThisDisk()
        self.consent = Consent(store, read_consent(settings.labeling))
        self.logins = Logins(sealer, now=now)
        # An annotator changes only by signing in, so who a token belongs to is looked up once, not at every vote.
        self._annotator = lru_cache(maxsize=_REMEMBERED_ANNOTATORS)(store.annotators.get)
        self._admitted: dict[str, Annotator] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is recorded inside is let in before, and on leaving as safe as it is promised to be.

        Raises BackupUnreachable, before or after; doing it again is safe.
        """
        self._safekeeping.admit()
        yield
        self._safekeeping.settle()

    @property
    def settles(self) -> bool:
        """Whether `settle` may take a while."""
        return self._safekeeping.waits

    def settle(self) -> None:
        """Return once what was recorded is as safe as it is promised to be. Raises BackupUnreachable."""
        self._safekeeping.settle()

    def open_session(self, handle: str, invite: str | None = None) -> tuple[Annotator, str]:
        """A new annotator and the token to be recognised by. `invite` is looked at where sessions need one.

        Raises BadInput for a handle that is no name; NotInvited without an invitation that is good; LoginNeeded.
        """
        name, access = clean_handle(handle), self._settings.access
        if access == "login":
            raise LoginNeeded("this studio is open to those who sign in")
        self._safekeeping.admit()
        if access == "open":
            annotator = self._store.annotators.ensure(name)
        elif invite is None:
            raise NotInvited("this studio is open to those who have a link of invitation")
        else:
            annotator = self._store.invites.accept(self._sealer.open_invite(invite), name)
        token = self._sealer.seal_session(annotator.public_id)
        if self.consent.text is None:
            self._remember(token, annotator)
        return annotator, token

    def open_session_as(
        self, provider: str, subject: str, handle: str, *, token: str | None = None
    ) -> tuple[Annotator, str]:
        """The annotator who is `subject` at a `provider` that has vouched for it, the same each time, and a token.

        Of who they are elsewhere only a keyed hash is stored. `token`: of the session they had until now; the first
        time, they go on as who they were in it. Where sessions need an invitation, so do those who sign in first.
        Raises BadInput for a handle that is no name, NotInvited.
        """
        self._safekeeping.admit()
        identity = self._sealer.identity(provider, subject)
        annotator = self._store.annotators.ensure_identified(
            identity,
            clean_handle(handle),
            until_now=self._if_known(token),
            may_add=self._settings.access != "invite",
        )
        self._annotator.cache_clear()  # that they are signed in is new
        self._admitted.clear()
        return annotator, self._sealer.seal_session(annotator.public_id)

    def annotator_of(self, token: str) -> Annotator:
        """Whose session this is. Raises NotYours for any token that this home did not hand out, and for one of somebody
        who did not sign in where only those take part who did."""
        public_id = self._sealer.open_session(token)
        try:
            annotator = self._annotator(public_id)
        except NotFound:
            raise NotYours("this session belongs to a home that is gone; open a new session") from None
        if self._settings.access == "login" and not annotator.signed_in:
            raise NotYours("this session is from before people had to sign in")
        return annotator

    def admit(self, token: str) -> Annotator:
        """`annotator_of` for one who may judge pairs. Raises NotYours, ConsentNeeded."""
        annotator = self.annotator_of(token)
        self.consent.require(annotator)
        self._remember(token, annotator)
        return annotator

    def admitted(self, token: str) -> Annotator | None:
        """Who was admitted with this token before: told without looking anywhere. None for anybody else."""
        return self._admitted.get(token)

    def _remember(self, token: str, annotator: Annotator) -> None:
        if len(self._admitted) >= _REMEMBERED_ANNOTATORS:
            self._admitted.clear()
        self._admitted[token] = annotator

    def _if_known(self, token: str | None) -> Annotator | None:
        try:
            return None if token is None else self.annotator_of(token)
        except NotYours:
            return None

    def assignments(self, annotator: Annotator, count: int) -> Future[list[Assignment]]:
        """Up to `count` pairs to judge: those held open first. Empty while there are no pairs, or all have been seen.

        Raises BadInput unless 1 <= count <= MAX_ASSIGNMENTS, ConsentNeeded.
        """
        self.consent.require(annotator)
        if not 1 <= count <= MAX_ASSIGNMENTS:
            raise BadInput(f"between 1 and {MAX_ASSIGNMENTS} assignments can be asked for, not {count}")
        return self._store.assignments.issue(
            self._base,
            annotator.id,
            count,
            rng=self._rng,
            lifetime=timedelta(minutes=self._settings.pool.assignment_minutes),
            questions=self._settings.labeling.questions,
            offering=self._offering,
        )

    def image_url_token(self, image_id: int, expires_at: datetime) -> str:
        """What an image's address ends in: unguessable, good until a time, and different at every call."""
        return self._sealer.seal_image(image_id, expires_at)

    def image_for(self, token: str) -> ImageRef:
        """The image an address shows. Raises NotFound, Expired."""
        return self._store.images.get(self._sealer.open_image(token, now=self._now()))

    def vote(self, annotator: Annotator, assignment_id: str, answer: Answer, elapsed_ms: int) -> Future[TakenVote]:
        """Take a vote; the future is done once it is on disk. `settle` before whoever gave it is told.

        Raises ConsentNeeded, BackupUnreachable; BadInput for a time below 0 or above a day, a strength without a side
        and a comment that is too long. The future raises NotFound, NotYours, Conflict, Expired; BadInput for an order
        of a pair, a choice between the images of a set, and an order that does not name every place once.
        """
        self.consent.require(annotator)
        if not 0 <= elapsed_ms <= MAX_ELAPSED_MS:
            raise BadInput(f"elapsed_ms must be between 0 and {MAX_ELAPSED_MS} (a day), not {elapsed_ms}")
        if answer.strength is not None and answer.choice not in (Choice.LEFT, Choice.RIGHT):
            given = "an order" if answer.choice is None else answer.choice.value
            raise BadInput(f"a strength goes with left or right, not with {given}")
        said = replace(answer, comment=clean_words(answer.comment, "comment"))
        self._safekeeping.admit()
        return self._store.votes.submit(
            assignment_id,
            annotator.id,
            said,
            elapsed_ms,
            question=self._settings.labeling.training_question,
            count_to=self._settings.min_votes,
        )

    def undo(self, annotator: Annotator, vote_id: int) -> None:
        """Take back one's own latest vote; the pair can be judged anew. Raises NotFound, NotYours, Conflict."""
        with self.kept():
            self._store.votes.undo(vote_id, annotator.id)

    def report(self, annotator: Annotator, assignment_id: str, reason: ReportReason, words: str | None) -> Report:
        """Report the pair an assignment shows; with enough reports it leaves the pool at once.

        Raises NotFound, NotYours, BadInput for words that are too many.
        """
        said = clean_words(words, "report")
        threshold = self._settings.labeling.reports_to_retire
        with self.kept():
            return self._store.reports.add(assignment_id, annotator.id, reason, said, reports_to_retire=threshold)

    def clear_report(self, report_id: int, by: str) -> Report:
        """Settle a report, an act of the administrator `by`; the pair may come back. Raises NotFound."""
        threshold = self._settings.labeling.reports_to_retire
        return self._store.reports.clear(self._base, report_id, by=by, reports_to_retire=threshold)

    def votes_until_round(self, after: TakenVote | None = None) -> int:
        """New preferences still missing until a round starts by itself, now or as it was right after a vote."""
        wanted = self._settings.min_votes
        if after is not None:
            return wanted - after.new_preferences
        question = self._settings.labeling.training_question
        return wanted - self._store.votes.count_new_preferences(self._base, at_most=wanted, question=question)

    def status(self) -> StudioStatus:
        """Where things stand. A few indexed reads: every open page asks each second."""
        current = self._store.rounds.current(self._base)
        last = self._store.rounds.last(self._base)
        return StudioStatus(
            votes=self._store.votes.count(self._base),
            votes_until_round=self.votes_until_round(),
            pool=self._store.pairs.count_unjudged(self._base, num_images=self._settings.labeling.num_images),
            live_version=self._store.adapters.live_version(self._base),
            round=current,
            last_round=last,
            last_error=self._last_error(current, last),
            encoding=self._store.imports.encoding(self._base),
        )

    def _last_error(self, current: RoundState | None, last: RoundState | None) -> str | None:
        if current is not None and current.reason is not None:
            return current.reason  # it failed and is tried again
        if last is not None and last.status is RoundStatus.FAILED:
            return last.reason
        return next((message for problem in self._problems if (message := problem())), None)
