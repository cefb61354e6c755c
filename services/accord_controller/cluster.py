"""A client of one namespace of a Kubernetes cluster, for the launcher and the operator. Objects are plain dicts, every
call has a deadline, and every failure is an AccordError."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from accord.errors import (
    Aborted,
    AccordError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

Object = dict[str, Any]
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MANAGER = "accord"
CALL_SECONDS = 20.0
# kind -> API path and plural.
KINDS: Mapping[str, tuple[str, str]] = {
    "Service": ("api/v1", "services"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "Run": ("apis/accord.dev/v1", "runs"),
}


class Cluster:
    """Connects at the first call, as the pod's service account or, outside a cluster, with KUBECONFIG."""

    def __init__(self, namespace: str = "") -> None:
        """`namespace`: empty for the pod's own namespace, or for `default` outside a cluster."""
        self._namespace = namespace
        self._client: DynamicClient | None = None
        self._connecting = asyncio.Lock()

    @property
    def namespace(self) -> str:
        """The namespace of every call."""
        if not self._namespace:
            own = SERVICE_ACCOUNT / "namespace"
            self._namespace = own.read_text().strip() if own.is_file() else "default"
        return self._namespace

    async def get(self, kind: str, name: str) -> Object | None:
        """An object, or None if it does not exist."""
        try:
            return await self._call("get", self._path(kind, name))
        except NotFound:
            return None

    async def list(self, kind: str, labels: Mapping[str, str], fields: str = "") -> list[Object]:
        """The objects with these labels; an empty value matches any value of the label."""
        selector = ",".join(f"{key}={value}" if value else key for key, value in labels.items())
        found = await self._call("get", self._path(kind), label_selector=selector, field_selector=fields or None)
        return [{"kind": kind, **item} for item in found["items"]]

    async def serves(self, group: str) -> bool:
        """Whether the cluster has an API group now. Not cached, because the group may be installed later."""
        try:
            await self._call("get", f"/apis/{quote(group)}")
        except NotFound:
            return False
        return True

    async def apply(self, body: Object, *, subresource: str = "") -> Object:
        """Creates or updates an object with the fields of `body` (server-side apply); fields that other clients set are
        kept."""
        path = self._path(body["kind"], body["metadata"]["name"]) + (f"/{subresource}" if subresource else "")
        return await self._call(
            "patch",
            path,
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=MANAGER,
            force_conflicts=True,
        )

    async def patch(self, kind: str, name: str, body: Object, *, subresource: str = "") -> Object:
        """Merges `body` into an object."""
        path = self._path(kind, name) + (f"/{subresource}" if subresource else "")
        return await self._call("patch", path, body=body, content_type="application/merge-patch+json")

    async def create(self, kind: str, body: Object) -> Object:
        """Creates an object."""
        return await self._call("post", self._path(kind), body=body)

    async def delete(self, kind: str, name: str) -> None:
        """Deletes an object and, in the background, the objects that it owns. A missing object is not an error."""
        try:
            await self._call("delete", self._path(kind, name), propagation_policy="Background")
        except NotFound:
            return

    async def log(self, pod: str, *, previous: bool = False, lines: int = 12) -> str:
        """The last lines of a pod's log; empty if it has none."""
        query = [("tailLines", lines), ("previous", str(previous).lower())]
        try:
            return await self._text("get", self._path("Pod", pod) + "/log", query_params=query)
        except AccordError:
            return ""

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.client.close()
            self._client = None

    def _path(self, kind: str, name: str = "") -> str:
        root, plural = KINDS[kind]
        path = f"/{root}/namespaces/{self.namespace}/{plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    async def _call(self, method: str, path: str, **options: Any) -> Object:
        found: Object = json.loads(await self._text(method, path, **options))
        return found

    async def _text(self, method: str, path: str, **options: Any) -> str:
        connected = await self._connected()
        try:
            # Each call needs a new dict of headers, because the client adds entries to it.
            response = await connected.request(
                method, path, serialize=False, header_params={}, _request_timeout=CALL_SECONDS,
                **{"query_params": [], **options},
            )  # fmt: skip
            text: str = await response.text()
            return text
        except ApiException as error:
            raise _translated(error, path) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"the Kubernetes API did not answer: {type(error).__name__} {error}", reason="KUBERNETES_UNREACHABLE"
            ) from error

    async def _connected(self) -> DynamicClient:
        async with self._connecting:
            if self._client is None:
                settings = client.Configuration()
                try:
                    if (SERVICE_ACCOUNT / "token").is_file():
                        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                    else:
                        await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                except config.ConfigException as error:
                    raise FailedPrecondition(
                        f"no Kubernetes cluster is configured: {error}. Run in a pod, or set KUBECONFIG",
                        reason="NO_CLUSTER",
                    ) from error
                self._client = DynamicClient(client.ApiClient(configuration=settings))  # type: ignore[no-untyped-call]
            return self._client


def _translated(error: ApiException, path: str) -> AccordError:
    """Converts an API error to an AccordError with the same message."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = f"{error.status} {error.reason}"
    text = f"Kubernetes: {message}"
    if error.status == 404:
        return NotFound(text, reason="NO_SUCH_OBJECT", metadata={"path": path})
    if error.status in (401, 403) and "exceeded quota" not in message:
        return PermissionDenied(f"{text}. Check the permissions of the service account", reason="FORBIDDEN")
    if error.status == 409:
        return Aborted(text, reason="CONFLICT")
    if error.status in (400, 422):
        return InvalidArgument(text, reason="REFUSED_BY_KUBERNETES")
    return Unavailable(text, reason="KUBERNETES")
