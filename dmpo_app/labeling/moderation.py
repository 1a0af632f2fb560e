"""Moderation by administrators: settling reports one by one or all at once, and striking annotators.

Every method is an act of `by`, on record in the audit log.
"""

from dmpo_app.domain.campaign import Report, ReportRules, StruckAnnotator
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.labeling.quality.quality_report import hash_name
from dmpo_app.labeling.quality.standing import Standings
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.store import Store


class Moderation:
    """The moderation of one lineage. An annotator is named by public id, or as the quality report has them."""

    def __init__(self, store: Store, base: BaseModelRef, standings: Standings) -> None:
        self._store = store
        self._base = base
        self._standings = standings

    def clear_report(self, report_id: int, *, by: str) -> Report:
        """Clear a report; the pair may come back. Raises NotFoundError."""
        return self._store.reports.clear(self._base, report_id, by=by, rules=self._standings.report_rules())

    def confirm_report(self, report_id: int, *, by: str) -> Report:
        """Confirm a report: its pair is retired for all, until the report is cleared. Raises NotFoundError."""
        return self._store.reports.confirm(self._base, report_id, by=by, rules=self._standings.report_rules())

    def clear_reports(self, *, by: str, annotator: str | None = None) -> int:
        """Clear all open reports but confirmed ones, or one annotator's; returns how many. Raises NotFoundError."""
        annotator_id = None if annotator is None else self.find_annotator(annotator)
        rules = self._standings.report_rules()
        return self._store.reports.clear_all(self._base, by=by, annotator_id=annotator_id, rules=rules)

    def strike(self, annotator: str, *, by: str) -> StruckAnnotator:
        """Strike an annotator: votes and reports of theirs do not count, prompts they proposed are retired.

        Raises NotFoundError.
        """
        annotator_id = self.find_annotator(annotator)
        struck = self._store.strikes.strike(annotator_id, by=by, rules=self._rules_of_lineages(annotator_id))
        self._standings.forget()
        return struck

    def restore(self, annotator: str, *, by: str) -> None:
        """Undo `strike`: everything is as if it had not been. Raises NotFoundError."""
        annotator_id = self.find_annotator(annotator)
        self._store.strikes.restore(annotator_id, by=by)
        self._standings.forget()  # they may be established again, and their reports weigh by that
        self._store.reports.settle_reported_by(annotator_id, self._rules_of_lineages(annotator_id))

    def _rules_of_lineages(self, annotator_id: int) -> dict[int, ReportRules]:
        """The rules of every lineage in which an annotator has open reports, by its id: each knows its own people."""
        lineages = self._store.reports.lineages_reported_by(annotator_id)
        return {base.id: self._standings.of_lineage(base).report_rules() for base in lineages}

    def find_annotator(self, name: str) -> int:
        """Find an annotator's id, by public id or by the name that reports and the list of the struck give them.

        Raises NotFoundError.
        """
        key = load_or_create_key(self._store.home)
        for annotator_id, public_id in self._store.vote_records.public_ids(self._base).items():
            if name == hash_name(key, public_id):
                return annotator_id
        for struck in self._store.strikes.list():  # votes of theirs, if any, may be of another lineage
            if name == hash_name(key, struck.public_id):
                return self._store.annotators.get(struck.public_id).id
        return self._store.annotators.get(name).id
