"""Prompt routes: listing, import, retiring and splitting for administrators; suggestions, proposals for everybody."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dmpo_app.domain.prompt import (
    MAX_PROMPT,
    MAX_TAG,
    PromptEntry,
    PromptImportPlan,
    PromptQuery,
    PromptSource,
    RefusedPrompt,
)
from dmpo_app.errors import BadInputError
from dmpo_app.labeling.prompt_desk import MAX_SUGGESTIONS, PromptService, clean_tags
from dmpo_app.labeling.prompt_files import parse_text
from dmpo_app.parsing.prompt_rows import TEXT_FORMATS
from dmpo_app.store.prompt_catalog import PromptCatalog
from dmpo_app.web.api_models import INT64_MAX, Integral, NonEmptyText, example
from dmpo_app.web.authentication import AdminToken, SessionToken, require_administrator, require_annotator
from dmpo_app.web.error_responses import StudioRoute, document_admin_errors, document_errors
from dmpo_app.web.services import RequestLimiters, Services

MAX_EDITED = 500
MAX_REFUSED_SHOWN = 200

PromptId = Annotated[int, Field(strict=True, ge=0, le=INT64_MAX), Integral]
Tag = Annotated[NonEmptyText, Field(strict=True, max_length=MAX_TAG)]


class PromptOut(BaseModel):
    id: int
    text: str
    held_out: bool
    source: PromptSource = Field(description="list: a file of the settings; import; annotator: somebody's own.")
    retired: bool = Field(description="No new pairs are made of it.")
    tags: list[str]
    pairs: int
    votes: int
    created_at: datetime

    @classmethod
    def from_entry(cls, prompt: PromptEntry) -> Self:
        return cls(
            id=prompt.id,
            text=prompt.text,
            held_out=prompt.held_out,
            source=prompt.source,
            retired=prompt.retired_at is not None,
            tags=list(prompt.tags),
            pairs=prompt.num_pairs,
            votes=prompt.num_votes,
            created_at=prompt.created_at,
        )


class PromptsAnswer(BaseModel):
    prompts: list[PromptOut] = Field(description="The newest first.")
    total: int = Field(description="How many meet the conditions.")
    more: bool = Field(description="There are older ones; ask again with `before` = the last id.")
    training: int
    held_out: int
    retired: int
    tags: dict[str, int] = Field(description="Prompts of each tag, over all prompts.")


class RefusedOut(BaseModel):
    row: int = Field(description="Line or record of the file, from 1; with /prompts/edit the prompt's id.")
    text: str
    reason: str
    like: str = Field(description="The prompt it is too close to, if that is why.")

    @classmethod
    def from_refused(cls, row: RefusedPrompt) -> Self:
        return cls(row=row.row, text=row.text, reason=row.reason.value, like=row.similar_prompt)


class ImportAnswer(BaseModel):
    dry_run: bool
    new: int
    held_out: int = Field(description="Of the new ones.")
    known: int = Field(description="There already; they get the tags.")
    refused: dict[str, int] = Field(description="Rows by reason.")
    rows: list[RefusedOut] = Field(description=f"The refused ones, {MAX_REFUSED_SHOWN} at most.")

    @classmethod
    def from_plan(cls, plan: PromptImportPlan, *, dry_run: bool) -> Self:
        return cls(
            dry_run=dry_run,
            new=len(plan.new_prompts),
            held_out=plan.num_held_out,
            known=len(plan.stored_prompts),
            refused={reason.value: count for reason, count in plan.count_refused().items()},
            rows=[RefusedOut.from_refused(row) for row in plan.refusals[:MAX_REFUSED_SHOWN]],
        )


class EditBody(BaseModel):
    model_config = example(
        {"oneOf": [
            {"required": ["tag"], "properties": {"act": {"enum": ["tag", "untag"]}, "tag": {"type": "string"}}},
            {"properties": {"act": {"enum": ["retire", "restore", "hold_out", "train"]}}},
        ]},
        prompts=[12, 15], act="tag", tag="animals",
    )  # fmt: skip

    prompts: Annotated[list[PromptId], Field(min_length=1, max_length=MAX_EDITED)]
    act: Literal["retire", "restore", "tag", "untag", "hold_out", "train"] = Field(
        description="hold_out and train move prompts to a side of the split."
    )
    tag: Tag | None = Field(default=None, description="With tag and untag.")


class EditAnswer(BaseModel):
    done: int = Field(description="Prompts that are as asked for now.")
    refused: list[RefusedOut] = Field(description="Prompts that could not change sides.")


class ProposalBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a lighthouse in a storm"}]})

    text: Annotated[str, Field(strict=True, max_length=MAX_PROMPT)]


class ProposalAnswer(BaseModel):
    text: str = Field(description="As it is kept.")
    created: bool = Field(description="False: the campaign had it already.")


class SuggestionOut(BaseModel):
    text: str
    held_out: bool = Field(description="The model never trained on it.")


class SuggestionsAnswer(BaseModel):
    suggestions: list[SuggestionOut]


MAX_UPLOAD_BYTES = 4 * 1024 * 1024
MAX_PAGE = 200

Search = Annotated[str, Query(max_length=200, description="Beginnings of words; all of them have to occur.")]
TagParameter = Annotated[str | None, Query(max_length=MAX_TAG)]
Format = Annotated[
    Literal["txt", "csv", "tsv", "jsonl", "json"], Query(description="How the body is written, as a file's ending.")
]
Share = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="0: train on all; 1: hold all out.")]


class PromptUploadRoute(StudioRoute):
    """A route whose body is a text file of prompts."""

    max_body_bytes = MAX_UPLOAD_BYTES


def prompts_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1/prompts. Raises SetupError when the list of blocked words cannot be read."""
    desk = PromptService(services.store, services.base, services.settings, services.labeling.standings)
    router = APIRouter(route_class=StudioRoute)
    _add_public_routes(router, services, desk, limiters)
    _add_administration(router, services, desk, limiters)
    router.include_router(_import_router(services, desk, limiters))
    return router


