"""Rendered files as objects: where each begins, lists, folders, and refusals that name file and line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tandem.audit import files

TWO = "---\n# a comment\nkind: Service\nmetadata: {name: a}\n---\n\nkind: Pod\nmetadata:\n  name: b\n"
LIST = """\
apiVersion: v1
kind: List
items:
  - kind: Service
    metadata: {name: a}
  - kind: Pod
    metadata: {name: b}
"""


def read(*texts: str, folder: Path) -> files.Loaded:
    paths = []
    for index, text in enumerate(texts):
        paths.append(folder / f"{index}.yaml")
        paths[-1].write_text(text)
    return files.read(paths, io.StringIO())


def test_each_object_knows_its_line(tmp_path: Path) -> None:
    loaded = read(TWO, folder=tmp_path)
    assert [loaded.source(each) for each in loaded.objects] == [f"{tmp_path}/0.yaml:3", f"{tmp_path}/0.yaml:7"]


def test_the_items_of_a_list_are_objects_with_their_own_lines(tmp_path: Path) -> None:
    loaded = read(LIST, LIST.replace("kind: List", "kind: PodList").replace("- kind: Pod\n    metadata", "- metadata"),
                  folder=tmp_path)  # fmt: skip
    assert [each["kind"] for each in loaded.objects] == ["Service", "Pod", "Service", "Pod"]
    assert [loaded.source(each).rpartition(":")[2] for each in loaded.objects] == ["4", "6", "4", "6"]


def test_json_and_standard_input_and_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text('{"kind": "Pod", "metadata": {"name": "a"}}')
    (tmp_path / "b.yml").write_text("kind: Pod\nmetadata: {name: b}\n")
    (tmp_path / "notes.txt").write_text("kind: Pod\nmetadata: {name: c}\n")
    loaded = files.read([tmp_path, Path("-")], io.StringIO("kind: Pod\nmetadata: {name: d}\n"))
    assert [each["metadata"]["name"] for each in loaded.objects] == ["b", "a", "d"]
    assert loaded.source(loaded.objects[2]) == "stdin:1"


def test_what_is_no_kubernetes_object_is_counted(tmp_path: Path) -> None:
    loaded = read("just: data\n---\n- 1\n---\n# nothing\n", folder=tmp_path)
    assert (len(loaded.objects), loaded.strangers) == (0, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [("kind: Pod\nspec: {{ .Values.x }}\n", ":2: not YAML"), ("a: [\n", "not YAML"), ("a: \x00\n", "not YAML")],
)
def test_a_template_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(files.SourceError, match=said):
        read(text, folder=tmp_path)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(files.SourceError, match="cannot be read"):
        files.read([tmp_path / "none.yaml"], io.StringIO())
    with pytest.raises(files.SourceError, match=r"no \.yaml"):
        files.read([tmp_path], io.StringIO())
