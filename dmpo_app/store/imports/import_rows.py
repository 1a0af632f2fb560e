"""Insertion of one batch of an import in a transaction: prompts, images, pairs, annotators, votes, bookmark."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from dmpo_app.domain import data_import
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, ImageKind, PairSource
from dmpo_app.domain.prompt import PromptSource, fold
from dmpo_app.domain.vote import Choice, Outcome
from dmpo_app.errors import ConflictError
from dmpo_app.store import schema
from dmpo_app.store.db.column_types import insert_in_order
from dmpo_app.store.files import Files
from dmpo_app.store.imports import import_ledger

HELD_OUT = "prompt is held out of training"
SAMPLER = "imported"
"""The sampler of an imported image; the other columns of its provenance are empty."""
TAG = "imported"
"""The tag of imported prompts. They are retired: no new pairs are made of them until somebody restores them."""

_COUNT_VOTES = (
    update(schema.PairRow)
    .where(schema.PairRow.id == bindparam("pair"))
    .values(
        num_votes=schema.PairRow.num_votes + bindparam("more"), num_taken=schema.PairRow.num_taken + bindparam("more")
    )
)
_MARK_OFFERED = update(schema.PairRow).where(schema.PairRow.id == bindparam("pair")).values(is_offered=True)


@dataclass(frozen=True, slots=True)
class ImportContext:
    """The context of inserting a batch. `stored_names`: of its image files, by the original files' hash."""

    files: Files
    base: BaseModelRef
    state: data_import.ImportRecord
    stored_names: Mapping[str, str]
    at: datetime


def insert_batch(
    connection: Connection, *, context: ImportContext, batch: data_import.ImportBatch
) -> data_import.ImportCounts:
    """Insert a batch whose images are stored; returns the counts of the whole import. See `Imports.insert_batch`."""
    state, base = context.state, context.base
    row = connection.execute(select(schema.ImportRow.bookmark).where(schema.ImportRow.id == state.id)).one()
    if row.bookmark != (None if state.bookmark is None else dict(state.bookmark)):
        raise ConflictError("this data set is being imported by another process; wait for it to end")
    use = state.spec.use
    held_out_prompts = _find_held_out(connection, batch.pairs)
    usable_pairs = [pair for pair in batch.pairs if pair.prompt not in held_out_prompts]
    left_out = [*batch.left_out, *((pair.row, HELD_OUT) for pair in batch.pairs if pair.prompt in held_out_prompts)]
    index = import_ledger.DuplicateIndex()
    index.load(connection, base.id, usable_pairs)
    checked_pairs = [(pair, index.check(pair, use)) for pair in usable_pairs]
    new_ids = _insert_pairs(connection, context, [pair for pair, verdict in checked_pairs if verdict.is_new_pair])
    ids = {key: known.id for key, known in index.pairs.items()} | new_ids
    _insert_votes(connection, context, [(ids[pair.key], pair, verdict) for pair, verdict in checked_pairs])
    if use.offers_pairs and (existing_pairs := [pair for pair, verdict in checked_pairs if not verdict.is_new_pair]):
        connection.execute(_MARK_OFFERED, [{"pair": ids[pair.key]} for pair in existing_pairs])
    _insert_left_out(connection, state, left_out)
    reasons = Counter(reason for _, reason in left_out)
    counts = (
        state.counts
        + import_ledger.count_checked(checked_pairs, use)
        + data_import.ImportCounts(rows=batch.num_rows, left_out=dict(reasons))
    )
    values = {"bookmark": dict(batch.bookmark), "counts": asdict(counts), "is_complete": batch.is_last}
    connection.execute(
        update(schema.ImportRow).where(schema.ImportRow.id == state.id).values(changed_at=context.at, **values)
    )
    return counts


