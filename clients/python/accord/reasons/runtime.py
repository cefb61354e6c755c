"""Reasons that all services share: serving, the database, transfers of weights, plug-ins."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ARTIFACT_NOT_FOUND": Reason(
        "The published weights with this id do not exist, or were freed.",
        "Publish them again.",
    ),
    "DATABASE_BEHIND": Reason(
        "The schema of the database is older than this version needs.",
        "Run the `migrate` module that the message names, or start the service with `--migrations on-start`.",
    ),
    "DATABASE_BUSY": Reason(
        "Too many calls are waiting for a connection to the database.",
        "Repeat the call in a moment.",
    ),
    "DATABASE_CONFLICT": Reason(
        "Another call changed the same rows at the same time; no changes of this call were kept.",
        "Repeat the call.",
    ),
    "DATABASE_DAMAGED": Reason(
        "PostgreSQL reports that its data is damaged.",
        "Restore the database from a backup.",
    ),
    "DATABASE_ERROR": Reason(
        "The database failed or closed the connection.",
        "Check that the database server runs and that `--database-url` names it, then repeat the call.",
    ),
    "DATABASE_LOCKED": Reason(
        "Another process or transaction held a lock for too long.",
        "Repeat the call; if it happens again, end the process that holds the lock.",
    ),
    "DATABASE_REVISION": Reason(
        "This version does not know the schema of the database, which may come from a newer version.",
        "Use the version of Accord that created the database, or a different database.",
    ),
    "DATABASE_UNREACHABLE": Reason(
        "The database cannot be opened: wrong credentials, name, path or permissions.",
        "Correct `--database-url`, or the permissions of the folder.",
    ),
    "DIGEST_MISMATCH": Reason(
        "The digest of the weights differs from the requested one.",
        "Publish the weights again, then repeat the call.",
    ),
    "DISK_FULL": Reason(
        "There is not enough free disk space; nothing was written.",
        "Free some space (`accord gc` deletes unused weights and checkpoints), then repeat the call.",
    ),
    "DRAINING": Reason(
        "The service is shutting down and takes no new calls.",
        "Repeat the call when the service has restarted.",
    ),
    "FETCH_TIMEOUT": Reason(
        "Weights were not fetched and verified within the time limit.",
        "Raise `--fetch-seconds`, or publish closer to the service.",
    ),
    "FILE_NOT_FOUND": Reason(
        "The published weights have no file with this name.",
        "List the files of the artifact with GetArtifact.",
    ),
    "LEASE_HELD": Reason(
        "The service is leased to another client, such as a run.",
        "Wait until the other client has finished, or pause its run with `accord runs pause`.",
    ),
    "MISSING_EXTRA": Reason(
        "A Python package that this feature needs is not installed.",
        "Run the `pip install` that the message names.",
    ),
    "NAME_TOO_LONG": Reason(
        "A name or an id of the request is too long for the database.",
        "Use at most 2,000 bytes.",
    ),
    "NOT_A_DATABASE": Reason(
        "The file is not an SQLite database of Accord, or is damaged.",
        "Restore the file from a backup, or choose a different file with `--database-url`.",
    ),
    "NO_DRIVER": Reason(
        "The Python driver of this database is not installed.",
        "Install it: `pip install 'accord-rlhf[postgres]'`.",
    ),
    "OBJECT_STORE": Reason(
        "The object store refused access to the weights, or did not answer.",
        "Check the credentials and the address of the object store.",
    ),
    "PLUGIN_BROKEN": Reason(
        "A plug-in is installed but cannot be imported.",
        "Install the extra that it needs; the message has the import error.",
    ),
    "PORT_IN_USE": Reason(
        "The service cannot listen on the configured address.",
        "Choose another `--port` (or `--metrics-port`, if the message names metrics), or stop the process that uses"
        " the port.",
    ),
    "REQUEST_ID_REUSED": Reason(
        "The `request_id` was already used for a request with different content.",
        "Use a new `request_id` for each new request.",
    ),
    "REQUIRED_FIELD_MISSING": Reason(
        "Required fields of the request are unset; the field violations name them.",
        "Set the fields that the message names.",
    ),
    "TLS_FILES": Reason(
        "A certificate or key file cannot be read or is not in PEM format.",
        "Correct `--tls-cert`, `--tls-key` or `--tls-client-ca`.",
    ),
    "TRANSFER_GIVEN_UP": Reason(
        "A transfer of weights was abandoned because its call ended.",
        "Repeat the call if the weights are still needed.",
    ),
    "TRANSFER_STALLED": Reason(
        "The source of the weights sent almost no data for some time.",
        "Check that the source is running and the network works; the caller may repeat the call.",
    ),
    "UNEXPECTED": Reason(
        "An unexpected error occurred in the service.",
        "Check the log of the service, which has the traceback, and report it.",
    ),
    "UNKNOWN_STORE": Reason(
        "The scheme of the database URL names no installed database.",
        "Correct `--database-url`; the message lists the available ones.",
    ),
    "WEIGHTS_DAMAGED": Reason(
        "A safetensors file is damaged or incomplete.",
        "Fetch or publish the weights again.",
    ),
    "WEIGHTS_NOT_FOUND": Reason(
        "There are no weights at this location, or none with this digest.",
        "Check the path, URI or digest; the weights may have been freed.",
    ),
}
