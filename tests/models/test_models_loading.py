"""Model folders: what is loaded is what was saved; folders that are no models say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.tiny import make_tiny_model

from accord.digest import weights_digest
from accord.errors import InvalidArgument
from accord_models.loading import load_causal_lm, load_reward_model, new_reward_model, reward_head
from accord_models.publishing import save_model
from accord_models.tokenizer import load_tokenizer


def test_saving_and_loading_keeps_the_digest(tiny_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_causal_lm(tiny_folder), load_tokenizer(tiny_folder)
    digest = save_model(model, tokenizer, tmp_path / "same", "float32")
    assert digest == weights_digest(tiny_folder) == weights_digest(tmp_path / "same")
    half = save_model(model, tokenizer, tmp_path / "half", "bfloat16")
    assert half != digest
    assert next(model.parameters()).dtype == torch.float32, "saving changed the model"
    again = load_causal_lm(tmp_path / "half", "bfloat16")
    assert save_model(again, tokenizer, tmp_path / "again", "bfloat16") == half
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_tied_weights_are_stored_once_and_tied_again(tiny_folder: Path, tmp_path: Path) -> None:
    save_model(load_causal_lm(tiny_folder), load_tokenizer(tiny_folder), tmp_path / "half", "bfloat16")
    assert "lm_head.weight" not in load_file(tmp_path / "half" / "model.safetensors")
    model = load_causal_lm(tmp_path / "half")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_tiny_model_is_its_seed(tiny_folder: Path, tmp_path: Path) -> None:
    assert weights_digest(make_tiny_model(tmp_path / "a")) == weights_digest(tiny_folder)
    assert weights_digest(make_tiny_model(tmp_path / "b", seed=1)) != weights_digest(tiny_folder)


def test_a_new_reward_head_is_its_seed_and_survives_saving(tiny_folder: Path, tmp_path: Path) -> None:
    first, second, other = (new_reward_model(tiny_folder, seed) for seed in (1, 1, 2))
    assert torch.equal(reward_head(first).weight, reward_head(second).weight)
    assert not torch.equal(reward_head(first).weight, reward_head(other).weight)
    save_model(first, load_tokenizer(tiny_folder), tmp_path / "reward", "float32")
    loaded = load_reward_model(tmp_path / "reward")
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(loaded(ids).logits, first(ids).logits)
    assert loaded(ids).logits.shape == (1, 1)


def test_a_new_reward_head_has_the_published_spread(tiny_folder: Path) -> None:
    weights = torch.cat([reward_head(new_reward_model(tiny_folder, seed)).weight.flatten() for seed in range(20)])
    assert float(weights.detach().std()) == pytest.approx((32 + 1) ** -0.5, rel=0.1)


def test_a_new_reward_head_leaves_the_global_random_numbers_alone(tiny_folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    new_reward_model(tiny_folder, 5)
    assert torch.equal(torch.rand(3), expected)


def test_a_policy_is_no_reward_model(tiny_folder: Path, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "score"}}))
    for wrong, words in ((tiny_folder, "labels"), (folder, "score.weight")):
        with pytest.raises(InvalidArgument, match=words) as refused:
            load_reward_model(wrong)
        assert refused.value.reason == "BAD_MODEL"


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidArgument, match=r"layers\.1\.mlp\.up_proj"):
        load_causal_lm(folder)
    with pytest.raises(InvalidArgument, match=r"layers\.1\.mlp\.up_proj"):
        new_reward_model(folder, 0)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'), "nonsense"),
        (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named_with_what_is_wrong(tmp_path: Path, harm, words: str) -> None:  # type: ignore[no-untyped-def]
    folder = make_tiny_model(tmp_path / "model")
    harm(folder)
    with pytest.raises(InvalidArgument, match=words) as refused:
        load_causal_lm(folder)
    assert str(folder) in str(refused.value)


def test_a_failed_save_leaves_what_was_there(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_causal_lm(tiny_folder), load_tokenizer(tiny_folder)
    digest = save_model(model, tokenizer, tmp_path / "kept", "float32")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, tokenizer, tmp_path / "kept", "bfloat16")
    assert weights_digest(tmp_path / "kept") == digest
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
