"""How a conversation becomes the text that a model reads: by the chat template of its processor.

Inference, the rewards and the guards of training share it, so that what is trained is what is asked.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from vltaxon import prompts
from vltaxon.errors import UserError, suggest

if TYPE_CHECKING:
    from vltaxon.inference.engine import Request

MARKS = frozenset({"<think>", "</think>", "<answer>", "</answer>"})  # ours, which prompts and answers hold


def set_options(processor: Any, options: Mapping[str, bool | int | float | str], checkpoint: str) -> None:
    """Write the options of a model file into the chat template, for whoever uses the processor.

    Args:
        processor: of the checkpoint.
        options: values of the template's variables.
        checkpoint: its name, for messages.

    Raises:
        UserError: the template has no such variable.
    """
    if not options:
        return
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.meta import find_undeclared_variables

    template, environment = processor.chat_template, Environment(extensions=["jinja2.ext.loopcontrols"])
    if not isinstance(template, str):
        raise UserError(f"template: {checkpoint} has not one chat template, whose variables could be set")
    try:
        # the marks of generation are of transformers alone
        plain = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template)
        known = find_undeclared_variables(environment.parse(plain))
    except TemplateSyntaxError as error:
        raise UserError(f"{checkpoint}: its chat template cannot be read: {error}") from error
    if odd := sorted(options.keys() - known):
        raise UserError(
            f'template: "{odd[0]}" is not {suggest(odd[0], sorted(known))}, the variables of the chat '
            f"template of {checkpoint}"
        )
    # as Python writes it, in ASCII, jinja reads it; the line's end goes with the block
    head = "".join(f"{{% set {name} = {value!a} %}}\n" for name, value in options.items())
    processor.chat_template = head + template


def render(processor: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a conversation, up to where the assistant goes on.

    Args:
        processor: with the chat template.
        messages: system and user.
    """
    text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def check_template(processor: Any, checkpoint: str, system: bool = False) -> None:
    """Check, by a conversation in words of our own, that a chat template keeps what it is given.

    Args:
        processor: of the model.
        checkpoint: what readers call it.
        system: whether there is a system text, too.

    Raises:
        UserError: there is no template; it refuses the conversation, drops a text or repeats it, or has not
            one place for one image.
    """
    user, order, image = (
        "Which organism is this?",
        "Name it as botanists do.",
        getattr(processor, "image_token", None),
    )
    if not image or getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"{checkpoint}: its processor takes no images; preprocessor_config.json may be missing"
        )
    if not getattr(processor, "chat_template", None):
        raise UserError(
            f"{checkpoint}: has no chat template (chat_template.jinja); take the instruction-tuned "
            "checkpoint, or copy the template of the model that it was made from"
        )
    conversation = prompts.conversation(user, order if system else None)
    try:
        text = render(processor, conversation)
    except Exception as error:  # of templates, which may raise what they like
        what = "a system text, an image and a text" if system else "an image and a text"
        raise UserError(f"{checkpoint}: its chat template does not take {what}: {error}") from error
    if "{'type'" in text:
        raise UserError(
            f"{checkpoint}: its chat template takes plain texts alone, and writes the parts of a message as "
            "a list; answers would be to another prompt. Mend chat_template.jinja"
        )
    given: Sequence[tuple[str, str]] = [("text", user), ("image", image)]
    given = [*given, ("system text", order)] if system else given
    for what, words in given:
        if (count := text.count(words)) != 1:
            instead = ", or take a protocol whose prompts have no `system`" if what == "system text" else ""
            raise UserError(
                f"{checkpoint}: its chat template writes the {what} of a conversation {count} times; answers "
                f"would be to another prompt. Mend chat_template.jinja{instead}"
            )


def render_answered(
    processor: Any, prompt: Sequence[Mapping[str, Any]], completion: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    """Return a prompt as it is asked, and what the assistant is to go on with, its turn's end included.

    Some templates begin an answered turn otherwise than one to be answered (LLaVA-OneVision's has a space
    more). Then the answer stands behind the prompt as it is asked; where the template changes the answer,
    too, the two texts are what both renderings share, and the rest.

    Args:
        processor: with the chat template.
        prompt: system and user.
        completion: the assistant, and the turns after it.
    """
    asked = render(processor, prompt)
    whole: str = processor.apply_chat_template([*prompt, *completion], tokenize=False)
    if whole.startswith(asked):
        return asked, whole[len(asked) :]
    shared = sum(1 for _ in takewhile(lambda pair: len({*pair}) == 1, zip(asked, whole, strict=False)))
    said = completion[0]["content"][0]["text"]
    begun = len("<think>") if said.startswith("<think>") and asked.rstrip().endswith("<think>") else 0
    at = whole.find(said, shared - begun)
    return (whole[:shared], whole[shared:]) if at < 0 else (asked, whole[at + begun :])


def adds_start(tokenizer: Any, text: str) -> bool:
    """Return whether the tokenizer is to add its start token: templates of Gemma and Llama write it.

    Args:
        tokenizer: of the model.
        text: a rendered conversation.
    """
    start = tokenizer.bos_token
    return start is None or not text.startswith(start)


def opens_reasoning(processor: Any) -> bool:
    """Return whether the chat template begins the reasoning: its prompt ends in a `<think>` left open."""
    word = "question"
    behind = render(processor, prompts.conversation(word)).rpartition(word)[2]
    return behind.rfind("<think>") > behind.rfind("</think>")


def special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Return what finds a token in a text that is no text to the tokenizer: `<|im_end|>`, `<|image_pad|>`.

    Marks of ours are not among them, nor is what is a single character.
    """
    added = tokenizer.added_tokens_decoder.values()
    names = {token.content for token in added if token.special and len(token.content) > 1} - MARKS
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def check_requests(processor: Any, checkpoint: str, requests: Sequence["Request"]) -> None:
    """Check that a model reads prompts as they are.

    Args:
        processor: of the model.
        checkpoint: its name.
        requests: the prompts.

    Raises:
        UserError: one holds a special token of the model, or the template, which keeps what has no system
            text (`checkpoint.load_processor`), loses that.
    """
    if any(request.system is not None for request in requests):
        check_template(processor, checkpoint, system=True)
    special = special_tokens(processor.tokenizer)
    for request in requests:
        refuse_special(special, f"{request.system or ''}\n{request.text}", "a prompt", checkpoint)


def refuse_special(special: re.Pattern[str], text: str, what: str, model: str) -> None:
    """Refuse a text that holds a special token.

    Args:
        special: what finds one, see `special_tokens`.
        text: of a prompt, or of what is to be learnt.
        what: what readers call the text.
        model: what they call the model.

    Raises:
        UserError: it holds one.
    """
    if (token := special.search(text)) is not None:
        raise UserError(
            f"{what} holds {token.group()}, a special token of {model}, which would not be read as text. "
            f"Take it out of the prompt, or of the name or option that it is filled with: {text[-300:]!r}"
        )


def check_marks(tokenizer: Any, checkpoint: str) -> None:
    """Check that the marks of reasoning and answer are text, which is not dropped when tokens are decoded.

    Args:
        tokenizer: of the model.
        checkpoint: its name.

    Raises:
        UserError: the tokenizer drops one.
    """
    hidden = sorted(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    if hidden := [token for token in hidden if token in MARKS]:
        raise UserError(
            f"{checkpoint}: {', '.join(hidden)} are special tokens of its tokenizer, which leaves them out "
            "of what the model writes, so that no reasoning could be told from an answer. Give them "
            "`special: false` in tokenizer.json and tokenizer_config.json"
        )
