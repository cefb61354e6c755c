"""ilql: its losses by hand and against a slow float64 reference, and what training on a tiny model must show."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.support.trainer import TINY, pairs, request_id, trainer, training

from accord.errors import FailedPrecondition, InvalidArgument
from accord.trainer import v1 as trainer_v1
from accord.types import v1 as types_v1
from accord_trainer.algorithm import Experience, Start, StepContext
from accord_trainer.algorithms.ilql import ILQL, IlqlOptions, rewards
from accord_trainer.data.demonstrations import response_of
from accord_trainer.objectives.q_learning import bellman_targets, expectile_loss, follow, q_loss_sum, v_loss_sum

NAN = float("nan")


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def make(folder: Path, **options: object) -> ILQL:
    start = Start(folder, None, None, True, seed=0, compute_dtype=str(options.pop("compute_dtype", "float32")))
    return ILQL(start, IlqlOptions.model_validate({**TINY, "value_learning_rate": 1e-2, **options}))


def context() -> StepContext:
    return StepContext(0, torch.Generator().manual_seed(0), lambda: None)


def rated(question: str, *answers: tuple[str, float], **fields: object) -> trainer_v1.PreferenceExample:
    return trainer_v1.PreferenceExample(
        prompt=types_v1.Conversation(messages=[types_v1.ChatMessage(role="user", content=question)]),
        responses=[text for text, _ in answers],
        ratings=trainer_v1.Ratings(values=[rating for _, rating in answers]),
        **fields,  # type: ignore[arg-type]
    )


def batch() -> Experience:
    """Ragged lengths, shared and single prompts, weights, an answer that was cut off."""
    cut = rated("a day?", ("it was a long and", 0.25), ("good", 1.0), weight=2.0, truncated=[True, False])
    return Experience([], [*pairs(2), cut, rated("and now?", ("bad", 0.0), weight=0.5)])


def trained(folder: Path, steps: int = 3, **options: object) -> ILQL:
    """Heads that are no longer what they began with, and targets that differ from them."""
    ilql = make(folder, **options)
    for _ in range(steps):
        ilql.step(batch(), context())
    return ilql


def weights(ilql: ILQL) -> torch.Tensor:
    return torch.cat([weight.flatten() for _, weight in sorted(ilql.state().weights.items())]).clone()


def test_bellman_targets_by_hand_and_blind_to_pads() -> None:
    # gamma .5. First: 0 + .5 * 2, then 1 + .5 * 0. Second, cut off, with V 4 after it: 3 + .5 * 4.
    values = tensor([1.0, 2.0, NAN], [5.0, NAN, NAN]).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = bellman_targets(tensor([0.0, 1.0, NAN], [3.0, NAN, NAN]), values, tensor(0.0, 4.0), mask, gamma=0.5)
    assert torch.equal(found, tensor([1.0, 1.0, 0.0], [5.0, 0.0, 0.0]))
    assert not found.requires_grad


def test_expectile_loss_by_hand() -> None:
    assert torch.allclose(expectile_loss(tensor(2.0, -2.0, 0.0), 0.75), tensor(3.0, 1.0, 0.0))


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_v_that_minimises_the_loss_is_the_expectile(expectile: float) -> None:
    """Of values 1 with probability p and 0 otherwise it is ep / (ep + (1 - e)(1 - p)), here p = 1/4."""
    at = tensor(expectile * 0.25 / (expectile * 0.25 + (1 - expectile) * 0.75)).requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    v_loss_sum(
        at.expand(1, 4), tensor([1.0, 0.0, 0.0, 0.0]), mask, expectile=expectile, weight_B=tensor(1.0)
    ).backward()  # type: ignore[no-untyped-call]
    assert at.grad is not None
    assert float(at.grad) == pytest.approx(0.0, abs=1e-12)


def test_losses_by_hand_and_blind_to_pads() -> None:
    mask, weight = torch.tensor([[True, True], [True, False]]), tensor(1.0, 3.0)
    q = tensor([[1.0, 2.0], [0.0, NAN]], [[0.0, 2.0], [1.0, NAN]]).requires_grad_()
    # Response 0: (1 - 2)^2 + (0 - 2)^2 + 0 + 0; response 1, three times: 4 + 1.
    loss = q_loss_sum(q, tensor([2.0, 2.0], [2.0, NAN]), mask, weight_B=weight)
    assert float(loss.detach()) == pytest.approx(5 + 3 * 5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(q.grad, tensor([[-2.0, 0.0], [-12.0, 0.0]], [[-4.0, 0.0], [-6.0, 0.0]]))  # type: ignore[arg-type]
    values, targets = tensor([1.0, 2.0], [0.0, NAN]).requires_grad_(), tensor([2.0, 0.0], [1.0, NAN]).requires_grad_()
    # .8 * 1 + .2 * 4; three times .8 * 1.
    loss = v_loss_sum(values, targets, mask, expectile=0.8, weight_B=weight)
    assert float(loss.detach()) == pytest.approx(1.6 + 2.4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(values.grad, tensor([-1.6, 0.8], [-4.8, 0.0]))  # type: ignore[arg-type]
    assert targets.grad is None


def test_gradients_numerically() -> None:
    generator = torch.Generator().manual_seed(0)
    q, target = (torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    mask, weight = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3]), tensor(1.0, 0.5, 2.0)
    assert torch.autograd.gradcheck(
        lambda x: q_loss_sum(x, target[0], mask, weight_B=weight), q.clone().requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda x: v_loss_sum(x, target[0], mask, expectile=0.7, weight_B=weight), q[0].clone().requires_grad_()
    )


def test_targets_move_their_part_of_the_way() -> None:
    target = tensor(0.0, 1.0)
    follow(target, tensor(10.0, 1.0), 0.1)
    assert torch.allclose(target, tensor(1.0, 1.0))


def test_ranks_and_ratings_are_rewards() -> None:
    example = rated("x", ("a", 0.2), ("b", 0.9))
    assert rewards(example) == [0.2, 0.9]
    for ranks, expected in (([0, 3, 3], [1, 0, 0]), ([2, 0, 1], [0, 1, 0.5]), ([1, 1, 1], [0.5] * 3)):
        assert rewards(trainer_v1.PreferenceExample(responses="abc", ranks=trainer_v1.Ranks(values=ranks))) == expected


@pytest.mark.parametrize("bootstrap", [False, True])
def test_figures_are_those_of_each_text_alone_in_float64(tiny_folder: Path, bootstrap: bool) -> None:
    options = {"gamma": 0.9, "expectile": 0.8, "cql_coefficient": 0.3, "bc_coefficient": 2.0, "polyak": 0.5}
    ilql = trained(tiny_folder, bootstrap_truncated=bootstrap, **options)
    found = ilql.evaluate(batch(), context())
    model, heads = ilql.policy.model.double(), ilql.policy.q.double()
    value_head = ilql.policy.value_head.double()  # type: ignore[union-attr]
    sums: dict[str, float] = dict.fromkeys(("q_loss", "v_loss", "cql_loss", "bc_loss", "q_mean", "q_gap"), 0.0)
    sums |= {"v_mean": 0.0, "target_mean": 0.0, "advantage_mean": 0.0}
    tokens, advantages = 0.0, []
    examples = batch().preferences
    for i, example in enumerate(examples):
        weight = example.weight if example.HasField("weight") else 1.0
        for k, reward in enumerate(rewards(example)):
            prompt, response = response_of(ilql.tokenizer, examples, i, k, 500)
            truncated = bool(example.truncated) and example.truncated[k]
            assert (response[-1] == ilql.tokenizer.eos_token_id) is not truncated
            hidden = model.model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state[0].detach()
            states = hidden[len(prompt) - 1 :]
            v = value_head(states)[:, 0].detach()
            advantages.append(0.0)
            for t, token in enumerate(response):
                after = float(v[t + 1])
                last = t == len(response) - 1
                if last and not (truncated and bootstrap):
                    after = 0.0
                target = (reward if last else 0.0) + 0.9 * after
                q = [states[t] @ head.weight.detach().T for head in (heads.first, heads.second)]
                slow = min(float(states[t] @ h.weight[token]) for h in (heads.first_target, heads.second_target))
                difference = slow - float(v[t])
                mean = float(q[0][token] + q[1][token]) / 2
                logits = model.lm_head(states[t]).detach()
                for name, value in {
                    "q_loss": sum((float(one[token]) - target) ** 2 for one in q),
                    "v_loss": (0.8 if difference > 0 else 0.2) * difference**2,
                    "cql_loss": sum(float(one.logsumexp(0) - one[token]) for one in q),
                    "bc_loss": float(logits.logsumexp(0) - logits[token]),
                    "q_mean": mean,
                    "q_gap": abs(float(q[0][token] - q[1][token])),
                    "v_mean": float(v[t]),
                    "target_mean": target,
                    "advantage_mean": mean - float(v[t]),
                }.items():
                    sums[name] += weight * value
                tokens += weight
                advantages[-1] += (mean - float(v[t])) / len(response)
    for name, value in sums.items():
        assert found[name] == pytest.approx(value / tokens, rel=1e-4, abs=1e-6), name
    expected = sums["q_loss"] + sums["v_loss"] + 0.3 * sums["cql_loss"] + 2.0 * sums["bc_loss"]
    assert found["loss"] == pytest.approx(expected / tokens, rel=1e-4)
    assert (found["samples"], found["pairs"]) == (7, 3)
    better = [advantages[a] > advantages[b] for a, b in ((0, 1), (3, 2), (5, 4))]
    assert found["accuracy"] == pytest.approx(sum(better) / 3)
    assert found["accuracy/set1"] == float(better[1])
    assert found["reward_mean"] == pytest.approx((1 + 0 + 0 + 1 + 0.25 + 1 + 0) / 7)


def test_gradients_are_those_of_each_text_alone_in_float64(tiny_folder: Path) -> None:
    """V(s') is a target and gives no gradient, and neither do the targets of Q; all terms reach the trunk."""
    ilql = trained(tiny_folder, gamma=0.9, cql_coefficient=0.3, bc_coefficient=2.0, polyak=0.5, micro_batch_tokens=40)
    model, heads, v_head = (
        copy.deepcopy(m).double() for m in (ilql.policy.model, ilql.policy.q, ilql.policy.value_head)
    )
    total, tokens = torch.zeros((), dtype=torch.float64), 0.0
    examples = batch().preferences
    for i, example in enumerate(examples):
        for k, reward in enumerate(rewards(example)):
            prompt, response = response_of(ilql.tokenizer, examples, i, k, 500)
            weight = example.weight if example.HasField("weight") else 1.0
            states = model.model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state[
                0, len(prompt) - 1 : -1
            ]
            chosen = torch.tensor(response)[:, None]
            v = v_head(states)[:, 0]
            target = torch.cat([0.9 * v[1:], tensor(reward)]).detach()
            slow = torch.stack(
                [(states @ h.weight.T).gather(1, chosen)[:, 0] for h in (heads.first_target, heads.second_target)]
            )
            off = slow.min(0).values.detach() - v
            loss = torch.where(off > 0, 0.7 * off**2, 0.3 * off**2).sum()
            for head in (heads.first, heads.second):
                q = states @ head.weight.T
                loss = loss + ((q.gather(1, chosen)[:, 0] - target) ** 2).sum()
                loss = loss - 0.3 * q.log_softmax(-1).gather(1, chosen).sum()
            loss = loss - 2.0 * model.lm_head(states).log_softmax(-1).gather(1, chosen).sum()
            total, tokens = total + weight * loss, tokens + weight * len(response)
    (total / tokens).backward()  # type: ignore[no-untyped-call]
    found: dict[str, torch.Tensor] = {}

    def keep() -> dict[str, float]:
        for name, parameter in {**ilql.policy.parameters(), **ilql.policy.value_parameters()}.items():
            assert parameter.grad is not None, name
            found[name] = parameter.grad.clone()
        return {"policy": 1.0, "value": 1.0}

    ilql.optimizer.update = keep  # type: ignore[method-assign]
    ilql.step(batch(), context())
    for prefix, module in (("policy.", model), ("q.", heads), ("value.", v_head)):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                expected = parameter.grad
                assert expected is not None
                assert torch.allclose(found.pop(prefix + name).double(), expected, rtol=1e-3, atol=1e-5), name
    assert not found


def test_parts_and_prefixes_change_nothing(tiny_folder: Path) -> None:
    found = []
    for options in ({"micro_batch_tokens": 8}, {"micro_batch_tokens": 10_000}, {"share_prefixes": False}):
        found.append(weights(trained(tiny_folder, steps=2, adam_epsilon=1e-3, **options)))
    assert torch.allclose(found[0], found[1], atol=2e-5)
    assert torch.allclose(found[0], found[2], atol=2e-5)
    assert not torch.allclose(found[0], weights(make(tiny_folder)), atol=1e-4)


def test_upper_blocks_alone_and_a_detached_trunk(tiny_folder: Path) -> None:
    upper = trained(tiny_folder, trainable_layers=1).state().weights
    assert not any("embed_tokens" in name or "layers.0" in name for name in upper)
    before = make(tiny_folder).state().weights
    after = trained(tiny_folder, detach_values=True, bc_coefficient=0.0).state().weights
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) is name.startswith("policy."), name


