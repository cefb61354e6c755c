"""What the preference service can be told."""

from __future__ import annotations

from pydantic import Field

from accord_runtime.serving.settings import DatabaseSettings, service_config


class PreferenceSettings(DatabaseSettings):
    """Settings of the preference service: environment ACCORD_PREFERENCE_<FIELD>, flags --<field>."""

    model_config = service_config("preference")

    heldout_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of prompts that is held out, by hash. Fixed when a database is made."
    )
    split_salt: str = Field(
        "accord", description="Goes into the split's hash: another salt, another split. Fixed when a database is made."
    )
    lease_seconds: float = Field(
        600, gt=0, description="Seconds a leased task is reserved when the caller does not say."
    )
    max_lease_seconds: float = Field(86_400, gt=0, description="The longest lease that is given, seconds.")
    gold_share: float = Field(
        0.1, ge=0, lt=1, description="Share of leases that hand out a gold task, while there is one for the annotator."
    )
    flags_to_suspend: int = Field(
        2, ge=1, description="Annotators who must flag a task before it is given to nobody until it is resolved."
    )
    max_text_bytes: int = Field(
        2**20, ge=1024, description="The longest answer, or turn of a prompt, that is taken, bytes of UTF-8."
    )
    page_records: int = Field(1000, ge=1, le=1000, description="Records read at a time for an export stream.")
