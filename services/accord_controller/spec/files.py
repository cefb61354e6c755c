"""The files that a spec names: model folders, JSONL files and scorer files. They are checked before the run starts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from accord import formats
from accord.controller import v1 as controller_v1
from accord.digest import weights_digest
from accord.errors import AccordError, FieldViolation
from accord.preference import v1 as preference_v1
from accord.types import v1 as types_v1

REGISTRY = "models/"
PYTHON = "python:"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def absolute(path: str) -> str:
    """The absolute path, independent of the working folder."""
    return str(Path(path).expanduser().absolute())


def absolute_model(model: str) -> str:
    """A model's folder as a `file://` URI; registry names and other URIs are unchanged."""
    if not model or model.startswith(REGISTRY):
        return model
    parts = urlsplit(model)
    if parts.scheme not in ("", "file"):
        return model
    return Path(absolute(unquote(parts.path) if parts.scheme else model)).as_uri()


def absolute_scorer(name: str) -> str:
    """`python:./reward.py:score` with the file's absolute path; other names are unchanged."""
    if not name.startswith(PYTHON):
        return name
    path, separator, function = name.removeprefix(PYTHON).strip().partition(":")
    return f"{PYTHON}{absolute(path)}{separator}{function}" if path else name


def model_folder(uri: str) -> Path:
    """The folder of a `file://` URI."""
    return Path(unquote(urlsplit(uri).path))


def weights_of(uri: str, models: Mapping[str, controller_v1.Model]) -> types_v1.WeightsRef:
    """The reference of a checked model as version 0, from which a run counts its steps. Reads the whole model to
    compute its digest."""
    if uri.startswith(REGISTRY):
        ref = types_v1.WeightsRef()
        ref.CopyFrom(models[uri.removeprefix(REGISTRY)].weights)
        ref.version = 0
        return ref
    return types_v1.WeightsRef(uri=uri, version=0, digest=weights_digest(model_folder(uri)), format="merged")


def check_models(spec: controller_v1.RunSpec, models: Mapping[str, controller_v1.Model]) -> Iterable[FieldViolation]:
    """The problems of the models that the spec names."""
    seen: set[str] = set()
    for field, uri in (("run.spec.model", spec.model), ("run.spec.reward_model.model", spec.reward_model.model)):
        if uri not in seen:
            seen.add(uri)
            problem = _model_problem(uri, models)
            if problem:
                yield FieldViolation(field, problem)


def read_prompts(path: str) -> list[preference_v1.Prompt]:
    """The prompts of a JSONL file of any form. If a line names no source, the file's name is used."""
    records = formats.read(path, source=Path(path).stem).records
    return [preference_v1.Prompt(conversation=record.prompt, source=record.source) for record in records]


def read_feedback(path: str) -> list[preference_v1.ImportRecord]:
    """The preferences of a JSONL file. If a line names no source, the file's name is used."""
    return formats.read(path, source=Path(path).stem).records


def check_files(spec: controller_v1.RunSpec) -> Iterable[FieldViolation]:
    """The problems of the JSONL files that the spec names. Each file is read to its end; errors name the line."""
    for index, path in enumerate(spec.prompts.files):
        yield from _check_jsonl(f"run.spec.prompts.files[{index}]", path, judged=False)
    if spec.feedback.HasField("preferences"):
        for index, path in enumerate(spec.feedback.preferences.files):
            yield from _check_jsonl(f"run.spec.feedback.preferences.files[{index}]", path, judged=True)


def check_python_scorer(field: str, name: str) -> Iterable[FieldViolation]:
    """The problems of `python:<file>:<function>` (default: `score`). The file is not executed here."""
    path, _, function = name.removeprefix(PYTHON).partition(":")
    if not path or not (function or "score").isidentifier():
        yield FieldViolation(field, f"{name!r} does not have the form python:./file.py:function")
    elif not Path(path).is_file():
        yield FieldViolation(field, f"does not exist: {path}")


def _model_problem(uri: str, models: Mapping[str, controller_v1.Model]) -> str:
    """The problem of a model, or ""."""
    if not uri:
        return "required: a model folder or models/<name>"
    if uri.startswith(REGISTRY):
        name = uri.removeprefix(REGISTRY)
        return (
            ""
            if name in models
            else f"no model named {name} is in the registry; list the models with: accord models list"
        )
    if urlsplit(uri).scheme != "file":
        return f"{uri} is not a folder, file:// URI or models/<name>"
    folder = model_folder(uri)
    if not folder.exists():
        return f"does not exist: {folder}"
    if not folder.is_dir():
        return f"is a file, not a model folder: {folder}"
    try:
        configured = isinstance(json.loads((folder / "config.json").read_text()), dict)
    except FileNotFoundError:
        return f"{folder} has no config.json; is it a Hugging Face model folder?"
    except ValueError as error:
        return f"{folder / 'config.json'} cannot be read: {error}"
    if not configured:
        return f"{folder / 'config.json'} is not a JSON object"
    if not any(folder.glob("*.safetensors")):
        return f"{folder} has no *.safetensors file; save the model with save_pretrained (safetensors) first"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"{folder} has no tokenizer; save it there with tokenizer.save_pretrained"
    return ""


def _check_jsonl(field: str, path: str, *, judged: bool) -> Iterable[FieldViolation]:
    try:
        parsed = formats.read(path)
    except AccordError as error:
        yield FieldViolation(field, error.message)
        return
    if not parsed.records:
        yield FieldViolation(field, f"contains no records: {path}")
    elif judged and parsed.form is formats.Form.PROMPTS:
        yield FieldViolation(field, f"contains prompts, not preferences: {path}")