def _find_held_out(connection: Connection, pairs: Sequence[data_import.ImportedPair]) -> set[str]:
    """Find the prompts of these pairs that are held out, or have a twin that is."""
    folded = {prompt: fold(prompt) for prompt in {pair.prompt for pair in pairs}}
    held_out_folded: set[str] = set()
    for chunk in import_ledger.split_chunks(set(folded.values())):
        query = select(schema.PromptRow.folded).where(schema.PromptRow.folded.in_(chunk), schema.PromptRow.held_out)
        held_out_folded.update(connection.execute(query).scalars())
    return {prompt for prompt, value in folded.items() if value in held_out_folded}


def _ensure_prompt_ids(connection: Connection, texts: Sequence[str], at: datetime) -> dict[str, int]:
    unique_texts = list(dict.fromkeys(texts))
    ids_by_text = _find_prompts(connection, unique_texts)
    new = [text for text in unique_texts if text not in ids_by_text]
    if new:
        values = {"held_out": False, "source": PromptSource.IMPORT, "created_at": at, "retired_at": at}
        connection.execute(insert(schema.PromptRow), [{"text": text, "folded": fold(text), **values} for text in new])
        added = _find_prompts(connection, new)
        connection.execute(insert(schema.PromptTagRow), [{"prompt_id": added[text], "tag": TAG} for text in new])
        ids_by_text |= added
    return ids_by_text


def _find_prompts(connection: Connection, texts: Sequence[str]) -> dict[str, int]:
    ids_by_text: dict[str, int] = {}
    for chunk in import_ledger.split_chunks(texts):
        query = select(schema.PromptRow.text, schema.PromptRow.id).where(schema.PromptRow.text.in_(chunk))
        ids_by_text |= {row.text: row.id for row in connection.execute(query)}
    return ids_by_text


def _insert_pairs(
    connection: Connection, context: ImportContext, pairs: Sequence[data_import.ImportedPair]
) -> dict[str, int]:
    """Insert new pairs with their prompts and images; returns their ids by key."""
    if not pairs:
        return {}
    prompts = _ensure_prompt_ids(connection, [pair.prompt for pair in pairs], context.at)
    images = [_image_row(context, pair.prompt, image) for pair in pairs for image in (pair.image_a, pair.image_b)]
    ids = insert_in_order(connection, schema.ImageRow.id, images)
    rows = [
        {
            "base_id": context.base.id,
            "prompt_id": prompts[pair.prompt],
            "image_a_id": ids[2 * number],
            "image_b_id": ids[2 * number + 1],
            "source": PairSource.IMPORT,
            "adapter_version": BASE_VERSION,
            "created_at": context.at,
            "is_offered": context.state.spec.use.offers_pairs,
            "is_encoded": False,
        }
        for number, pair in enumerate(pairs)
    ]
    pair_ids = insert_in_order(connection, schema.PairRow.id, rows)
    new = {pair.key: pair_id for pair, pair_id in zip(pairs, pair_ids, strict=True)}
    origins = [
        {
            "pair_id": new[pair.key],
            "base_id": context.base.id,
            "import_id": context.state.id,
            "source_row": pair.row,
            "content_key": pair.key,
            "sha256_a": pair.image_a.sha256,
            "origin": {"a": dict(pair.image_a.origin), "b": dict(pair.image_b.origin)},
        }
        for pair in pairs
    ]
    connection.execute(insert(schema.ImportedPairRow), origins)
    return new


def _image_row(context: ImportContext, prompt: str, image: data_import.ImportedImage) -> dict[str, Any]:
    if image.png is None:
        raise ConflictError("a pair that was known is gone; start the import again")
    sha256 = context.stored_names[image.sha256]
    if not context.files.has_image(sha256):
        context.files.put_image(image.png)  # a purge has just deleted a render that is the same
    return {
        "base_id": context.base.id,
        "kind": ImageKind.PAIR,
        "sha256": sha256,
        "width": image.width,
        "height": image.height,
        "prompt": prompt,
        "seed": 0,
        "sampler": SAMPLER,
        "num_steps": 0,
        "guidance": 0.0,
        "adapter_version": BASE_VERSION,
        "strength": 0.0,
        "batch_size": 0,
        "num_threads": 0,
        "device": "",
        "dtype": "",
        "created_at": context.at,
    }


