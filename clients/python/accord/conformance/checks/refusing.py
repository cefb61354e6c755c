"""What is refused, and that programs can tell why: the gRPC code and ErrorInfo's reason."""

from __future__ import annotations

from accord.conformance.check import check
from accord.conformance.target import PROMPTS, Target, refused
from accord.conformance.verdict import demand
from accord.errors import FailedPrecondition, InvalidArgument
from accord.types import v1 as types_v1


async def _names_the_field(target: Target, field: str, **fields: object) -> None:
    error = await refused(target.responses(target.request(PROMPTS[:1], **fields)), InvalidArgument)
    named = [violation.field for violation in error.violations]
    demand(any(field in name for name in named), f"the error names {named or 'no field'}, not {field}: {error.message}")


@check(
    demands="a request without what is required is INVALID_ARGUMENT and names the field",
    fix="check REQUIRED fields; add BadRequest with the field to the status details",
    acceptance=True,
)
async def missing_fields_are_named(target: Target) -> None:
    await _names_the_field(target, "request_id", request_id="")
    await _names_the_field(target, "sampling", sampling=None)
    await _names_the_field(target, "prompts", prompts=[])


@check(
    demands="values that mean nothing are INVALID_ARGUMENT and name the field",
    fix="check max_new_tokens, temperature and indices before any work",
    acceptance=True,
)
async def bad_values_are_named(target: Target) -> None:
    await _names_the_field(target, "max_new_tokens", sampling=types_v1.SamplingParams(max_new_tokens=-1))
    await _names_the_field(target, "temperature", sampling=types_v1.SamplingParams(max_new_tokens=4, temperature=-1))
    await _names_the_field(target, "indices", indices=[99])


@check(
    demands="a version that is not active is FAILED_PRECONDITION/VERSION_MISMATCH",
    fix="compare GenerateRequest.version with the version in force, again when the work starts",
    acceptance=True,
)
async def another_version_is_refused(target: Target) -> None:
    version = (await target.status()).version
    await refused(target.responses(target.request(version=version + 1_000_000)), FailedPrecondition, "VERSION_MISMATCH")
    await target.samples(target.request(version=version))


@check(
    demands="another tokenizer's fingerprint is FAILED_PRECONDITION/TOKENIZER_MISMATCH",
    fix="compare GenerateRequest.tokenizer_fingerprint with that of the weights in force",
    acceptance=True,
)
async def another_tokenizer_is_refused(target: Target) -> None:
    request = target.request(tokenizer_fingerprint="0" * 64)
    await refused(target.responses(request), FailedPrecondition, "TOKENIZER_MISMATCH")
