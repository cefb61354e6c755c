"""Settings of the preference service."""

from __future__ import annotations

from pydantic import Field

from accord_runtime.serving.settings import DatabaseSettings, service_config


class PreferenceSettings(DatabaseSettings):
    """Settings of the preference service: environment ACCORD_PREFERENCE_<FIELD>, flags --<field>."""

    model_config = service_config("preference")

    heldout_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of prompts held out, by hash. Fixed when the database is created.",
    )
    split_salt: str = Field(
        "accord",
        description="Salt of the split's hash. Another salt gives another split. Fixed when the database is created.",
    )
    lease_seconds: float = Field(
        600, gt=0, description="Duration of a task lease when the request does not set one, seconds."
    )
    max_lease_seconds: float = Field(86_400, gt=0, description="The longest task lease, seconds.")
    gold_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of leases that are for a gold task, while one is available for the annotator.",
    )
    flags_to_suspend: int = Field(
        2, ge=1, description="Number of annotators whose flags suspend a task until it is resolved."
    )
    max_text_bytes: int = Field(
        2**20, ge=1024, description="The longest completion or prompt turn that is accepted, bytes of UTF-8."
    )
    page_records: int = Field(1000, ge=1, le=1000, description="Records that an export stream reads at a time.")
