"""The labeling service: sessions, consent, assignments, votes, reports and the status of the studio.

Between the store and whatever faces people. Knows neither HTTP nor Gradio; raises the studio's errors.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from dmpo_app import errors
from dmpo_app.domain.campaign import (
    ConsentAgreement,
    DurabilityPolicy,
    LocalDurability,
    Report,
    ReportReason,
    StudioStatus,
)
from dmpo_app.domain.judging import NoDuels, OfferedStudy
from dmpo_app.domain.lineage import BaseModelRef, ImageRef, RoundState, RoundStatus
from dmpo_app.domain.vote import (
    Annotator,
    Assignment,
    AssignmentKind,
    Choice,
    Question,
    RecordedVote,
    SubmittedVote,
)
from dmpo_app.io.files import sha256_hex
from dmpo_app.labeling.quality.standing import Standings
from dmpo_app.labeling.sign_in import Logins, Sealer
from dmpo_app.labeling.strategies import assignment_rules, duel_rules
from dmpo_app.labeling.text_checks import clean_handle, clean_remark
from dmpo_app.settings import LabelingSettings, Settings
from dmpo_app.store import Store, utc_now

MAX_ASSIGNMENTS = 16
"""Open assignments of one annotator at most: enough to prefetch, too few to lock others out of the pool."""
MAX_ELAPSED_MS = 24 * 3600 * 1000
_REMEMBERED_ANNOTATORS = 4096


class LabelingService:
    """The labeling service of one lineage. Safe for any number of threads.

    Raises SetupError when the consent text of the settings cannot be read. `problems`: checked in order for
    `StudioStatus.last_error`, after the rounds; each returns a message or None. `durability`: of votes beyond this
    disk. While it is out of reach, whatever would record something raises BackupUnreachableError.
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
        durability: DurabilityPolicy | None = None,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._sealer = sealer
        self._rng = rng
        self._rules = {
            AssignmentKind.LABEL: assignment_rules(settings.labeling, duel_rate=settings.judging.duel_rate),
            AssignmentKind.DUELS: duel_rules(settings.labeling),
        }
        self._now = now
        self._problems = problems
        self._durability = durability or LocalDurability()
        self.standings = Standings(store, base, settings, now=now)
        self.consent = Consent(store, read_consent(settings.labeling))
        self.logins = Logins(sealer, now=now)
        # An annotator changes only by signing in, so who a token belongs to is looked up once, not at every vote.
        self._cached_annotator = lru_cache(maxsize=_REMEMBERED_ANNOTATORS)(store.annotators.get)
        self._authorized: dict[str, Annotator] = {}

    @contextmanager
    def durable_write(self) -> Iterator[None]:
        """Make what is recorded inside durable: checked on entering, awaited on leaving.

        Raises BackupUnreachableError, before or after; doing it again is safe.
        """
        self._durability.check_writable()
        yield
        self._durability.wait_until_durable()

    def takes_votes(self) -> bool:
        """True unless votes are refused because the backup is out of reach."""
        try:
            self._durability.check_writable()
        except errors.BackupUnreachableError:
            return False
        return True

    @property
    def is_synchronous(self) -> bool:
        """True where `wait_until_durable` may take a while."""
        return self._durability.is_synchronous

    def wait_until_durable(self) -> None:
        """Wait until what was recorded is as durable as promised. Raises BackupUnreachableError."""
        self._durability.wait_until_durable()

    def open_session(self, handle: str, invite: str | None = None) -> tuple[Annotator, str]:
        """Open a session: a new annotator and their token. `invite` is checked where sessions need one.

        Raises BadInputError for a handle that is no name; NotInvitedError without a valid invitation;
        LoginRequiredError.
        """
        name, access = clean_handle(handle), self._settings.access
        if access == "login":
            raise errors.LoginRequiredError("this studio is open to those who sign in")
        self._durability.check_writable()
        if access == "open":
            annotator = self._store.annotators.ensure(name)
        elif invite is None:
            raise errors.NotInvitedError("this studio is open to those who have a link of invitation")
        else:
            annotator = self._store.invites.accept(self._sealer.open_invite(invite), name)
        token = self._sealer.seal_session(annotator.public_id)
        if self.consent.text is None:
            self._remember(token, annotator)
        return annotator, token

    def open_session_as(
        self, provider: str, subject: str, handle: str, *, token: str | None = None
    ) -> tuple[Annotator, str]:
        """Open a session of a person who signed in: the annotator, the same each time, and a token.

        The provider vouched for `subject`; only a keyed hash of both is stored. `token`: of the session they had until
        now; the first time, they go on as who they were in it. Where sessions need an invitation, so do those who sign
        in first.
        Raises BadInputError for a handle that is no name, NotInvitedError.
        """
        self._durability.check_writable()
        identity = self._sealer.identity(provider, subject)
        annotator = self._store.annotators.ensure_identified(
            identity,
            clean_handle(handle),
            session_annotator=self._authenticate_or_none(token),
            may_create=self._settings.access != "invite",
        )
        self._cached_annotator.cache_clear()  # that they are signed in is new
        self._authorized.clear()
        return annotator, self._sealer.seal_session(annotator.public_id)

    def authenticate(self, token: str) -> Annotator:
        """The annotator of a session token.

        Raises ForbiddenError for any token that this home did not hand out, and for one of somebody who did not sign in
        where only those take part who did.
        """
        public_id = self._sealer.open_session(token)
        try:
            annotator = self._cached_annotator(public_id)
        except errors.NotFoundError:
            raise errors.ForbiddenError("this session belongs to a home that is gone; open a new session") from None
        if self._settings.access == "login" and not annotator.signed_in:
            raise errors.ForbiddenError("this session is from before people had to sign in")
        return annotator

    def authorize(self, token: str) -> Annotator:
        """The annotator of a session token, with consent checked. Raises ForbiddenError, ConsentRequiredError."""
        annotator = self.authenticate(token)
        self.consent.require(annotator)
        self._remember(token, annotator)
        return annotator

    def authorized(self, token: str) -> Annotator | None:
        """The annotator who was authorized with this token before, from memory alone; None for any other token."""
        return self._authorized.get(token)

    def _remember(self, token: str, annotator: Annotator) -> None:
        if len(self._authorized) >= _REMEMBERED_ANNOTATORS:
            self._authorized.clear()
        self._authorized[token] = annotator

    def _authenticate_or_none(self, token: str | None) -> Annotator | None:
        try:
            return None if token is None else self.authenticate(token)
        except errors.ForbiddenError:
            return None

    def assignments(
        self,
        annotator: Annotator,
        count: int,
        kind: AssignmentKind = AssignmentKind.LABEL,
        study: OfferedStudy | None = None,
    ) -> Future[list[Assignment]]:
        """Issue up to `count` assignments, open ones first. Empty while there are no pairs, or all have been seen.

        Duels are mixed in among pairs at `judging.duel_rate`; of the kind `duels` they come alone: those of a study
        (`study_for`) with its questions, or those of the versions compared now with the overall question.

        Raises BadInputError unless 1 <= count <= MAX_ASSIGNMENTS, ConsentRequiredError.
        """
        self.consent.require(annotator)
        if not 1 <= count <= MAX_ASSIGNMENTS:
            raise errors.BadInputError(f"between 1 and {MAX_ASSIGNMENTS} assignments can be asked for, not {count}")
        rules, questions = self._rules[kind], self._settings.labeling.questions
        if study is not None:
            rules = replace(rules, assignments_per_pair=study.plan.num_raters, study_id=study.id)
            questions = study.plan.questions
        elif kind is AssignmentKind.DUELS:
            questions = (Question.OVERALL,)
        return self._store.assignments.issue(
            self._base,
            annotator.id,
            count,
            rng=self._rng,
            lifetime=timedelta(minutes=self._settings.pool.assignment_minutes),
            questions=questions,
            rules=rules,
        )

    def study_for(self, annotator: Annotator) -> OfferedStudy | None:
        """The open study whose duels this annotator is given before others; None where none has any for them."""
        return self._store.studies.find_for(self._base, annotator.id)

    def no_duels_reason(self) -> NoDuels:
        """The reason why a person who asked for duels got none."""
        comparisons = self._store.duels.comparisons(self._base)
        if not comparisons:
            return NoDuels.NO_VERSION
        num_ready = min(self._store.duels.count_ready(self._base, one.version_a, one.version_b) for one in comparisons)
        return NoDuels.MAKING if num_ready < self._settings.judging.duels_ready else NoDuels.ALL_JUDGED

    def image_url_token(self, image_id: int, expires_at: datetime) -> str:
        """The token in an image's URL: unguessable, valid until a time, and different at every call."""
        return self._sealer.seal_image(image_id, expires_at)

    def open_image(self, token: str) -> ImageRef:
        """The image of a URL token. Raises NotFoundError, ExpiredError."""
        return self._store.images.get(self._sealer.open_image(token, now=self._now()))

    def read_image(self, token: str) -> bytes:
        """The PNG of a URL token's image. One that is damaged is remembered, and its pair leaves the pool.

        Raises NotFoundError, ExpiredError, DamagedFileError; SystemExhaustedError when it cannot be read for now.
        """
        image = self.open_image(token)
        try:
            return self._store.files.read_image(image.sha256)
        except errors.DamagedFileError as error:
            self._store.damage.record(error)
            raise

    def vote(
        self, annotator: Annotator, assignment_id: str, submitted: SubmittedVote, elapsed_ms: int
    ) -> Future[RecordedVote]:
        """Record a vote; the future is done once it is on disk. Then `wait_until_durable` before acknowledging it.

        Raises ConsentRequiredError, BackupUnreachableError; BadInputError for a time below 0 or above a day, a strength
        without a side and a comment that is too long. The future raises NotFoundError, ForbiddenError, ConflictError,
        ExpiredError; BadInputError for an order of a pair, a choice between the images of a set, and an order that does
        not name every place once.
        """
        self.consent.require(annotator)
        if not 0 <= elapsed_ms <= MAX_ELAPSED_MS:
            raise errors.BadInputError(f"elapsed_ms must be between 0 and {MAX_ELAPSED_MS} (a day), not {elapsed_ms}")
        if submitted.strength is not None and submitted.choice not in (Choice.LEFT, Choice.RIGHT):
            choice_text = "an order" if submitted.choice is None else submitted.choice.value
            raise errors.BadInputError(f"a strength goes with left or right, not with {choice_text}")
        cleaned = replace(submitted, comment=clean_remark(submitted.comment, "comment"))
        self._durability.check_writable()
        return self._store.votes.submit(
            assignment_id,
            annotator.id,
            cleaned,
            elapsed_ms,
            question=self._settings.labeling.training_question,
            count_limit=self._settings.min_votes,
        )

    def undo(self, annotator: Annotator, vote_id: int) -> None:
        """Undo one's own latest vote, to vote anew. Raises NotFoundError, ForbiddenError, ConflictError."""
        with self.durable_write():
            self._store.votes.undo(vote_id, annotator.id)

    def report(
        self,
        annotator: Annotator,
        assignment_id: str,
        reason: ReportReason,
        text: str | None,
        *,
        network: str | None = None,
    ) -> Report:
        """Report the pair of an assignment; it leaves the pool for this person at once, for all with enough reports.

        `network`: the address range that the report came from; only a keyed hash of it is stored. Raises NotFoundError,
        ForbiddenError, BadInputError for words that are too many.
        """
        cleaned_text = clean_remark(text, "report")
        rules = self.standings.report_rules()
        network_hash = None if network is None else self._sealer.network_hash(network)
        with self.durable_write():
            return self._store.reports.add(
                assignment_id, annotator.id, reason, cleaned_text, rules=rules, network=network_hash
            )

    def votes_until_round(self, after: RecordedVote | None = None) -> int:
        """The number of preferences missing until a round starts by itself, now or right after a vote."""
        min_votes = self._settings.min_votes
        if after is not None:
            return min_votes - after.new_preferences
        question = self._settings.labeling.training_question
        return min_votes - self._store.votes.count_new_preferences(self._base, at_most=min_votes, question=question)

    def status(self) -> StudioStatus:
        """The status of the studio. A few indexed reads: every open page polls it each second."""
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
            encoding=self._store.imports.encoding_progress(self._base),
            storage_problem=self._store.storage_problem(),
        )

    def _last_error(self, current: RoundState | None, last: RoundState | None) -> str | None:
        if current is not None and current.reason is not None:
            return current.reason  # it failed and is tried again
        if last is not None and last.status is RoundStatus.FAILED:
            return last.reason
        return next((message for problem in self._problems if (message := problem())), None)