def test_targets_follow_and_looking_changes_nothing(tiny_folder: Path) -> None:
    ilql = make(tiny_folder, polyak=0.25)
    before = {name: weight.clone() for name, weight in ilql.state().weights.items()}
    ilql.evaluate(batch(), context())
    assert all(torch.equal(weight, before[name]) for name, weight in ilql.state().weights.items())
    ilql.step(batch(), context())
    after = ilql.state().weights
    for head in ("first", "second"):
        expected = 0.75 * before[f"target.{head}_target"] + 0.25 * after[f"q.{head}.weight"]
        assert torch.allclose(after[f"target.{head}_target"], expected, atol=1e-7)
        assert not torch.equal(after[f"target.{head}_target"], before[f"target.{head}_target"])


def test_a_step_made_again_from_a_saved_state_gives_the_same_bits(tiny_folder: Path) -> None:
    ilql = trained(tiny_folder, polyak=0.5)
    saved = ilql.state().clone()
    figures, after = ilql.step(batch(), context()), weights(ilql)
    ilql.load_state(saved)
    assert not torch.equal(weights(ilql), after)
    assert ilql.step(batch(), context()) == figures
    assert torch.equal(weights(ilql), after)


def test_logits_are_computed_of_response_tokens_only_and_never_of_targets(tiny_folder: Path) -> None:
    ilql = make(tiny_folder, bc_coefficient=0.0)
    rows: dict[str, int] = {}
    for name in ("first", "second", "first_target", "second_target"):
        module = getattr(ilql.policy.q, name)
        module.register_forward_hook(lambda _m, given, _out, n=name: rows.update({n: rows.get(n, 0) + len(given[0])}))
    ilql.policy.head.register_forward_hook(lambda *_: rows.update({"head": 1}))
    tokens = ilql.step(batch(), context())["tokens"]
    assert rows == {"first": tokens, "second": tokens}


