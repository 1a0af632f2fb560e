"""What the page and the JSON API are given; wiring fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from dmpo_app.domain.lineage import BaseModelRef, Sampling
from dmpo_app.domain.render_request import GpuLending, Renderer
from dmpo_app.domain.round import TrainerSupervisor
from dmpo_app.exchange.importing.import_desk import ImportDesk
from dmpo_app.labeling.service import LabelingService
from dmpo_app.settings import Mode, Settings
from dmpo_app.store import Store


@dataclass(frozen=True)
class Services:
    """The objects behind every request. `base` is the lineage that is served."""

    store: Store
    base: BaseModelRef
    settings: Settings
    labeling: LabelingService
    renderer: Renderer
    trainer: TrainerSupervisor
    admin_token: str = field(repr=False)
    """Administrators send it as a Bearer token; never logged, so it is not in the repr either."""
    sampling: Sampling
    """How the base model's images are made where a request does not say."""
    mode: Mode = "cpu"
    """What the studio runs on, as far as it is known before the model is loaded."""
    lending: GpuLending | None = None
    """On ZeroGPU, where the GPU is lent by the person who asks."""

    @cached_property
    def imports(self) -> ImportDesk:
        """The one desk for data that administrators send; whoever opens the studio closes it."""
        return ImportDesk(self.store, self.base, self.settings)
