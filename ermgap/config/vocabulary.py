"""Values that columns and settings may have, in the order that indices, files and pages use."""

GENDER = "gender"  # the attribute that is compared unless another is named
GENDERS = ("female", "male")
SPEECH, SPEECH_AND_TEXT = MODALITIES = ("speech", "speech+text")
MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")  # the default
# Where an attribute's values come from, and what is said where nobody says it.
PROVENANCES = ("self-reported", "annotated", "inferred", "synthetic")
NOT_STATED = "not stated"
# Columns of the tables of utterances and of predictions that are no attribute. `language` and
# `corpus` may be: groups of people too.
NO_ATTRIBUTES = frozenset(
    "utterance_id emotion speaker group split path start_s end_s transcript synthetic modality "
    "label prediction answer split_group duration_s cell side fold system epoch position note "
    "problem".split()
)