def _add_public_routes(router: APIRouter, services: Services, desk: PromptService, limiters: RequestLimiters) -> None:
    @router.get("/prompts/suggestions", tags=["prompts"])
    async def suggestions(
        like: Search = "", count: Annotated[int, Query(ge=1, le=MAX_SUGGESTIONS)] = 8
    ) -> SuggestionsAnswer:
        """Prompts of the set that hold words beginning like these, the shortest first; none that are retired."""

        def work() -> SuggestionsAnswer:
            suggestions_out = [
                SuggestionOut(text=item.text, held_out=item.held_out) for item in desk.suggest(like, count)
            ]
            return SuggestionsAnswer(suggestions=suggestions_out)

        return await limiters.reads.run(work)

    @router.post(
        "/prompts",
        tags=["prompts"],
        status_code=201,
        responses={
            200: {"model": ProposalAnswer, "description": "The campaign had it already."},
            **document_errors(401, 403, 413, 429, 503, 507),
        },
    )
    async def propose(body: ProposalBody, token: SessionToken, response: Response) -> ProposalAnswer:
        """Add a prompt of one's own to those that pairs are made of, if the campaign allows it (403 if not)."""

        def work() -> ProposalAnswer:
            annotator = require_annotator(services.labeling, token)
            services.labeling.consent.require(annotator)
            text, created = desk.propose(annotator, body.text)
            return ProposalAnswer(text=text, created=created)

        proposal = await limiters.background.run(work)
        response.status_code = 201 if proposal.created else 200
        return proposal


