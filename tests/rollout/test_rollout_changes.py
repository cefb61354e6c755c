"""Deltas and adapters: the engine serves exactly the model that they make of their base, or says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.rollout import generate_request, rollout_service, samples, weights_ref
from tests.support.tiny import make_tiny_model

from accord.digest import weights_digest
from accord.errors import FailedPrecondition, InvalidArgument, Unimplemented
from accord.rollout import v1 as rollout_v1
from accord.types import v1 as types_v1
from accord_models.adapter import merge_adapter
from accord_models.delta import apply_delta, write_delta
from accord_rollout.engine import Weights
from accord_rollout.weights.fetching import WeightFetcher


def changed_model(base: Path, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """A copy of `base` with three elements changed here and one whole tensor there."""
    shutil.copytree(base, folder)
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] += 1
    state["model.embed_tokens.weight"][5, :3] *= -2
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapter_of(base: Path, folder: Path, **options: object) -> tuple[Path, str]:
    """A LoRA adapter with random weights as PEFT saves it, and the digest of PEFT's own merge."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], **options)  # type: ignore[arg-type]
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(str(folder))
    merged = adapted.merge_and_unload()  # type: ignore[operator]
    merged.save_pretrained(folder.parent / "merged")
    return folder, weights_digest(folder.parent / "merged")


def update(ref: types_v1.WeightsRef) -> rollout_v1.UpdateWeightsRequest:
    return rollout_v1.UpdateWeightsRequest(request_id=f"{ref.format}-{ref.version}", weights=ref)


def test_a_delta_is_small_and_exact(tmp_path: Path, tiny_folder: Path) -> None:
    new = changed_model(tiny_folder, tmp_path / "new")
    size = write_delta(tiny_folder, new, tmp_path / "delta")
    assert size.changed == 32 + 3
    assert size.bytes < 1000 < size.elements
    apply_delta(tiny_folder, tmp_path / "delta", tmp_path / "out")
    assert weights_digest(tmp_path / "out") == weights_digest(new) != weights_digest(tiny_folder)
    same = write_delta(tiny_folder, tiny_folder, tmp_path / "nothing")
    assert same.changed == 0
    apply_delta(tiny_folder, tmp_path / "nothing", tmp_path / "same")
    assert weights_digest(tmp_path / "same") == weights_digest(tiny_folder)


def test_a_delta_of_other_tensors_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    indices = torch.tensor([0, 10**6], dtype=torch.int32)
    save_file(
        {"model.norm.weight:indices": indices, "model.norm.weight:values": torch.ones(2)}, bad / "delta.safetensors"
    )
    with pytest.raises(InvalidArgument) as refused:
        apply_delta(tiny_folder, bad, tmp_path / "out")
    assert refused.value.reason == "BAD_CHANGE"
    assert not (tmp_path / "out").exists()


async def test_the_engine_serves_what_a_delta_makes_of_its_base(tmp_path: Path, tiny_folder: Path) -> None:
    new = changed_model(tiny_folder, tmp_path / "new")
    write_delta(tiny_folder, new, tmp_path / "delta")
    ref = weights_ref(new, version=1, uri=(tmp_path / "delta").as_uri(), format="delta")
    ref.base_version = 0
    async with rollout_service(tmp_path / "state", model=tiny_folder) as (stub, _):
        response = await stub.UpdateWeights(update(ref))
        assert response.digest == response.resident_weights.digest == weights_digest(new)
        (sample,) = (await samples(stub, generate_request(["hello"], version=1))).values()
        assert sample.segments[0].digest == ref.digest
        ref.base_digest, ref.version = "2" * 64, 2
        with pytest.raises(FailedPrecondition) as missing:
            await stub.UpdateWeights(update(ref))
        assert missing.value.reason == "BASE_MISSING"


async def test_a_delta_on_the_wrong_base_is_refused_before_activation(tmp_path: Path, tiny_folder: Path) -> None:
    new = changed_model(tiny_folder, tmp_path / "new")
    write_delta(tiny_folder, new, tmp_path / "delta")
    ref = weights_ref(new, version=1, uri=(tmp_path / "delta").as_uri(), format="delta")
    ref.base_version = 0
    other = make_tiny_model(tmp_path / "other", seed=3)
    async with rollout_service(tmp_path / "state", model=other) as (stub, _):
        with pytest.raises(FailedPrecondition) as refused:
            await stub.UpdateWeights(update(ref))
        assert refused.value.reason == "DIGEST_MISMATCH"
        assert (await stub.GetStatus(rollout_v1.GetStatusRequest())).version == 0
        # The publisher's list continues with the whole model, which is not a delta.
        assert not list((tmp_path / "state" / "cache").iterdir())


async def test_an_adapter_is_merged_as_peft_merges_it(tmp_path: Path, tiny_folder: Path) -> None:
    adapter, merged_digest = adapter_of(tiny_folder, tmp_path / "adapter")
    ref = types_v1.WeightsRef(
        uri=adapter.as_uri(), version=5, digest=weights_digest(adapter), format="adapter", merged_digest=merged_digest
    )
    ref.base_version = 0
    async with rollout_service(tmp_path / "state", model=tiny_folder) as (stub, _):
        response = await stub.UpdateWeights(update(ref))
        assert response.digest == response.resident_weights.digest == merged_digest
        (sample,) = (await samples(stub, generate_request(["hello"], version=5))).values()
        assert sample.segments[0].digest == merged_digest
        ref.version, ref.merged_digest = 6, "3" * 64
        with pytest.raises(FailedPrecondition) as refused:
            await stub.UpdateWeights(update(ref))
        assert refused.value.reason == "DIGEST_MISMATCH"


@pytest.mark.parametrize(("options", "allowed"), [({"use_rslora": True}, True), ({"use_dora": True}, False)])
def test_a_kind_of_adapter_is_merged_rightly_or_refused(
    tmp_path: Path, tiny_folder: Path, options: dict[str, bool], allowed: bool
) -> None:
    adapter, merged_digest = adapter_of(tiny_folder, tmp_path / "adapter", **options)
    if allowed:
        merge_adapter(tiny_folder, adapter, tmp_path / "out")
        assert weights_digest(tmp_path / "out") == merged_digest
    else:
        with pytest.raises(Unimplemented) as refused:
            merge_adapter(tiny_folder, adapter, tmp_path / "out")
        assert refused.value.reason == "ADAPTER_UNSUPPORTED"


def test_the_first_weights_stay_for_adapters_however_often_they_are_activated(tmp_path: Path) -> None:
    fetcher = WeightFetcher(tmp_path)
    for version in (0, 1, 0, 2, 3, 4):
        digest = f"{version:064x}"
        (tmp_path / digest).mkdir(exist_ok=True)
        fetcher.keep(Weights(version, digest), tmp_path / digest)
    assert sorted(int(folder.name, 16) for folder in tmp_path.iterdir()) == [0, 3, 4]
