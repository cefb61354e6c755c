"""The trainer through its client: a step happens once, wholly or not at all, and the same again gives the same bits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.trainer import pairs, request_id, rollout, trainer, training

from accord.digest import weights_digest
from accord.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from accord.trainer import v1 as trainer_v1
from accord_models.loading import load_causal_lm, load_reward_model
from accord_runtime.artifacts.fetch import fetch
from accord_runtime.artifacts.transports.file import local_path

pytestmark = pytest.mark.process

METRICS = set(
    "reward score kl_k1 kl_k3 entropy approx_kl clip_fraction ratio_mean ratio_max value_loss policy_loss lr grad_norm "  # noqa: SIM905
    "explained_variance response_tokens eos_rate mismatch_kl kl_coefficient tokens_per_second".split()
)


async def test_ppo_from_create_to_publish(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        made = await client.trainer.create_training(training(tiny_folder))
        assert (made.version, made.checkpoint_version, made.compute_dtype) == (0, 0, "float32")
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        assert put.records == 4
        result = await client.trainer.step("t", put.batch_id, parent_version=0, publish=True)
        assert result.version == 1
        assert set(result.metrics) >= METRICS
        assert result.metrics["mismatch_kl"] == pytest.approx(0, abs=1e-6)
        assert result.metrics["kl_k1"] == pytest.approx(0, abs=1e-5)
        folder = local_path(result.weights.uri)
        assert result.weights.digest == result.digest == weights_digest(folder) != made.digest
        load_causal_lm(folder)
        again = await client.trainer.publish("t")
        assert again == result.weights
        now = await client.trainer.training("t")
        assert (now.version, now.digest) == (1, result.digest)


async def test_a_reward_model_learns_separable_pairs(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        options = {"learning_rate": 3e-3, "head_learning_rate": 1e-2}
        await client.trainer.create_training(training(tiny_folder, algorithm="reward_model", options=options))
        put = await client.trainer.put_experience("t", preferences=pairs(8))
        before = await client.trainer.evaluate("t", put.batch_id)
        for version in range(10):
            result = await client.trainer.step("t", put.batch_id, parent_version=version)
        after = await client.trainer.evaluate("t", put.batch_id)
        assert after["loss"] < 0.6 * before["loss"]
        assert after["accuracy"] == 1.0
        assert after["accuracy/set0"] == after["accuracy/set1"] == 1.0
        assert result.metrics["loss"] < before["loss"]
        weights = await client.trainer.publish("t")
        load_reward_model(local_path(weights.uri))


async def test_ppo_learns_to_say_rewarded_tokens(tiny_folder: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 3e-2, "kl_coefficient": 0.0, "epochs": 4, "minibatch_size": 8}
    prompts = ((5, 6, 7), (8, 9), (10, 11, 12), (13,))
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, options=options))
        folder, digest, scores = tiny_folder, "", []
        for version in range(6):
            samples = rollout(
                folder, prompts=prompts, samples=8, version=version, digest=digest, seed=version, below=100
            )
            put = await client.trainer.put_experience("t", samples=samples)
            result = await client.trainer.step("t", put.batch_id, parent_version=version, publish=True)
            scores.append(result.metrics["score"])
            folder, digest = local_path(result.weights.uri), result.digest
        assert scores[-1] > scores[0] + 0.3, scores


async def test_a_repeated_step_is_answered_and_not_done_again(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        calls = [client.trainer.step("t", put.batch_id, parent_version=0, request_id="once") for _ in range(3)]
        first, *others = await asyncio.gather(*calls)
        assert all(other == first for other in others)
        assert await client.trainer.step("t", put.batch_id, parent_version=0, request_id="once") == first
        assert (await client.trainer.training("t")).version == 1
        with pytest.raises(AlreadyExists) as reused:
            await client.trainer.step("t", put.batch_id, parent_version=1, request_id="once")
        assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_a_step_from_another_parent_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        made = await client.trainer.create_training(training(tiny_folder))
        put = await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        with pytest.raises(FailedPrecondition) as wrong:
            await client.trainer.step("t", put.batch_id, parent_version=3)
        assert wrong.value.reason == "WRONG_PARENT"
        assert wrong.value.metadata["current"] == "0"
        assert (await client.trainer.training("t")).digest == made.digest


async def test_a_batch_is_named_by_its_content(tiny_folder: Path, tmp_path: Path) -> None:
    samples = rollout(tiny_folder)
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        first = await client.trainer.put_experience("t", samples=samples)
        assert await client.trainer.put_experience("t", samples=samples) == first
        assert (await client.trainer.put_experience("t", samples=samples[:2])).batch_id != first.batch_id
        (tmp_path / "trainer/t/batches" / f"{first.batch_id}.binpb").unlink()
        with pytest.raises(NotFound) as gone:
            await client.trainer.step("t", first.batch_id, parent_version=0)
        assert gone.value.reason == "BATCH_NOT_FOUND"


async def test_creating_again_is_the_same_training_and_other_content_is_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    async with trainer(tmp_path) as client:
        first = await client.trainer.create_training(training(tiny_folder))
        assert await client.trainer.create_training(training(tiny_folder)) == first
        with pytest.raises(AlreadyExists) as other:
            await client.trainer.create_training(training(tiny_folder, seed=1))
        assert other.value.reason == "TRAINING_EXISTS"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"algorithm": "nothing"}, "training.algorithm"),
        ({"options": {"learning_rat": 1.0}}, "training.options.learning_rat"),
        ({"options": {"epochs": 0}}, "training.options.epochs"),
        ({"options": {"trainable_layers": 9}}, "training.options.trainable_layers"),
        ({"options": {"lora_rank": 2, "lora_targets": ["nowhere"]}}, "training.options.lora_targets"),
        ({"training_id": "../x"}, "training.training_id"),
    ],
)
async def test_what_is_wrong_with_a_training_is_named(
    tiny_folder: Path, tmp_path: Path, fields: dict[str, object], named: str
) -> None:
    async with trainer(tmp_path) as client:
        with pytest.raises(InvalidArgument) as wrong:
            await client.trainer.create_training(training(tiny_folder, **fields))
        assert [violation.field for violation in wrong.value.violations] == [named]
        assert [one async for one in client.trainer.trainings()] == []


async def test_weights_with_another_digest_are_not_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    wrong = training(tiny_folder)
    wrong.init.digest = "0" * 64
    async with trainer(tmp_path) as client:
        with pytest.raises(FailedPrecondition) as mismatch:
            await client.trainer.create_training(wrong)
        assert mismatch.value.reason == "DIGEST_MISMATCH"


async def test_published_weights_are_served_to_other_machines(tiny_folder: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with trainer(tmp_path, port=port) as client:
        await client.trainer.create_training(training(tiny_folder))
        weights = await client.trainer.publish("t", scheme="grpc")
        assert weights.uri.startswith(f"grpc://127.0.0.1:{port}/t-0-")
        copy = await fetch(weights, tmp_path / "elsewhere")
        assert weights_digest(copy) == weights.digest


async def test_what_nothing_needs_is_freed_and_the_rest_stays(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path, max_loaded=2) as client:
        await client.trainer.create_training(training(tiny_folder, "a"))
        first = await client.trainer.publish("a")
        second = training(tiny_folder, "b")
        second.init.CopyFrom(first)
        await client.trainer.create_training(second)
        put = await client.trainer.put_experience("b", samples=rollout(local_path(first.uri), digest=first.digest))
        stepped = await client.trainer.step("b", put.batch_id, parent_version=0, publish=True)
        shown = await client.trainer.free_artifacts([], ["b"], dry_run=True)
        assert sorted(map(Path, shown.freed)) == sorted([Path("a"), local_path(stepped.weights.uri)])
        assert shown.freed_bytes > 0
        assert local_path(stepped.weights.uri).is_dir()
        freed = await client.trainer.free_artifacts([], ["b"])
        assert freed == shown
        assert not local_path(stepped.weights.uri).exists()
        assert local_path(first.uri).is_dir()  # b is restored from it
        assert [one.training_id async for one in client.trainer.trainings()] == ["b"]


async def test_a_lease_excludes_other_clients(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        lease = await client.trainer.acquire_lease("runs/a", ttl_seconds=60)
        with pytest.raises(FailedPrecondition) as held:
            await client.trainer.create_training(training(tiny_folder))
        assert held.value.reason == "LEASE_HELD"
        await client.trainer.create_training(training(tiny_folder), request_id="r", lease_token=lease.token)
        with pytest.raises(FailedPrecondition):
            await client.trainer.put_experience("t", samples=rollout(tiny_folder))
        assert (await client.trainer.status()).lease.holder == "runs/a"
        await client.trainer.release_lease(lease.token)
        await client.trainer.create_training(training(tiny_folder), request_id="r")  # the token is not part of it


async def test_a_deleted_training_is_gone_and_its_name_free(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder))
        await client.trainer.delete_training("t")
        with pytest.raises(NotFound):
            await client.trainer.training("t")
        assert not (tmp_path / "trainer/t").exists()
        await client.trainer.create_training(training(tiny_folder, seed=5), request_id=request_id())


async def test_trainings_take_turns_in_memory(tiny_folder: Path, tmp_path: Path) -> None:
    async with trainer(tmp_path, max_loaded=1) as client:
        samples = rollout(tiny_folder)
        for name in ("a", "b"):
            await client.trainer.create_training(training(tiny_folder, name))
        batches = {n: (await client.trainer.put_experience(n, samples=samples)).batch_id for n in ("a", "b")}
        a, b = await asyncio.gather(*(client.trainer.step(n, batches[n], parent_version=0) for n in ("a", "b")))
        assert a.digest == b.digest
        assert [(await client.trainer.training(n)).version for n in ("a", "b")] == [1, 1]


async def test_status_names_the_algorithms(tmp_path: Path) -> None:
    async with trainer(tmp_path) as client:
        status = await client.trainer.status()
        assert list(status.algorithms) == [
            "dapo", "dpo", "grpo", "ilql", "ppo", "reinforce++", "reward_model", "reward_probe", "rloo", "sft"
        ]  # fmt: skip
        assert status.pending_steps == 0


async def test_ranks_and_ratings_are_learned_from_too(tiny_folder: Path, tmp_path: Path) -> None:
    ranked, rated = pairs(2)
    ranked.responses.append("it was")
    ranked.ranks.values[:] = [0, 2, 1]
    rated.ratings.CopyFrom(trainer_v1.Ratings(values=[0.1, 0.9]))
    async with trainer(tmp_path) as client:
        await client.trainer.create_training(training(tiny_folder, algorithm="reward_model"))
        put = await client.trainer.put_experience("t", preferences=[ranked, rated])
        losses = [
            (await client.trainer.step("t", put.batch_id, parent_version=version)).metrics["loss"]
            for version in range(4)
        ]
        assert losses[-1] < losses[0]
        assert (await client.trainer.evaluate("t", put.batch_id))["pairs"] == 4