def test_in_bfloat16_the_figures_are_near(tiny_folder: Path) -> None:
    exact, rounded = (trained(tiny_folder, compute_dtype=dtype, steps=1) for dtype in ("float32", "bfloat16"))
    found, expected = rounded.evaluate(batch(), context()), exact.evaluate(batch(), context())
    for name in ("q_loss", "v_loss", "cql_loss", "bc_loss"):
        assert found[name] == pytest.approx(expected[name], rel=0.05, abs=0.01), name
    assert rounded.publish_dtype == "bfloat16"


def test_what_cannot_be_learned_is_refused(tiny_folder: Path) -> None:
    ilql = make(tiny_folder, max_tokens=16)
    for wrong, field in (
        (rated("x", ("a", 1.0), ("word " * 40, 0.0)), "chunk.preferences[1].responses[1]"),
        (rated("x", ("", 1.0), truncated=[True]), "chunk.preferences[1].responses[0]"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            ilql.check(Experience([], [rated("x", ("y", 1.0)), wrong]))
        assert refused.value.violations[0].field == field
    with pytest.raises(InvalidArgument, match="no answer with a weight above 0"):
        ilql.check(Experience([], [rated("x", ("y", 1.0), weight=0.0)]))
    for name, start in (
        ("reference", Start(tiny_folder, tiny_folder, None, False, seed=0, compute_dtype="float32")),
        ("critic_init", Start(tiny_folder, None, tiny_folder, True, seed=0, compute_dtype="float32")),
    ):
        with pytest.raises(InvalidArgument, match="leave it unset") as unset:
            ILQL(start, IlqlOptions())
        assert unset.value.violations[0].field == f"training.{name}"
    with pytest.raises(FailedPrecondition) as adapter:
        make(tiny_folder, lora_rank=2).save_adapter(tiny_folder)
    assert adapter.value.reason == "NO_ADAPTER"


async def test_after_a_restart_it_continues_bit_for_bit(tiny_folder: Path, tmp_path: Path) -> None:
    """The targets are in the checkpoint: without them the fourth step would differ."""
    what = training(tiny_folder, algorithm="ilql", checkpoint_every=2, options={"polyak": 0.5})
    digests: dict[str, list[str]] = {}
    for way, stops in (("whole", [(0, 4)]), ("stopped", [(0, 2), (2, 4)])):
        digests[way] = []
        for first, last in stops:
            async with trainer(tmp_path / way) as client:
                await client.trainer.create_training(what)
                put = await client.trainer.put_experience("t", preferences=batch().preferences)
                for version in range(first, last):
                    result = await client.trainer.step(
                        "t", put.batch_id, parent_version=version, request_id=request_id()
                    )
                    digests[way].append(result.digest)
    assert digests["stopped"] == digests["whole"]
    assert len(set(digests["whole"])) == 4
