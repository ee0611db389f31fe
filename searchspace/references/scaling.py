"""How the families round a width after multiplying it."""


def round_to_eights(width: float) -> int:
    """The nearest multiple of 8, at least 8, and the next one up where that would take off more than 10 %.

    The rule of the MobileNetV2, V3 and V4 releases; MobileNetV1's four published multipliers need no rounding.
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
