import pytest

from vltaxon import prompts

STAGE2 = 'It is "{leaf}". {question}\n{options}'


def test_render_fills_wording_and_options() -> None:
    text = prompts.render(
        STAGE2,
        "Which {rank} of {word}?",
        "plant",
        ["order", "genus"],
        "genus",
        ["Rosa", "Acer"],
        "Rosa canina",
    )
    assert text == 'It is "Rosa canina". Which genus of plant?\nA. Rosa\nB. Acer'


def test_a_model_s_braces_are_not_placeholders() -> None:
    text = prompts.render(STAGE2, "{rank}?", "plant", [], "genus", ["{word}"], "{question} {0}")
    assert text == 'It is "{question} {0}". genus?\nA. {word}'


@pytest.mark.parametrize(("system", "roles"), [(None, ["user"]), ("Be brief.", ["system", "user"])])
def test_conversation_puts_the_image_first(system: str | None, roles: list[str]) -> None:
    messages = prompts.conversation("What?", system)
    assert [m["role"] for m in messages] == roles
    assert [block["type"] for block in messages[-1]["content"]] == ["image", "text"]