MAX_CONSENT_TEXT = 50_000
_CONSENT_FILE_ENDINGS = (".txt", ".md")
_REMEMBERED_AGREEMENTS = 4096


@dataclass(frozen=True, slots=True)
class ConsentText:
    """A consent text. `sha256` is of it as UTF-8."""

    text: str
    version: str
    sha256: str


class Consent:
    """The campaign's consent text and the agreements to it. Without a text nobody has to agree to anything."""

    def __init__(self, store: Store, text: ConsentText | None) -> None:
        self.text = text
        self._store = store
        # An agreement is for good, so it is looked up once; lru_cache keeps no refusals.
        self._cached_agreement = lru_cache(maxsize=_REMEMBERED_AGREEMENTS)(self._look_up)

    def require(self, annotator: Annotator) -> None:
        """Raise ConsentRequiredError while the annotator has not agreed to the present text."""
        if self.text is not None:
            self._cached_agreement(annotator.id, self.text.sha256, self.text.version)

    def agreement(self, annotator: Annotator) -> ConsentAgreement | None:
        """The annotator's agreement to the present text, if there is one."""
        if self.text is None:
            return None
        return self._store.consents.find(annotator.id, self.text.sha256, self.text.version)

    def agree(self, annotator: Annotator, text_sha256: str) -> ConsentAgreement:
        """Record that the annotator agrees to the text they were shown, named by its hash.

        Raises ConflictError when it is not the present one, NotFoundError when there is none to agree to.
        """
        if self.text is None:
            raise errors.NotFoundError("there is nothing to agree to here")
        if text_sha256 != self.text.sha256:
            raise errors.ConflictError("the text to agree to has changed; read it again")
        return self._store.consents.agree(annotator.id, self.text.text, self.text.version)

    def _look_up(self, annotator_id: int, text_sha256: str, version: str) -> ConsentAgreement:
        agreement = self._store.consents.find(annotator_id, text_sha256, version)
        if agreement is None:
            raise errors.ConsentRequiredError("read and agree to what is collected first: GET and POST /api/v1/consent")
        return agreement


def read_consent(settings: LabelingSettings) -> ConsentText | None:
    """Read the consent text of the settings. Raises SetupError for an unreadable file or an empty text."""
    text_or_path = settings.consent
    if text_or_path is None:
        return None
    text = text_or_path
    if "\n" not in text_or_path and text_or_path.lower().endswith(_CONSENT_FILE_ENDINGS):
        try:
            text = Path(text_or_path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.SetupError(
                f"the text to agree to, DMPO_LABELING__CONSENT={text_or_path}, cannot be read: {error}"
            ) from error
    text = text.strip()
    if not 1 <= len(text) <= MAX_CONSENT_TEXT:
        raise errors.SetupError(f"the text to agree to has {len(text)} characters; expected 1 to {MAX_CONSENT_TEXT}")
    return ConsentText(text, settings.consent_version, sha256_hex(text.encode()))
