"""Container of the services behind the page and the JSON API; wiring fills it in."""

from dataclasses import dataclass, field
from functools import cached_property

from dmpo_app.domain.image import BaseModelRef, Sampling
from dmpo_app.domain.render_request import Renderer, ZeroGpuService
from dmpo_app.domain.round import TrainerSupervisor
from dmpo_app.exchange.importing.import_desk import ImportService
from dmpo_app.labeling.service import LabelingService
from dmpo_app.settings import Mode, Settings
from dmpo_app.store import Store


@dataclass(frozen=True)
class Services:
    """The services behind every request. `base` is the lineage that is served."""

    store: Store
    base: BaseModelRef
    settings: Settings
    labeling: LabelingService
    renderer: Renderer
    trainer: TrainerSupervisor
    admin_token: str = field(repr=False)
    """Administrators send it as a Bearer token; never logged, so it is not in the repr either."""
    sampling: Sampling
    """Sampling defaults of the base model, for requests that set none."""
    mode: Mode = "cpu"
    """Hardware mode of the studio, as far as it is known before the model is loaded."""
    gpu_minutes: ZeroGpuService | None = None
    """GPU minutes of ZeroGPU, on the quota of the person who asks; None elsewhere."""

    @cached_property
    def imports(self) -> ImportService:
        """The import desk for data sets that administrators send; whoever opens the studio closes it."""
        return ImportService(self.store, self.base, self.settings)
