"""Names of languages, by ISO 639-1 code (639-2 where there is none): the hundred of the M2M100 family."""

from __future__ import annotations

NAMES = """
af Afrikaans, am Amharic, ar Arabic, ast Asturian, az Azerbaijani, ba Bashkir, be Belarusian, bg Bulgarian, bn Bengali,
br Breton, bs Bosnian, ca Catalan, ceb Cebuano, cs Czech, cy Welsh, da Danish, de German, el Greek, en English,
es Spanish, et Estonian, fa Persian, ff Fulah, fi Finnish, fr French, fy Western Frisian, ga Irish, gd Scottish Gaelic,
gl Galician, gu Gujarati, ha Hausa, he Hebrew, hi Hindi, hr Croatian, ht Haitian Creole, hu Hungarian, hy Armenian,
id Indonesian, ig Igbo, ilo Iloko, is Icelandic, it Italian, ja Japanese, jv Javanese, ka Georgian, kk Kazakh,
km Khmer, kn Kannada, ko Korean, lb Luxembourgish, lg Ganda, ln Lingala, lo Lao, lt Lithuanian, lv Latvian,
mg Malagasy, mk Macedonian, ml Malayalam, mn Mongolian, mr Marathi, ms Malay, my Burmese, ne Nepali, nl Dutch,
no Norwegian, ns Northern Sotho, oc Occitan, or Odia, pa Punjabi, pl Polish, ps Pashto, pt Portuguese, ro Romanian,
ru Russian, sd Sindhi, si Sinhala, sk Slovak, sl Slovenian, so Somali, sq Albanian, sr Serbian, ss Swati, su Sundanese,
sv Swedish, sw Swahili, ta Tamil, th Thai, tl Tagalog, tn Tswana, tr Turkish, uk Ukrainian, ur Urdu, uz Uzbek,
vi Vietnamese, wo Wolof, xh Xhosa, yi Yiddish, yo Yoruba, zh Chinese, zu Zulu
"""

LANGUAGE_NAMES = {code: name for code, _, name in (entry.strip().partition(" ") for entry in NAMES.split(","))}


def language_name(code: str) -> str:
    """`Portuguese (pt)` for `pt`; the code itself where we have no name for it."""
    return f"{LANGUAGE_NAMES[code]} ({code})" if code in LANGUAGE_NAMES else code