def _insert_votes(
    connection: Connection,
    context: ImportContext,
    checked_pairs: Sequence[tuple[int, data_import.ImportedPair, import_ledger.DuplicateCheck]],
) -> None:
    votes = [
        (pair_id, pair.row, pair.vote.with_image_order(swapped=verdict.swapped))
        for pair_id, pair, verdict in checked_pairs
        if verdict.is_new_vote and pair.vote is not None
    ]
    if not votes:
        return
    annotators = _ensure_annotators(connection, [vote for _, _, vote in votes], context.at)
    assignments = [_assignment_row(context, pair_id, annotators[vote.voter_key], vote) for pair_id, _, vote in votes]
    assignment_ids = insert_in_order(connection, schema.AssignmentRow.id, assignments)
    rows = [
        {
            "assignment_id": showing_id,
            "base_id": context.base.id,
            "annotator_id": annotators[vote.voter_key],
            "pair_id": pair_id,
            "choice": _choice(vote),
            "outcome": vote.outcome,
            "elapsed_ms": vote.elapsed_ms,
            "created_at": context.at,
            "question": vote.question,
            "strength": vote.strength,
            "comment": vote.comment,
        }
        for showing_id, (pair_id, _, vote) in zip(assignment_ids, votes, strict=True)
    ]
    vote_ids = insert_in_order(connection, schema.VoteRow.id, rows)
    origins = [
        {"vote_id": vote_id, "import_id": context.state.id, "source_row": row, "given_at": vote.given_at}
        for vote_id, (_, row, vote) in zip(vote_ids, votes, strict=True)
    ]
    connection.execute(insert(schema.ImportedVoteRow), origins)
    per_pair = Counter(pair_id for pair_id, _, _ in votes)
    connection.execute(_COUNT_VOTES, [{"pair": pair_id, "more": count} for pair_id, count in per_pair.items()])


def _assignment_row(
    context: ImportContext, pair_id: int, annotator_id: int, vote: data_import.ImportedVote
) -> dict[str, Any]:
    return {
        "public_id": secrets.token_urlsafe(18),
        "base_id": context.base.id,
        "annotator_id": annotator_id,
        "pair_id": pair_id,
        "question": vote.question,
        "a_on_left": vote.a_on_left,
        "state": schema.AssignmentState.ANSWERED,
        "created_at": context.at,
        "opened_at": context.at,
        "expires_at": context.at,
    }


def _choice(vote: data_import.ImportedVote) -> Choice:
    if vote.outcome in (Outcome.A, Outcome.B):
        return Choice.LEFT if (vote.outcome is Outcome.A) == vote.a_on_left else Choice.RIGHT
    return Choice(vote.outcome.value)


def _ensure_annotators(
    connection: Connection, votes: Sequence[data_import.ImportedVote], at: datetime
) -> Mapping[str, int]:
    local_ids = {vote.voter_key: vote.annotator_id for vote in votes if vote.annotator_id is not None}
    handles = {vote.identity: vote.handle for vote in votes if vote.annotator_id is None}
    imported_ids = import_ledger.find_annotator_ids(connection, handles)
    new = [
        {"public_id": secrets.token_urlsafe(16), "handle": handle, "created_at": at, "identity": identity}
        for identity, handle in handles.items()
        if identity not in imported_ids
    ]
    if new:
        connection.execute(insert(schema.AnnotatorRow), new)
        imported_ids = import_ledger.find_annotator_ids(connection, handles)
    return local_ids | imported_ids


def _insert_left_out(
    connection: Connection, state: data_import.ImportRecord, left_out: Sequence[tuple[str, str]]
) -> None:
    if left_out:
        rows = [{"import_id": state.id, "source_row": row, "reason": reason} for row, reason in left_out]
        connection.execute(insert(schema.ImportLeftOutRow), rows)
