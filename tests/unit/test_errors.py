from vltaxon.errors import suggest


def test_suggest_lists_all_and_offers_the_nearest() -> None:
    assert suggest("vla", ["clip", "vlm"]) == 'one of clip, vlm. Did you mean "vlm"?'
    assert suggest("zzz", ["clip", "vlm"]) == "one of clip, vlm."
    assert suggest("x", []) == "one of none."
