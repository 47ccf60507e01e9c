"""Values that columns and settings may have, in the order that indices, files and pages use."""

GENDERS = ("female", "male")
SPEECH, SPEECH_AND_TEXT = MODALITIES = ("speech", "speech+text")
MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")  # the default
