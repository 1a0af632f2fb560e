"""Routes of the effects of versions: measures of images that moved, prompts that changed most, agreement with votes."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from dmpo_app.domain.effects import EffectUnit, VersionComparison, held_out_agreement
from dmpo_app.web.error_responses import StudioRoute, document_errors
from dmpo_app.web.routes.studio_routes import IMAGE_LIFETIME, VersionPath
from dmpo_app.web.routes.voting_routes import image_url
from dmpo_app.web.services import RequestLimiters, Services


class EffectOut(BaseModel):
    measure: str
    words: str = Field(description="The direction that the mean took, such as darker.")
    moved: bool = Field(description="Beyond chance, at 5 % over all measures together.")
    p_value: float = Field(description="Corrected for the number of measures.")
    num_agreeing: int = Field(description="Images that moved in this direction.")
    size: float
    low: float = Field(description="Lower end of the size's 95 % interval over prompts.")
    high: float
    unit: EffectUnit = Field(
        description="percent: of the other version's mean; points: hundredths of the measure's scale; deviations: "
        "standard deviations between the other version's images."
    )
    deviations: float = Field(description="The size in such standard deviations, to compare measures by.")


class PromptChangeOut(BaseModel):
    prompt: str
    change: float = Field(description="Mean absolute difference of pixels, in percent of their range.")
    seed: int = Field(description="The seed of the two images, which changed most.")
    url: str
    other_url: str


class ComparisonOut(BaseModel):
    other_version: int
    sentence: str
    num_images: int
    num_prompts: int
    mean_change: float = Field(description="As the change of a prompt, over all images.")
    measures: list[EffectOut] = Field(description="The surest first.")
    prompts_changed_most: list[PromptChangeOut]


class EffectsAnswer(BaseModel):
    version: int
    held_out_votes: int = Field(description="Votes that it was not trained on and was judged by; 0: none.")
    held_out_agreeing: int = Field(description="Those of them that it agrees with.")
    comparisons: list[ComparisonOut] = Field(
        description="Empty until they are measured, in the background after the version was published."
    )


def effects_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about what versions have learned."""
    router = APIRouter(route_class=StudioRoute)

    @router.get("/adapters/{version}/effects", tags=["versions"], responses=document_errors(404))
    async def effects(version: VersionPath) -> EffectsAnswer:
        """Effects of a version on images of held-out prompts, and its agreement with votes it has not seen."""
        return await limiters.reads.run(lambda: _effects(services, version))

    return router


def _effects(services: Services, version: int) -> EffectsAnswer:
    store, base = services.store, services.base
    agreement = held_out_agreement(store.adapters.get(base, version).metrics)
    return EffectsAnswer(
        version=version,
        held_out_votes=0 if agreement is None else agreement.num_votes,
        held_out_agreeing=0 if agreement is None else agreement.num_agreeing,
        comparisons=[_comparison_out(services, comparison) for comparison in store.effects.list(base, version)],
    )


def _comparison_out(services: Services, comparison: VersionComparison) -> ComparisonOut:
    effects, expires_at = comparison.effects, datetime.now(UTC) + IMAGE_LIFETIME
    return ComparisonOut(
        other_version=comparison.other_version,
        sentence=effects.sentence,
        num_images=effects.num_images,
        num_prompts=effects.num_prompts,
        mean_change=effects.mean_change,
        measures=[
            EffectOut(
                measure=effect.measure,
                words=effect.words,
                moved=effect.moved,
                p_value=effect.p_value,
                num_agreeing=effect.num_agreeing,
                size=effect.size,
                low=effect.low,
                high=effect.high,
                unit=effect.unit,
                deviations=effect.deviations,
            )
            for effect in effects.measures
        ],
        prompts_changed_most=[
            PromptChangeOut(
                prompt=change.prompt,
                change=change.change,
                seed=change.seed,
                url=image_url(services, change.image_id, expires_at),
                other_url=image_url(services, change.other_image_id, expires_at),
            )
            for change in effects.prompts_changed_most
        ],
    )