def _add_administration(router: APIRouter, services: Services, desk: PromptService, limiters: RequestLimiters) -> None:
    catalog = services.store.prompt_catalog

    @router.get("/prompts", tags=["administration"], responses=document_admin_errors())
    async def list_prompts(
        token: AdminToken,
        search: Search = "",
        tag: TagParameter = None,
        held_out: bool | None = None,
        retired: bool | None = None,
        before: Annotated[int | None, Query(ge=0, le=INT64_MAX)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> PromptsAnswer:
        """Prompts with their tags, side, pairs and votes."""
        require_administrator(services, token)
        query = PromptQuery(tag=tag, held_out=held_out, retired=retired, before=before, limit=limit + 1)

        def work() -> PromptsAnswer:
            page, counts = desk.page(search=search, query=query), catalog.counts()
            return PromptsAnswer(
                prompts=[PromptOut.from_entry(prompt) for prompt in page.prompts[:limit]],
                total=page.total,
                more=len(page.prompts) > limit,
                training=counts.num_training,
                held_out=counts.num_held_out,
                retired=counts.num_retired,
                tags=dict(counts.tags),
            )

        return await limiters.background.run(work)

    @router.post("/prompts/edit", tags=["administration"], responses=document_admin_errors(404, 413, 507))
    async def edit(body: EditBody, token: AdminToken) -> EditAnswer:
        """Retire, restore, tag, untag prompts, or move them to a side of the split."""
        by = require_administrator(services, token)
        refused = await limiters.background.run(lambda: _edit(desk, catalog, body, by=by))
        num_edited = len(set(body.prompts)) - len(refused)
        return EditAnswer(done=num_edited, refused=[RefusedOut.from_refused(row) for row in refused])


def _import_router(services: Services, desk: PromptService, limiters: RequestLimiters) -> APIRouter:
    router = APIRouter(route_class=PromptUploadRoute, tags=["administration"])

    @router.post(
        "/prompts/import",
        responses=document_admin_errors(413, 507),
        openapi_extra={"requestBody": {"content": {"text/plain": {"schema": {"type": "string"}}}, "required": True}},
    )
    async def import_prompts(
        request: Request,
        token: AdminToken,
        file_format: Annotated[Format, Query(alias="format")] = "txt",
        held_out_share: Share = 0.0,
        tag: Annotated[list[str] | None, Query(max_length=20)] = None,
        column: Annotated[str | None, Query(max_length=200)] = None,
        dry_run: bool = False,
    ) -> ImportAnswer:
        """Import a file of prompts, the body, as UTF-8 text of at most 4 MiB; `dry_run` only says what would be done.

        Importing the same file again changes nothing.
        """
        by = require_administrator(services, token)  # before a byte of the body is read
        content = await request.body()

        def work() -> ImportAnswer:
            rules = desk.rules(held_out_share=held_out_share, tags=tag or ())
            rows = list(parse_text(_text(content), file_format, column=column, limits=desk.parser_limits))
            plan = desk.plan(rows, rules) if dry_run else desk.import_prompts(rows, rules, by=by)
            return ImportAnswer.from_plan(plan, dry_run=dry_run)

        return await limiters.background.run(work)

    return router


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"the file is not UTF-8 text; expected one of: {', '.join(TEXT_FORMATS)}. Parquet goes through "
            "`dmpo prompts import`"
        ) from error


def _edit(desk: PromptService, catalog: PromptCatalog, body: EditBody, *, by: str) -> list[RefusedPrompt]:
    ids = list(dict.fromkeys(body.prompts))
    if body.act in ("hold_out", "train"):
        return desk.move(ids, held_out=body.act == "hold_out", by=by)
    if body.act in ("tag", "untag"):
        if body.tag is None:
            raise BadInputError(f"which tag? {body.act!r} needs one")
        (catalog.tag if body.act == "tag" else catalog.untag)(ids, clean_tags([body.tag]), by=by)
    else:
        (catalog.retire if body.act == "retire" else catalog.restore)(ids, by=by)
    return []
