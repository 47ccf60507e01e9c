"""The words by which an answer names an emotion, denies one, or declines: data without code.

English holds the inflections of the labels and of `ermgap.corpora.labels.ALIASES`; German
and Japanese hold their translations. Near-synonyms (furious, calm, excited) are omitted on purpose:
which label they mean is a judgement that would change a benchmark's figures.
"""

from __future__ import annotations

ENGLISH = {
    "anger": "anger angry angrily angered angrier",
    "disgust": "disgust disgusted disgustedly disgusting",
    "fear": "fear fears fearful fearfully fearfulness afraid scared",
    "joy": "joy joyful joyfully joyous joyfulness happy happily happiness happier",
    "neutral": "neutral neutrally neutrality",
    # Not "surprisingly": it comments on another word (surprisingly sad).
    "sadness": "sadness sad sadly sadder saddened",
    "surprise": "surprise surprised",
}
# Adjectives take endings: wütend, wütende, wütender.
GERMAN = {
    "anger": "wut wütend ärger ärgerlich verärgert zorn zornig",
    "disgust": "ekel angeekelt angewidert abscheu",
    "fear": "angst ängstlich furcht verängstigt",
    "joy": "freude freudig fröhlich fröhlichkeit froh glücklich",
    "neutral": "neutral neutralität",
    "sadness": "trauer traurig traurigkeit",
    "surprise": "überraschung überrascht",
}
GERMAN_ENDINGS = ("", "e", "en", "em", "er", "es")
# Written without spaces, so these are searched inside words: a root matches all its inflections.
JAPANESE = {
    "anger": "怒 いかり",
    "disgust": "嫌悪 けんお",
    "fear": "恐怖 恐れ 怖 怯え きょうふ",
    "joy": "喜 嬉し うれし よろこび 幸せ 幸福",
    "neutral": "中立 ニュートラル",
    "sadness": "悲 哀し かなしみ",
    "surprise": "驚 びっくり おどろき",
}
# The word for emotions, and polite phrases.
JAPANESE_IDIOMS = ("喜怒哀楽", "恐れ入り", "恐れながら", "喜んでお")

# What follows one of these is denied, up to the end of its clause.
NEGATORS = frozenset(
    "not no never neither nor without non than nicht kein keine keinen keinem keiner keines "
    "weder noch ohne statt anstatt".split()
)
NEGATING_PHRASES = (
    "rather than",
    "instead of",
    "lack of",
    "absence of",
    "free of",
    "as opposed to",
)
# A negator before one of these denies nothing: not only angry, cannot hide her anger.
NOT_DENIED = frozenset("only just merely simply nur hide contain control suppress conceal".split())
# Words after which a denial is over: not angry but sad.
TURNS = frozenset(
    "but however although though while yet just rather instead still because since "
    "sondern aber jedoch vielmehr dennoch".split()
)
CARRIERS = frozenset("or nor oder noch".split())  # not angry or sad: both are denied
LINKS = frozenset("and und , /".split())  # these carry a denial on only to a listed word
# After a Japanese word, within its clause: 怒りではなく悲しみ.
JAPANESE_DENIAL = (
    r"[^。、,.!?\n]{0,8}?(?:(?:では|じゃ|は|が|も|く)な(?:い|く|かった)|(?:では|は)ありません"
    r"|てい?な(?:い|く|かった)|ていません|られな[いく]|られません|より)"
)

# Words that name no emotion of the speaker although they look so, and denials of a doubt.
IDIOMS = (
    r"\bi(?:'m| am) afraid\b|\b(?:happy|glad) to\b"
    r"|\b(?:no|without(?: a| any)?) (?:doubt|question)\b"
    r"|\bno mistaking\b|\b(?:kein(?:en)?|ohne) zweifel\b"
)
# What precedes the answer itself: "Answer: joy", "The emotion is joy", 感情:喜び.
MARKERS = (
    r"(?:\b(?:answer|emotion|label|prediction|antwort|gefühl)\b"
    r"(?:\s+(?:is|ist|lautet)\b|[\s*_]*[:=])|(?:答え|回答|感情)\s*(?:は|[:=]))"
)
CONCLUSIONS = r"\b(?:therefore|overall|in conclusion|thus|insgesamt|daher)\b"

_ABLE = (
    r"(?:determine|identify|detect|infer|tell|recogni[sz]e|analy[sz]e|assess|judge|process|hear|"
    r"listen|access|help|assist|classify|answer|provide|comply|interpret|evaluate|do|discern|"
    r"make|perceive|label|be certain|be sure)"
)
_UNABLE = r"(?:can't|cannot|can not|couldn't|could not|won't|unable to|not able to)"
REFUSALS = (
    # "I'm sorry, but I can't" declines as a whole: its "but" turns to nothing.
    r"(?:(?:i'm |i am )?(?:very |so )?sorry\W+but )?"
    r"\b(?:i|we)\b(?:'m| am| are)?"
    r"(?: (?:really|currently|unfortunately|simply|actually|also|just))?"
    rf" {_UNABLE} (?:\w+ ){{0,2}}?{_ABLE}\b",
    rf"\b(?:it is|it's|it isn't) (?:not )?(?:possible|impossible) to (?:\w+ )?{_ABLE}\b",
    r"\b(?:can't|cannot|can not|could not|couldn't) be "
    r"(?:determined|identified|inferred|detected|recogni[sz]ed|assessed)\b",
    r"\b(?:don't|do not) have the (?:ability|capability)\b",
    r"\bno audio\b|\b(?:don't|do not|didn't) (?:hear|have|see) (?:any |an |the )?audio\b",
    r"\b(?:ich|wir) (?:kann|können)\b[^.!?\n]*\bnicht\b",
    r"\bnicht möglich\b|\bnicht in der lage\b",
    r"(?:判断|判定|特定|認識|識別|分析|推測|推定|回答|答え|分類|手伝い|対応|確認|聞くこと)"
    r"[^。\n]{0,8}?(?:(?:でき|出来)(?:ません|ない)|かねます)",
)
# An apology declines only where nothing else is said: speakers are sorry too.
APOLOGIES = (
    r"\W*(?:(?:i'm |i am )?(?:very |so )?sorry|i apologi[sz]e|my apologies|es tut mir leid|申し訳)"
)
CONTRASTS = (
    r"\b(?:but|however|nevertheless|nonetheless|that said|aber|jedoch|trotzdem)\b"
    r"|しかし|ですが|ただし"
)
JSON_KEYS = ("emotion", "label", "answer", "prediction", "result", "感情")
