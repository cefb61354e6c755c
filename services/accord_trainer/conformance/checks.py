"""The checks, in the order in which they run."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers

from accord.conformance.verdict import NotApplicable, Unmet, demand
from accord.digest import weights_digest
from accord.errors import AccordError, InvalidArgument
from accord_models.publishing import save_model
from accord_models.tokenizer import fingerprint
from accord_trainer.algorithm import PATH, Kind
from accord_trainer.conformance.bench import Bench, context, digest, weights
from accord_trainer.conformance.check import check
from accord_trainer.trainings.checkpoints import CheckpointStore


@check(
    demands="the defaults of the options are valid",
    fix="give every field of options_type a valid default, or run the suite with --option",
)
def defaults_are_valid(bench: Bench) -> None:
    bench.parse(bench.options)


@check(
    demands="an unknown option is refused, naming the field",
    fix='set extra="forbid" in the model_config of options_type, or derive it from AlgorithmOptions',
)
def unknown_options_are_refused(bench: Bench) -> None:
    try:
        bench.parse({**bench.options, "no_such_option": 1})
    except InvalidArgument as refused:
        fields = [violation.field for violation in refused.violations]
        demand(fields == [f"{PATH}.no_such_option"], f"the error names {fields}")
        return
    raise Unmet("no_such_option was accepted")


@check(
    demands="learns_from is samples or preferences, and the other kind is refused with a reason",
    fix="set learns_from, and raise InvalidArgument in check() if the batch has nothing to learn from",
)
def the_other_kind_is_refused(bench: Bench) -> None:
    algorithm = bench.make()
    kinds: tuple[Kind, ...] = ("samples", "preferences")
    demand(algorithm.learns_from in kinds, f"learns_from is {algorithm.learns_from!r}")
    algorithm.check(bench.batch())
    other = bench.batch(kind=kinds[1 - kinds.index(algorithm.learns_from)])
    try:
        algorithm.check(other)
    except AccordError as refused:
        demand(refused.message, "the refusal gives no reason")
    else:
        raise Unmet(f"check() accepted a batch without {algorithm.learns_from}")


@check(
    demands="a step returns finite metrics and changes the weights",
    fix="return a dict of finite floats from step(), and update what merged() returns",
)
def a_step_learns(bench: Bench) -> None:
    algorithm = bench.make()
    before = digest(algorithm)
    metrics = algorithm.step(bench.batch(), context())
    demand(metrics, "the step returned no metrics")
    odd = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    demand(not odd, f"metrics are not finite: {odd}")
    demand(digest(algorithm) != before, "the weights did not change")


@check(
    demands="evaluate() returns finite metrics and changes nothing",
    fix="compute under torch.no_grad(), and do not update weights, optimizer or scalars",
)
def evaluation_changes_nothing(bench: Bench) -> None:
    algorithm, undisturbed = bench.make(), bench.make()
    before = digest(algorithm)
    metrics = algorithm.evaluate(bench.batch(), context())
    odd = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    demand(not odd, f"metrics are not finite: {odd}")
    demand(digest(algorithm) == before, "evaluate() changed the weights")
    for one in (algorithm, undisturbed):
        one.step(bench.batch(), context())
    demand(digest(algorithm) == digest(undisturbed), "evaluate() changed the weights of the next step")


@check(
    demands="the same seed, state and batch give the same weights, bit for bit",
    fix="take all random numbers from context.generator or Start.seed; sum in a fixed order",
)
def the_same_seed_gives_the_same_weights(bench: Bench) -> None:
    found = []
    for _ in range(2):
        algorithm, generator = bench.make(), torch.Generator().manual_seed(3)
        for number in range(2):
            algorithm.step(bench.batch(number), context(generator))
        found.append(digest(algorithm))
    demand(found[0] == found[1], f"two runs gave {found[0][:12]} and {found[1][:12]}")


@check(
    demands="a training that is restored from a checkpoint continues as if it had not been interrupted",
    fix="return everything that changes in state(), scalars as JSON, and restore it in load_state()",
)
def a_restored_training_continues_the_same(bench: Bench) -> None:
    algorithm, generator = bench.make(), torch.Generator().manual_seed(3)
    store = CheckpointStore(bench.work / "checkpoints")
    algorithm.step(bench.batch(0), context(generator))
    store.write(1, algorithm.state(), generator, {})
    restored = bench.make()
    state, generator_then = store.read(1, restored.state())
    restored.load_state(state)
    demand(digest(restored) == digest(algorithm), "the restored weights differ")
    algorithm.step(bench.batch(1), context(generator))
    restored.step(bench.batch(1), context(generator_then))
    demand(digest(restored) == digest(algorithm), "the step after the restore gives different weights")


class _Stopped(Exception):
    pass


@check(
    demands="a step that stops halfway raises, and putting its state back undoes it",
    fix="call context.check_stopped() between pieces of work; keep nothing that changes outside of state()",
)
def a_failed_step_is_undone(bench: Bench) -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    uninterrupted, generator = bench.make(), torch.Generator().manual_seed(3)
    uninterrupted.step(bench.batch(0), context(generator))
    uninterrupted.step(bench.batch(1), context(generator, count))
    demand(calls, "step() never calls context.check_stopped(): a shutdown would wait for the whole step")
    for last in sorted({1, (calls + 1) // 2, calls}):
        algorithm, generator, left = bench.make(), torch.Generator().manual_seed(3), last
        algorithm.step(bench.batch(0), context(generator))
        before, state, generator_state = digest(algorithm), algorithm.state().clone(), generator.get_state()

        def stop() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Stopped

        try:
            algorithm.step(bench.batch(1), context(generator, stop))
        except _Stopped:
            pass
        else:
            raise Unmet(f"the step ignored an exception of check_stopped(), call {last} of {calls}")
        algorithm.load_state(state)
        generator.set_state(generator_state)
        demand(digest(algorithm) == before, f"stopped at call {last} of {calls}, the step left changed weights")
        algorithm.step(bench.batch(1), context(generator))
        demand(
            digest(algorithm) == digest(uninterrupted),
            f"stopped at call {last} of {calls} and repeated, the step gives different weights",
        )


@check(
    demands="passes of fewer tokens give the same step, up to rounding",
    fix="divide each part's loss by the size of the whole minibatch, not of the part",
)
def cutting_a_minibatch_changes_nothing(bench: Bench) -> None:
    if not bench.accepts("micro_batch_tokens", 16):
        raise NotApplicable("the algorithm has no option micro_batch_tokens")
    found = []
    for tokens in (16, 100_000):
        # A large epsilon keeps Adam from turning rounding into whole steps where a gradient is almost 0.
        algorithm = bench.make(
            epochs=1, minibatch_size=64, micro_batch_tokens=tokens, share_prefixes=False, adam_epsilon=1e-3
        )
        before = weights(algorithm)
        algorithm.step(bench.batch(), context())
        found.append(weights(algorithm))
    moved, apart = (found[1] - before).abs().max(), (found[1] - found[0]).abs().max()
    demand(apart <= 0.05 * moved, f"weights move by up to {moved:.1e} and differ by up to {apart:.1e}")


@check(
    demands="the published folder has the announced digest and loads in plain transformers",
    fix="return a PreTrainedModel from merged(), whose state_dict() has exactly its architecture's weights",
)
def the_published_folder_loads(bench: Bench) -> None:
    algorithm = bench.make()
    algorithm.step(bench.batch(), context())
    folder = bench.work / "published"
    save_model(algorithm.merged(), algorithm.tokenizer, folder, algorithm.publish_dtype)
    demand(weights_digest(folder) == digest(algorithm), "the digest of the folder differs from the announced digest")
    config = transformers.AutoConfig.from_pretrained(folder)
    (architecture,) = config.architectures
    kind: Any = getattr(transformers, architecture, None)
    demand(kind is not None, f"transformers has no class {architecture}")
    _, info = kind.from_pretrained(folder, output_loading_info=True)
    odd = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys") if info[name]}
    demand(not odd, f"transformers loads the folder with {odd}")
    loaded = fingerprint(transformers.AutoTokenizer.from_pretrained(folder))
    demand(loaded == fingerprint(algorithm.tokenizer), "the published tokenizer is a different one")
