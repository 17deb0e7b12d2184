"""The tables that pass between the steps, as pyarrow schemas; checked on write and on read."""

import pyarrow as pa

_str, _i8, _i32, _i64 = pa.string(), pa.int8(), pa.int32(), pa.int64()

TAXA = pa.schema([("leaf", _str), ("level", _i8), ("rank", _str), ("taxon", _str), ("key", _str)])

ARCHIVE = pa.schema([("member", _str), ("offset", _i64), ("size", _i64)])

IMAGES = pa.schema(
    [
        ("image_id", _str),
        ("split", _str),
        ("leaf", _str),
        ("archive", _str),
        ("member", _str),
        ("offset", _i64),
        ("size", _i64),
        ("width", _i32),
        ("height", _i32),
        ("sha256", _str),
    ]
)

REJECTED = pa.schema([("archive", _str), ("member", _str), ("reason", _str)])

QUESTIONS = pa.schema(
    [
        ("question_id", _str),
        ("image_id", _str),
        ("split", _str),
        ("level", _i8),
        ("rank", _str),
        ("options", pa.list_(_str)),
        ("answer_index", _i8),
        ("scored", pa.bool_()),
        ("source", _str),
        ("encoder", _str),
        ("template", _str),
        ("similarity", pa.list_(pa.float32())),
    ]
)

# A row per record of the benchmark's file, in its order: what no question holds of it, and why it is not
# asked where it is not.
PUBLISHED = pa.schema(
    [
        ("line", _i32),
        ("image", _str),  # the path as the file has it
        ("image_id", _str),  # null where the image is not asked
        ("reason", _str),  # null where it is
        ("rest", _str),  # JSON: label, split, null levels
    ]
)

CALIBRATION = pa.schema(
    [
        ("template", _str),
        ("case", _str),
        ("level", _i8),
        ("rank", _str),
        ("images", _i64),
        ("overlap", pa.float64()),  # mean share of the published distractors that are among our top three
        ("same_set", pa.float64()),  # share of images with the very same distractors
        ("chance", pa.float64()),  # overlap of three labels drawn at random
    ]
)

PARTS = pa.schema([("leaf", _str), ("part", _str), ("seed", _i64)])

OUTCOMES = ("answered", "unparsed", "truncated", "empty", "refused", "error")

# What each of several samples of a prompt says; the prediction is one of them.
_SAMPLE = pa.struct(
    [
        ("completion", _str),
        ("answer", _str),
        ("answer_index", _i8),
        ("outcome", _str),
        ("finish_reason", _str),
        ("completion_tokens", _i32),
        ("seconds", pa.float32()),
    ]
)

PREDICTIONS = pa.schema(
    [
        ("question_id", _str),  # null in the leaf stage
        ("image_id", _str),
        ("level", _i8),  # null in the leaf stage
        ("stage", _str),  # leaf | answer
        ("prompt_id", _str),
        ("completion", _str),
        ("reasoning", _str),
        (
            "lineage",
            pa.list_(_str),
        ),  # taxa named in the reasoning, one per rank of the data set, null where unnamed
        ("answer", _str),
        ("answer_index", _i8),
        ("published_index", _i8),  # the benchmark's first-letter rule, kept to reproduce its numbers
        (
            "letters",
            pa.list_(pa.float32()),
        ),  # log-probability of each option's letter as the first token, where it was read
        ("outcome", _str),
        ("finish_reason", _str),
        ("prompt_tokens", _i32),
        ("image_tokens", _i32),
        ("completion_tokens", _i32),
        ("cached_tokens", _i32),  # of the prompt's, found in the cache of a server; null of other engines
        ("seconds", pa.float32()),
        ("samples", pa.list_(_SAMPLE)),  # all of them in order, where several are drawn
    ]
)

CURVE = pa.schema([("step", _i32), ("metric", _str), ("value", pa.float64())])

SCORES = pa.schema(
    [
        ("dataset", _str),
        ("choices", _str),
        ("system", _str),
        ("metric", _str),
        ("level", _i8),
        ("subset", _str),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", _i64),
    ]
)


def embeddings(width: int) -> pa.Schema:
    """Embedding table: id and a unit-length float16 vector of `width` numbers."""
    return pa.schema([("id", _str), ("vector", pa.list_(pa.float16(), width))])
