"""`accord.Client`: all services of an installation through one object."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio

from accord import _calls, discovery
from accord.channel import TLS, open_channel
from accord.errors import FailedPrecondition
from accord.resources.annotators import Annotators
from accord.resources.models import Models
from accord.resources.preferences import Preferences
from accord.resources.reward import Reward
from accord.resources.rollout import Rollout
from accord.resources.runs import Runs
from accord.resources.trainer import Trainer
from accord.resources.usage import Usage


class Client:
    """A client of one or more services, each by its address `host:port`.

        async with accord.Client(rollout="127.0.0.1:7001") as client:
            async for response in client.rollout.generate(["Hello!"], sampling=SamplingParams(max_new_tokens=32)):
                print(response.sample.text)

    Resources: `rollout`, `reward`, `preferences` and `annotators` (of the preference service), `trainer`, `runs` and
    `models` (of the controller), `usage` (of all). Using one without the address of its service raises
    FailedPrecondition. Connects at the first call. Use it in one event loop; `accord.SyncClient` is the blocking
    version.
    """

    def __init__(
        self,
        *,
        rollout: str | None = None,
        reward: str | None = None,
        preference: str | None = None,
        trainer: str | None = None,
        controller: str | None = None,
        tls: TLS | None = None,
        retry: _calls.RetryPolicy | None = None,
    ) -> None:
        given = (rollout, reward, preference, trainer, controller)
        self.addresses = {name: address for name, address in zip(discovery.SERVICES, given, strict=True) if address}
        self._tls = tls
        self._caller = _calls.Caller(retry or _calls.RetryPolicy())
        self._channels: dict[str, grpc.aio.Channel] = {}

    @classmethod
    def discover(cls, state_dir: Path | None = None) -> Self:
        """A client of the services on this machine, found in `state_dir` (see `accord.discovery`)."""
        found = discovery.addresses(state_dir)
        return cls(
            rollout=found.get("rollout"),
            reward=found.get("reward"),
            preference=found.get("preference"),
            trainer=found.get("trainer"),
            controller=found.get("controller"),
        )

    @cached_property
    def rollout(self) -> Rollout:
        """Samples from a policy."""
        return Rollout(self._channel("rollout"), self._caller)

    @cached_property
    def reward(self) -> Reward:
        """Scores for responses."""
        return Reward(self._channel("reward"), self._caller)

    @cached_property
    def preferences(self) -> Preferences:
        """Prompts, answers, annotation tasks, feedback and snapshots."""
        return Preferences(self._channel("preference"), self._caller)

    @cached_property
    def annotators(self) -> Annotators:
        """Annotators and the quality of their feedback."""
        return Annotators(self._channel("preference"), self._caller)

    @cached_property
    def trainer(self) -> Trainer:
        """Models under training."""
        return Trainer(self._channel("trainer"), self._caller)

    @cached_property
    def runs(self) -> Runs:
        """Runs of the loop."""
        return Runs(self._channel("controller"), self._caller)

    @cached_property
    def models(self) -> Models:
        """The registry of promoted policies."""
        return Models(self._channel("controller"), self._caller)

    @cached_property
    def usage(self) -> Usage:
        """Processor time and GPUs that the services use."""
        return Usage(self._channel, self._caller)

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self.addresses:
            raise FailedPrecondition(
                f"This client has no address of the {service} service. Create it with "
                f'accord.Client({service}="host:port"), or with accord.Client.discover() for services on this machine',
                reason="NO_ADDRESS",
            )
        if service not in self._channels:
            self._channels[service] = open_channel(self.addresses[service], tls=self._tls)
        return self._channels[service]

    async def close(self) -> None:
        """Closes the connections; calls in flight are cancelled."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
