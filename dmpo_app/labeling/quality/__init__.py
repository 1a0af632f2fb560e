"""Quality of the votes: agreement, checks, reliability and weights of annotators. Numbers in, numbers out.

Nothing here knows the database, torch or a page; `quality_report` puts it together for people, `vote_weights` for
training.
"""

from dmpo_app.labeling.quality.quality_report import AnnotatorQuality, QualityReport, quality_report
from dmpo_app.labeling.quality.vote_weights import UNWEIGHED, VoteWeighing, VoteWeights

__all__ = ["UNWEIGHED", "AnnotatorQuality", "QualityReport", "VoteWeighing", "VoteWeights", "quality_report"]
