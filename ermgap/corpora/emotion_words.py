"""The words and codes by which public corpora name emotions, by language: data and its look-up.

    meaning("HAP", language="en")      # "joy", a code of CREMA-D; "" for what is not listed

Codes of one letter (EmoDB, ShEMO, SAVEE, CaFE, MSP-Podcast), of two (eNTERFACE) and numbers
(RAVDESS) mean different things in different corpora, so none of them is here, but TESS's `ps`. What
a corpus tells apart is not merged: excitement is not joy, calm is not neutral, frustration not
anger. A user's own map, `data.emotions`, is for all these.
"""

from __future__ import annotations

import re
import unicodedata

ALIASES = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happiness": "joy", "happy": "joy", "joyful": "joy", "sad": "sadness", "surprised": "surprise",
}  # fmt: skip
# Beside these, English words count in every language, and so do the codes that stand with them, of
# CREMA-D, IEMOCAP, JTES and OGVC (ang, hap, ...). German is EmoDB's, Italian EMOVO's and DEMoS's
# with their codes, Korean EmotionTTS's; Japanese has STUDIES' words, Chinese ESD's, Portuguese
# VERBO's.
WORDS = {
    "en": {
        "anger": "ang, angrily, hot anger, cold anger",
        "disgust": "dis",
        "fear": "fea, frightened",
        "joy": "hap, joyous, happily",
        "neutral": "neu, neutrality",
        "sadness": "sadly, sorrow",
        "surprise": "sur, ps, pleasant surprise, pleasant surprised, pleasantly surprised",
        "amusement": "amused",
        "boredom": "bored",
        "calm": "calmness",
        "contempt": "contemptuous",
        "excitement": "exc, excited",
        "frustration": "fru, frustrated",
        "sleepiness": "sleepy",
    },
    "de": {
        "anger": "wut, wütend, wuetend, ärger, aerger, ärgerlich, aergerlich, zorn, zornig",
        "disgust": "ekel, abscheu, angeekelt, angewidert",
        "fear": "angst, ängstlich, aengstlich, furcht, verängstigt",
        "joy": "freude, freudig, fröhlich, froehlich, glück, glücklich, gluecklich",
        "neutral": "neutral, neutralität",
        "sadness": "trauer, traurig, traurigkeit",
        "surprise": "überraschung, ueberraschung, überrascht, ueberrascht",
        "boredom": "langeweile, gelangweilt",
    },
    "es": {
        "anger": "ira, enojo, enojado, enojada, enfado, enfadado, enfadada, rabia",
        "disgust": "asco, disgusto",
        "fear": "miedo, temor",
        "joy": "alegría, alegre, felicidad, feliz",
        "neutral": "neutro, neutra, neutralidad",
        "sadness": "tristeza, triste",
        "surprise": "sorpresa",
        "boredom": "aburrimiento",
        "calm": "calma",
    },
    "fr": {
        "anger": "colère, en colère",
        "disgust": "dégoût",
        "fear": "peur",
        "joy": "joie, joyeux, joyeuse, heureux, heureuse",
        "neutral": "neutre",
        "sadness": "tristesse, triste",
        "surprise": "surpris, surprise",
        "boredom": "ennui",
    },
    "it": {
        "anger": "rab, rabbia, ira",
        "disgust": "dis, disgusto",
        "fear": "pau, paura",
        "joy": "gio, gioia, felicità, felice",
        "neutral": "neu, neutro, neutra, neutrale, neutralità",
        "sadness": "tri, tristezza, triste",
        "surprise": "sor, sorpresa",
        "boredom": "noia",
    },
    "pt": {
        "anger": "raiva, ira",
        "disgust": "nojo, desgosto",
        "fear": "medo",
        "joy": "alegria, alegre, felicidade, feliz",
        "neutral": "neutro, neutra, neutralidade",
        "sadness": "tristeza, triste",
        "surprise": "surpresa",
    },
    "pl": {
        "anger": "złość, gniew",
        "disgust": "wstręt, obrzydzenie",
        "fear": "strach",
        "joy": "radość, szczęście",
        "neutral": "neutralny, neutralna, neutralne, neutralność, stan neutralny",
        "sadness": "smutek, smutny, smutna",
        "surprise": "zaskoczenie, zaskoczony, zaskoczona, zdziwienie",
    },
    "ru": {
        "anger": "гнев, злость",
        "disgust": "отвращение",
        "fear": "страх",
        "joy": "радость, счастье",
        "neutral": "нейтрально, нейтральный, нейтральная, нейтральное, нейтральность",
        "sadness": "грусть, печаль",
        "surprise": "удивление",
    },
    "el": {
        "anger": "θυμός, οργή",
        "disgust": "αηδία",
        "fear": "φόβος",
        "joy": "χαρά, ευτυχία",
        "neutral": "ουδέτερο, ουδέτερη",
        "sadness": "λύπη, θλίψη",
        "surprise": "έκπληξη",
    },
    "ja": {
        "anger": "怒り, 怒, いかり",
        "disgust": "嫌悪, 嫌悪感",
        "fear": "恐れ, 怖れ, 恐怖",
        "joy": "喜び, 喜, よろこび, 嬉しい, 嬉しさ, 幸せ, 幸福",
        "neutral": "平静, 平常, 中立, ニュートラル",
        "sadness": "悲しみ, 悲しい, 悲, 哀しみ, かなしみ",
        "surprise": "驚き, 驚, おどろき",
    },
    "ko": {
        "anger": "분노, 화남",
        "disgust": "혐오",
        "fear": "공포, 두려움",
        "joy": "기쁨, 행복",
        "neutral": "일반, 중립",
        "sadness": "슬픔",
        "surprise": "놀람, 놀라움",
    },
    "zh": {
        "anger": "生气, 生氣, 愤怒, 憤怒",
        "disgust": "厌恶, 厭惡",
        "fear": "恐惧, 恐懼, 害怕",
        "joy": "快乐, 快樂, 高兴, 高興, 开心, 開心, 喜悦, 喜悅",
        "neutral": "中立, 中性",
        "sadness": "伤心, 傷心, 悲伤, 悲傷, 难过, 難過",
        "surprise": "惊喜, 驚喜, 惊讶, 驚訝, 惊奇, 驚奇",
        "calm": "平静, 平靜",
    },
}
ITALIAN_CODES = {"rab", "dis", "pau", "gio", "neu", "tri", "sor"}


def fold(text: str) -> str:
    """A word as it is compared: without case, accents, hyphens and underscores, in one form."""
    parted = unicodedata.normalize("NFKD", text.casefold()).replace("ł", "l")
    bare = re.sub("[\u0300-\u036f]", "", parted)  # Latin, Greek and Cyrillic marks, not kana's
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", bare)).strip()


def _index() -> dict[str, dict[str, str]]:
    """The emotion of each folded word, by language."""
    found = {
        language: {fold(w): emotion for emotion, line in lines.items() for w in line.split(", ")}
        for language, lines in WORDS.items()
    }
    return found | {"en": {name: name for name in WORDS["en"]} | ALIASES | found["en"]}


_OF = _index()


def meaning(word: str, *, language: str = "") -> str:
    """The emotion that a word or code stands for, in MELD's terms where it has one; "" if unknown.

    Its own language decides, then English, then all others if they agree; but codes of Italian
    count in Italian only.
    """
    key = fold(word)
    for own in (language, "en"):
        if key in _OF.get(own, {}):
            return _OF[own][key]
    if key in ITALIAN_CODES:
        return ""
    meant = {emotions[key] for emotions in _OF.values() if key in emotions}
    return meant.pop() if len(meant) == 1 else ""
