"""Reasons of what every service shares: serving, the database, transfers of weights, plug-ins."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "ARTIFACT_NOT_FOUND": Reason(
        "The published weights with this id do not exist, or were freed.",
        "Publish them again.",
    ),
    "DATABASE_BEHIND": Reason(
        "The schema of the database is older than this version needs.",
        "Run the package's `migrate` module as the message says, or start the service with `--migrations on-start`.",
    ),
    "DATABASE_BUSY": Reason(
        "Too many calls are waiting for a connection to the database.",
        "Repeat the call in a moment.",
    ),
    "DATABASE_CONFLICT": Reason(
        "Another call changed the same rows at the same time; nothing of this call was kept.",
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
        "The database has a schema that this version does not know, for example of a newer version.",
        "Use the version of Accord that made the database, or another database.",
    ),
    "DATABASE_UNREACHABLE": Reason(
        "The database cannot be opened: wrong credentials, name, path or permissions.",
        "Correct `--database-url`, or the permissions of the folder.",
    ),
    "DIGEST_MISMATCH": Reason(
        "The weights are not the ones that were asked for: their digest differs.",
        "Publish the weights again, then repeat the call.",
    ),
    "DISK_FULL": Reason(
        "There is not enough free disk space; nothing was written.",
        "Free some space (`accord gc` deletes what nothing uses), then repeat the call.",
    ),
    "DRAINING": Reason(
        "The service is shutting down and takes no new calls.",
        "Repeat the call when the service is back.",
    ),
    "FETCH_TIMEOUT": Reason(
        "Weights were not fetched and verified within the time allowed.",
        "Raise `--fetch-seconds`, or publish nearer to the service.",
    ),
    "FILE_NOT_FOUND": Reason(
        "The published weights have no file of this name.",
        "List the files of the artifact with GetArtifact.",
    ),
    "LEASE_HELD": Reason(
        "Another holder, such as a run, has the service for itself.",
        "Wait until the holder is done, or pause its run with `accord runs pause`.",
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
        "Restore the file from a backup, or name another file in `--database-url`.",
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
        "The service cannot listen on the address that it was given.",
        "Choose another `--port` (or `--metrics-port`, if the message names metrics), or stop the process that uses"
        " the port.",
    ),
    "REQUEST_ID_REUSED": Reason(
        "The `request_id` was used before, for a request with other content.",
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
        "A transfer of weights was given up because its call ended.",
        "Repeat the call if the weights are still needed.",
    ),
    "TRANSFER_STALLED": Reason(
        "The source of the weights sent almost nothing for some time.",
        "Check that the source is alive and the network works; the caller may repeat the call.",
    ),
    "UNEXPECTED": Reason(
        "The service met an error that it did not foresee.",
        "Look into the log of the service, which has the trace, and report it.",
    ),
    "UNKNOWN_STORE": Reason(
        "The scheme of the database URL names no installed database.",
        "Correct `--database-url`; the message lists what is available.",
    ),
    "WEIGHTS_DAMAGED": Reason(
        "A safetensors file is damaged or incomplete.",
        "Fetch or publish the weights again.",
    ),
    "WEIGHTS_NOT_FOUND": Reason(
        "There are no weights at the given place, or none with the given digest.",
        "Check the path, URI or digest; the weights may have been freed.",
    ),
}
