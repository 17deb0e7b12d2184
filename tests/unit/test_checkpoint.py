import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.conftest import PROMPTS, World, step, train
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import checkpoint as module
from vltaxon.config.protocols import Stage
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.local_model import identity
from vltaxon.inference.run import predict_leaf
from vltaxon.inference.transformers_engine import TransformersEngine

BASE = Path(__file__).parents[2] / "src/vltaxon/demo/base"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def moving(vlm: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vlm:
    """The checkpoint as the branch main of a hub repository, downloaded before; now there is no network."""
    repository = tmp_path / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(vlm.checkpoint, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return vlm.model_copy(update={"checkpoint": "org/model", "revision": "main"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_in_the_dtype_of_the_model_file(vlm: Vlm, dtype: str) -> None:
    _, weights = module.load(vlm.model_copy(update={"dtype": dtype}))
    assert {parameter.dtype for parameter in weights.parameters()} == {getattr(torch, dtype)}


def test_load_of_a_folder_that_is_no_checkpoint(vlm: Vlm, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not loadable"):
        module.load(vlm.model_copy(update={"checkpoint": str(tmp_path)}))


def test_digest_is_of_the_content_or_of_the_pinned_revision(vlm: Vlm, tmp_path: Path) -> None:
    assert (
        module.digest(vlm.model_copy(update={"checkpoint": "org/model", "revision": COMMIT}))
        == f"org/model@{COMMIT}"
    )
    (tmp_path / "weights").write_text("1")
    local = vlm.model_copy(update={"checkpoint": str(tmp_path)})
    before = module.digest(local)
    (tmp_path / "weights").write_text("2")
    assert module.digest(local) != before


def test_a_moving_name_is_loaded_and_stamped_as_the_commit_that_it_means(moving: Vlm, world: World) -> None:
    pinned = module.pinned(moving)
    assert pinned.revision == COMMIT and module.pinned(pinned) == pinned
    engine = TransformersEngine(moving, None, ImageStore(world.tables["images"]))
    assert engine.digest == f"org/model@{COMMIT}"
    with pytest.raises(AssertionError, match="moving name"):
        module.digest(moving)


def test_a_moving_name_that_nobody_can_tell(moving: Vlm) -> None:
    with pytest.raises(UserError, match=r"org/other: which commit is its main cannot be found out"):
        module.pinned(moving.model_copy(update={"checkpoint": "org/other"}))


def test_the_adapter_of_a_moving_base_records_its_commit(moving: Vlm, world: World) -> None:
    record = json.loads((train(world, moving, "a", step()) / "record.json").read_text())
    assert record["base"] == f"org/model@{COMMIT}"


# -- what is loaded is what is in the folder ---------------------------------------------------------------

Tensors = dict[str, torch.Tensor]
SYSTEM = PROMPTS["stage1"].model_copy(update={"system": "Be brief."})


def copied(vlm: Vlm, folder: Path, change: Callable[[Tensors], Tensors] | None = None) -> Vlm:
    """The checkpoint in a folder of its own, with other tensors."""
    shutil.copytree(vlm.checkpoint, folder)
    if change is not None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})
    return vlm.model_copy(update={"checkpoint": str(folder)})


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def name_leaves(world: World, vlm: Vlm, system: bool = False) -> None:
    """Ask stage 1, as its rule does; where that is refused, no table is written."""
    output = world.folder / "leaf.parquet"
    stage = Stage(name="leaf", prompt="stage1", max_new_tokens=4, form="bare")
    try:
        predict_leaf(leaf_task(world, output, asking(stage, SYSTEM if system else PROMPTS["stage1"], vlm)))
    except UserError:
        assert not output.exists()
        raise


def prefixed(tensors: Tensors) -> Tensors:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def vision_renamed(tensors: Tensors) -> Tensors:
    return {name.replace("visual", "vision_tower"): tensor for name, tensor in tensors.items()}


def a_layer_less(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}


def a_layer_more(tensors: Tensors) -> Tensors:
    more = {n.replace(".layers.1.", ".layers.2."): t.clone() for n, t in tensors.items() if ".layers.1." in n}
    return tensors | more


def more_words(tensors: Tensors) -> Tensors:
    return {n: torch.cat([t, t[:8]]) if "embed_tokens" in n else t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (prefixed, r"missing, which would be random \(.* and \d+ more\); \d+ left over \(base_model"),
        (vision_renamed, r"missing, which would be random \(model.visual.*left over \(.*vision_tower"),
        (a_layer_less, r"12 missing, which would be random \(model.language_model.layers.1"),
        (a_layer_more, r"12 left over \(model.language_model.layers.2.* and 9 more\)"),
        (more_words, r"embed_tokens"),
    ],
)
def test_tensors_that_are_not_the_architecture_s_are_refused(
    world: World, vlm: Vlm, change: Any, words: str
) -> None:
    odd = copied(vlm, world.folder / "odd", change)
    with pytest.raises(UserError, match=f"odd: .*{words}"):
        name_leaves(world, odd)
    with pytest.raises(UserError, match=f"odd: .*{words}"):
        train(world, odd, "1-sft", step())
    assert not (world.folder / "1-sft").exists()


def test_merging_does_not_go_on_from_random_weights(world: World, vlm: Vlm, lettered: Path) -> None:
    odd = copied(vlm, world.folder / "odd", a_layer_less)
    with pytest.raises(UserError, match="which would be random"):
        module.merge(odd, lettered, world.folder / "merged")
    assert not (world.folder / "merged").exists()


def test_a_merged_checkpoint_has_the_template_as_it_was(world: World, vlm: Vlm, lettered: Path) -> None:
    """What a model's file sets in it stays in the file, and may be set of the merged one, too."""
    odd = copied(vlm, world.folder / "odd")
    template = Path(odd.checkpoint) / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if enable_thinking is defined %} {% endif %}")
    odd = odd.model_copy(update={"template": {"enable_thinking": False}})
    module.merge(odd, lettered, world.folder / "merged")
    assert (world.folder / "merged" / "chat_template.jinja").read_text() == template.read_text()
    module.load(odd.model_copy(update={"checkpoint": str(world.folder / "merged")}))


def test_a_tokenizer_with_more_tokens_than_weights(world: World, vlm: Vlm) -> None:
    from transformers import AutoProcessor

    odd = copied(vlm, world.folder / "odd")
    processor = AutoProcessor.from_pretrained(odd.checkpoint)
    processor.tokenizer.add_tokens(["<|more|>"])
    processor.save_pretrained(odd.checkpoint)
    with pytest.raises(UserError, match=r"odd: its tokenizer has \d+ tokens and its weights only \d+"):
        name_leaves(world, odd)


def test_an_adapter_beside_whole_weights_and_an_adapter_for_a_checkpoint(
    world: World, vlm: Vlm, lettered: Path
) -> None:
    module.merge(vlm, lettered, world.folder / "merged")
    merged = vlm.model_copy(update={"checkpoint": str(world.folder / "merged")})
    name_leaves(world, merged)
    shutil.copy(lettered / "adapter_config.json", merged.checkpoint)
    with pytest.raises(UserError, match=r"merged/adapter_config.json: beside whole weights .* delete it"):
        module.load(merged)
    with pytest.raises(UserError, match=r"1-sft: is the folder of an adapter. Name its base as `checkpoint`"):
        module.load(vlm.model_copy(update={"checkpoint": str(lettered)}))


SETTINGS = {
    "suppress_tokens": list(range(40, 200)), "no_repeat_ngram_size": 1, "min_new_tokens": 5, "repetition_penalty": 1.7,
    "do_sample": True, "temperature": 3.0, "top_k": 0, "begin_suppress_tokens": [220, 221], "num_beams": 3,
}  # fmt: skip


@pytest.mark.parametrize("shared", [True, False])
def test_a_checkpoint_s_own_way_of_generating_is_not_followed(world: World, vlm: Vlm, shared: bool) -> None:
    base = vlm.model_copy(update={"checkpoint": str(BASE)})
    odd = copied(base, world.folder / "odd")
    edit(Path(odd.checkpoint) / "generation_config.json", lambda config: config.update(SETTINGS))
    ids = world.column("images", "image_id")[:8]
    asked = [Request(image_id, f"Which {'genus ' * at}is it?") for at, image_id in enumerate(ids)]
    found = []
    for model in (base, odd):
        engine = TransformersEngine(model, None, ImageStore(world.tables["images"]))
        if not shared:
            engine._shared = None  # one by one, as families are asked that share nothing
        given = dict(engine.generate(asked, Decoding(6)))
        found.append([given[place].completion for place in range(len(asked))])
    assert found[0] == found[1] and len(set(found[0])) > 1


def test_answers_that_followed_such_settings_once_are_not_taken_for_answers_of_today(
    vlm: Vlm, tmp_path: Path
) -> None:
    """Those of any other checkpoint stay found."""
    odd, usual = copied(vlm, tmp_path / "odd"), copied(vlm, tmp_path / "usual")
    edit(Path(odd.checkpoint) / "generation_config.json", lambda config: config.update(SETTINGS))
    settings = {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05}  # of Qwen2.5-VL
    edit(Path(usual.checkpoint) / "generation_config.json", lambda config: config.update(settings))
    assert identity(odd, "w") == identity(vlm, "w") | {"generation": "as told"}
    assert identity(usual, "w") == identity(vlm, "w")


# -- code that comes with weights --------------------------------------------------------------------------


def test_no_code_of_a_checkpoint_is_run_whoever_answers_yes(
    world: World, vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, marker = copied(vlm, world.folder / "odd"), world.folder / "ran"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass C: ...\n"
    (Path(odd.checkpoint) / "code.py").write_text(code)
    names = {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.C", "AutoProcessor": "code.C"}
    edit(Path(odd.checkpoint) / "config.json", lambda c: c.update(model_type="mine", auto_map=names))
    edit(
        Path(odd.checkpoint) / "processor_config.json",
        lambda c: c.update(auto_map=names, processor_class="C"),
    )
    read, write = os.pipe()
    os.write(write, b"yes\n" * 9)
    os.close(write)
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    with pytest.raises(UserError, match=r"odd: needs Python code of its own .* runs no code that comes with"):
        name_leaves(world, odd)
    assert not marker.exists()


# -- files that are not what they seem ---------------------------------------------------------------------


def half_copied(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pointer(folder: Path) -> None:
    words = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    (folder / "model.safetensors").write_text(words)


def quantised(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}

    edit(folder / "config.json", change)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[next(name for name in tensors if "visual" not in name and "norm" in name)] *= torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def a_shard_less(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def no_images(folder: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half_copied, "damaged or half copied"),
        (pointer, "model.safetensors: is a pointer of Git LFS, not weights; fetch them"),
        (quantised, "odd: (needs a library|not loadable)"),
        (no_weights, "odd: not loadable"),
        (pickled, "odd: not loadable"),
        (no_numbers, "the model's logits are no numbers"),
        (no_json, "odd: not loadable"),
        (a_shard_less, "odd: not loadable"),
        (no_images, "odd: (its processor takes no images|not loadable)"),
    ],
)
def test_damaged_folders_are_refused_in_words(world: World, vlm: Vlm, damage: Any, words: str) -> None:
    odd = copied(vlm, world.folder / "odd")
    damage(Path(odd.checkpoint))
    with pytest.raises(UserError, match=words):
        name_leaves(world, odd)


MESSAGES = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
PARTS = "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image_pad|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "system", "words"),
    [
        ("", False, "odd: has no chat template"),
        ("{{ raise_exception('Conversations must alternate') }}", False, "does not take an image and a text: Conv"),
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
            + MESSAGES + PARTS + "{% endfor %}",
            True,
            "does not take a system text, an image and a text: System role not supported",
        ),
        (
            MESSAGES.replace("messages %}", "messages if m['role'] == 'user' %}") + PARTS + "{% endfor %}",
            True,
            "writes the system text of a conversation 0 times.* or take a protocol whose prompts have no `system`",
        ),
        (MESSAGES + "{{ m['content'] }}{% endfor %}", False, "takes plain texts alone"),
        (MESSAGES + PARTS + PARTS + "{% endfor %}", False, "writes the text of a conversation 2 times"),
        (MESSAGES + PARTS.replace("<|image_pad|>", "") + "{% endfor %}", False, "writes the image of a .* 0 times"),
    ],
)  # fmt: skip
def test_templates_that_lose_what_they_are_given_are_refused(
    world: World, vlm: Vlm, template: str, system: bool, words: str
) -> None:
    odd = copied(vlm, world.folder / "odd")
    file = Path(odd.checkpoint) / "chat_template.jinja"
    if template:
        file.write_text(template)
    else:
        file.unlink()
    if system:
        name_leaves(world, odd)  # which has no system text
        (world.folder / "leaf.parquet").unlink()
    with pytest.raises(UserError, match=words):
        name_leaves(world, odd, system)
