"""What is expected of every picture and every recording by itself, and beside the others of its set.

A column `…_deviation` says how far an item lies from the middle of its set, in robust standard deviations
(`expectations/outliers.py`); it stands where no limit would suit every set of pictures or sounds.
"""

from __future__ import annotations

from data_checks.expectations.suites.expectation import NONE, PRESENT, TRUE, Expectation, row

FAR = 5.0  # robust standard deviations; the floors under them are set so that clean sets have hardly an item beyond
PADDING_BYTES = 64  # writers fill up to a whole block


def _of_either(kind: str, item: str) -> tuple[Expectation, ...]:
    """What every item of either modality has to be."""
    return (
        row(f"{kind}_decodable", "decodable", TRUE, f"{item} that cannot be decoded can neither be learnt nor judged"),
        row(f"{kind}_labelled", "label", PRESENT, f"{item} without a label teaches nothing"),
        row(f"{kind}_label_agreed", "other_labels", NONE, f"the same {kind} under two labels contradicts itself"),
        row(f"{kind}_not_a_copy", "earlier_copies", NONE, "a copy would stand on two sides of a random split"),
        row(
            f"{kind}_ends_where_it_should",
            "bytes_after_end",
            {"min_value": 0, "max_value": PADDING_BYTES},
            "bytes behind its end: two files were joined, or something else travels along",
            "warning",
        ),
    )


PICTURE_SHAPE = (
    row("image_wide_enough", "width_px", {"min_value": 8, "max_value": 20000}, "under 8 pixels no shape is left"),
    row("image_high_enough", "height_px", {"min_value": 8, "max_value": 20000}, "under 8 pixels no shape is left"),
    row(
        "image_aspect",
        "aspect",
        {"min_value": 0.25, "max_value": 4},
        "a picture four times longer than wide is mostly padding once it is square",
        "warning",
    ),
)

PICTURE_CONTENT = (
    row("image_not_constant", "contrast", {"min_value": 0.01}, "a picture of one grey level shows nothing"),
    row("image_informative", "information_bits", {"min_value": 0.1}, "under 0.1 bit a pixel only specks are left"),
)

PICTURE_BESIDE_OTHERS = (
    row(
        "image_contrast_usual",
        "contrast_deviation",
        {"min_value": -FAR},
        "far paler or darker than its set: the exposure failed, or the grey levels were scaled twice",
        "warning",
    ),
    row(
        "image_brightness_usual",
        "brightness_deviation",
        {"max_value": FAR},
        "far brighter than its set: overexposed, or black and white are exchanged",
        "warning",
    ),
    row(
        "image_not_overexposed",
        "bright_share_deviation",
        {"max_value": FAR},
        "far more of it is burnt out to white than in its set",
        "warning",
    ),
    row(
        "image_not_underexposed",
        "dark_share_deviation",
        {"max_value": FAR},
        "far more of it is lost in black than in its set",
        "warning",
    ),
    row(
        "image_sharp",
        "sharpness_deviation",
        {"min_value": -FAR},
        "its sharpest edges are far softer than in its set: out of focus, moved, or enlarged from a small one",
        "warning",
    ),
    row(
        "image_information_usual",
        "information_bits_deviation",
        {"max_value": FAR},
        "far more different grey levels than in its set: noise, or another kind of picture",
        "warning",
    ),
    row(
        "image_detail_usual",
        "detail_deviation",
        {"max_value": FAR},
        "it changes from pixel to pixel far more than its set: noise",
        "warning",
    ),
)

RECORDING_FILE = (
    row(
        "audio_duration",
        "duration_s",
        {"min_value": 0.05, "max_value": 30},
        "a spoken word lasts longer than 0.05 s, and 30 s hold more than one",
    ),
    row("audio_rate", "sample_rate_hz", {"min_value": 4000, "max_value": 192000}, "speech needs 4 kHz at the least"),
    row(
        "audio_rate_usual",
        "unusual_rate",
        NONE,
        "nearly all others have one other sample rate: its own may be wrong, and its word too fast or too slow",
        "warning",
    ),
    row(
        "audio_channels_alive",
        "channel_balance_db",
        {"min_value": -30},
        "one channel is dead, so the mixture has half of the level",
        "warning",
    ),
    row(
        "audio_channels_in_phase",
        "channel_correlation",
        {"min_value": -0.8},
        "one channel is the other turned upside down: mixed, they cancel",
    ),
)

RECORDING_LEVEL = (
    row("audio_not_silent", "loudness_db", {"min_value": -70}, "nothing is heard in it"),
    row(
        "audio_not_too_quiet",
        "loudness_db",
        {"min_value": -58},
        "so quiet that rounding to 16 bits is heard in it: the gain was almost shut",
        "warning",
    ),
    row(
        "audio_loudness_usual",
        "loudness_db_deviation",
        {"min_value": -FAR, "max_value": FAR},
        "far quieter or louder than its set: another gain, or another distance",
        "warning",
    ),
    row(
        "audio_not_clipped",
        "clipping_share",
        {"max_value": 0.05},
        "one sample in twenty in a flat top: the recorder was overdriven beyond use",
    ),
    row("audio_hardly_clipped", "clipping_share", {"max_value": 0.003}, "flat tops are heard as crackling", "warning"),
    row(
        "audio_dc_offset",
        "dc_offset",
        {"min_value": -0.05, "max_value": 0.05},
        "an offset is a fault of the recorder and costs headroom",
        "warning",
    ),
)

RECORDING_CONTENT = (
    row(
        "audio_mostly_sound",
        "silence_share",
        {"max_value": 0.9},
        "nine tenths of silence: the word should be cut out closer",
        "warning",
    ),
    row(
        "audio_not_noise",
        "flatness_db",
        {"max_value": -10},
        "even its most tonal moments are as flat as noise: the word is drowned",
        "warning",
    ),
    row(
        "audio_band_usual",
        "bandwidth_share_deviation",
        {"min_value": -FAR},
        "the upper part of its band is empty and that of its set is not: saved at a higher rate than it was recorded "
        "at, or labelled with too low a one",
        "warning",
    ),
)

IMAGES = (*_of_either("image", "a picture"), *PICTURE_SHAPE, *PICTURE_CONTENT, *PICTURE_BESIDE_OTHERS)
AUDIO = (*_of_either("audio", "a recording"), *RECORDING_FILE, *RECORDING_LEVEL, *RECORDING_CONTENT)
