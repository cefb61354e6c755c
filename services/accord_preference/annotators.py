"""Annotators: registration, exclusion, reinstatement and withdrawal. Feedback itself is never deleted."""

from __future__ import annotations

from typing import Any

from accord.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from accord.preference import v1 as preference_v1
from accord_preference import converters
from accord_preference.context import Context, not_found
from accord_preference.domain.judgement import read_text
from accord_preference.storage.store import AnnotatorRow, Reader, Writer
from accord_runtime.serving.paging import read_page

ACTIVE = preference_v1.ANNOTATOR_STATE_ACTIVE
EXCLUDED = preference_v1.ANNOTATOR_STATE_EXCLUDED
WITHDRAWN = preference_v1.ANNOTATOR_STATE_WITHDRAWN


class Annotators:
    """The part of the service that manages annotators."""

    def __init__(self, context: Context):
        self._context = context

    async def register(
        self, request: preference_v1.RegisterAnnotatorRequest
    ) -> preference_v1.RegisterAnnotatorResponse:
        """Registers an annotator or renames them; their state does not change."""
        who = request.profile.annotator
        check_annotator(who, "profile.annotator")
        name = read_text(request.profile.display_name, "profile.display_name")

        async def change(tx: Writer) -> preference_v1.RegisterAnnotatorResponse:
            now_us = self._context.now_us()
            await tx.add_annotators([(who.annotator_id, who.kind)], now_us)
            known = await _find(tx, who)
            await tx.put_annotator(known._replace(display_name=name))
            return preference_v1.RegisterAnnotatorResponse(profile=await _profile(tx, who))

        return await self._context.once.run(
            request.request_id, request, preference_v1.RegisterAnnotatorResponse, change
        )

    async def get(self, request: preference_v1.GetAnnotatorRequest) -> preference_v1.GetAnnotatorResponse:
        """One annotator."""
        check_annotator(request.annotator, "annotator")
        async with self._context.store.reading() as tx:
            return preference_v1.GetAnnotatorResponse(profile=await _profile(tx, request.annotator))

    async def page(self, request: preference_v1.ListAnnotatorsRequest) -> preference_v1.ListAnnotatorsResponse:
        """One page of annotators, by id."""
        start: list[Any] = ["", 0]
        page = read_page(request, start, "annotators", request.kind, request.state)
        name, kind = page.after
        async with self._context.store.reading() as tx:
            found = await tx.list_annotators((name, kind), page.size + 1, request.kind, request.state)
            rows, token = page.cut(found, lambda row: [row.annotator_id, row.kind])
            counts = await tx.counts([row.annotator_id for row in rows])
        return preference_v1.ListAnnotatorsResponse(
            profiles=[converters.profile(row, counts.get((row.annotator_id, row.kind), 0)) for row in rows],
            next_page_token=token,
        )

    async def exclude(self, request: preference_v1.ExcludeAnnotatorRequest) -> preference_v1.ExcludeAnnotatorResponse:
        """Excludes an annotator; new snapshots and exports leave out their feedback."""
        reason = read_text(request.reason, "reason")

        async def change(tx: Writer) -> preference_v1.ExcludeAnnotatorResponse:
            await self._set_state(tx, request.annotator, EXCLUDED, reason)
            return preference_v1.ExcludeAnnotatorResponse(profile=await _profile(tx, request.annotator))

        check_annotator(request.annotator, "annotator")
        return await self._context.once.run(request.request_id, request, preference_v1.ExcludeAnnotatorResponse, change)

    async def reinstate(
        self, request: preference_v1.ReinstateAnnotatorRequest
    ) -> preference_v1.ReinstateAnnotatorResponse:
        """Reinstates an excluded annotator."""

        async def change(tx: Writer) -> preference_v1.ReinstateAnnotatorResponse:
            await self._set_state(tx, request.annotator, ACTIVE, "")
            return preference_v1.ReinstateAnnotatorResponse(profile=await _profile(tx, request.annotator))

        check_annotator(request.annotator, "annotator")
        return await self._context.once.run(
            request.request_id, request, preference_v1.ReinstateAnnotatorResponse, change
        )

    async def withdraw(
        self, request: preference_v1.WithdrawAnnotatorRequest
    ) -> preference_v1.WithdrawAnnotatorResponse:
        """Withdraws an annotator permanently and lists the snapshots with their feedback."""
        who, reason = request.annotator, read_text(request.reason, "reason")
        check_annotator(who, "annotator")

        async def change(tx: Writer) -> preference_v1.WithdrawAnnotatorResponse:
            await self._set_state(tx, who, WITHDRAWN, reason)
            uses = await tx.snapshot_uses(annotator=(who.annotator_id, who.kind))
            return preference_v1.WithdrawAnnotatorResponse(
                profile=await _profile(tx, who), snapshots=[converters.snapshot_use(*use) for use in uses]
            )

        return await self._context.once.run(
            request.request_id, request, preference_v1.WithdrawAnnotatorResponse, change
        )

    async def _set_state(self, tx: Writer, who: preference_v1.Annotator, state: int, reason: str) -> None:
        known = await _find(tx, who)
        if known.state == WITHDRAWN and state != WITHDRAWN:
            raise FailedPrecondition(
                f"{who.annotator_id} has withdrawn, and this cannot be undone",
                reason="ANNOTATOR_WITHDRAWN",
                metadata=_named(who),
            )
        if known.state != state:
            await tx.put_annotator(known._replace(state=state, reason=reason, state_us=self._context.now_us()))


async def _find(tx: Reader, who: preference_v1.Annotator) -> AnnotatorRow:
    known = await tx.annotator(who.annotator_id, who.kind)
    if known is None:
        raise not_found("annotator", who.annotator_id, "annotator")
    return known


async def _profile(tx: Reader, who: preference_v1.Annotator) -> preference_v1.AnnotatorProfile:
    counts = await tx.counts([who.annotator_id])
    return converters.profile(await _find(tx, who), counts.get((who.annotator_id, who.kind), 0))


def _named(who: preference_v1.Annotator) -> dict[str, str]:
    return {"annotator_id": who.annotator_id}


def check_annotator(annotator: preference_v1.Annotator, path: str) -> None:
    """InvalidArgument for an annotator without an id or of an unknown kind."""
    if not annotator.annotator_id:
        raise InvalidArgument.at(f"{path}.annotator_id", "must be set")
    known = (
        preference_v1.ANNOTATOR_KIND_HUMAN,
        preference_v1.ANNOTATOR_KIND_SIMULATED,
        preference_v1.ANNOTATOR_KIND_MODEL,
    )
    if annotator.kind not in known:
        raise InvalidArgument.at(f"{path}.kind", "must be set to the kind of annotator: human, simulated or model")


async def admit(tx: Writer, annotator: preference_v1.Annotator, now_us: int) -> None:
    """Registers a new annotator. PermissionDenied, ANNOTATOR_EXCLUDED, for an inactive one."""
    known = await tx.annotator(annotator.annotator_id, annotator.kind)
    if known is None:
        await tx.add_annotators([(annotator.annotator_id, annotator.kind)], now_us)
    elif known.state != preference_v1.ANNOTATOR_STATE_ACTIVE:
        why = "has withdrawn" if known.state == preference_v1.ANNOTATOR_STATE_WITHDRAWN else "is excluded"
        raise PermissionDenied(
            f"{annotator.annotator_id} {why}: they get no tasks, and their feedback is not accepted",
            reason="ANNOTATOR_EXCLUDED",
            metadata={"annotator_id": annotator.annotator_id},
        )
