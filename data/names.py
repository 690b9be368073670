"""What folders are called that hold good parts, defective ones, or masks: in whatever language.

By the field's own words and those of the languages in which inspection cameras and their programs
are sold. Words that also mean something else, such as 'test', 'positive' or 'other', are not here.
"""

import re
import unicodedata

GOOD_PARTS, DEFECTIVE_PARTS, MASKS = "good", "defective", "masks"
_GOOD = """
good ok okay normal pass passed accepted conforming flawless defectfree nodefect nodefects
nondefective noanomaly
io inordnung gut gute gutteil gutteile bon bons bonne bonnes conforme conformes correct bueno buenos
buenas correcto correctos buono buoni buone bom bons boa boas dobry dobre
良品 合格 合格品 正常 正常品 양품 정상
"""
_DEFECTIVE = """
bad ng nok ko notok nogood notgood defect defects defective defectives abnormal anomaly anomalies
anomalous fail fails failed failure failures fault faults faulty reject rejects rejected
nonconforming scrap
nio nichtinordnung schlecht schlechte schlechtteil schlechtteile ausschuss fehler fehlerhaft defekt
defekte mauvais mauvaise defaut defauts nonconforme nonconformes rebut rebuts malo mala malos malas
defectuoso defectuosos defecto defectos noconforme rechazo rechazos scarto scarti difettoso
difettosi difetto difetti defeito defeitos defeituoso naoconforme ruim ruins zly zle wada wady
不良 不良品 不合格 不合格品 異常 異常品 异常 异常品 缺陷 次品 불량 불량품 비정상
"""
_MASKS = "groundtruth mask masks"
# What such a word is written together with: 'OK parts', 'ng_images_2'.
_BESIDE = frozenset(
    "part parts image images img imgs photo photos picture pictures sample samples "
    "product products teil teile bild bilder".split()
)


def meaning(folder: str) -> str:
    """What a folder of that name holds: one of the three, or '' where it says nothing.

    Upper and lower case, accents, and what stands between words do not count, nor do numbers and
    words such as 'parts' beside: 'n.i.O.', 'Non-conforme' and 'NG_images_2' are known.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    plain = [_plain(word) for word in words]
    name = "".join(word for word in plain if word not in _BESIDE) or "".join(plain)
    for what, known in ((GOOD_PARTS, _GOOD), (DEFECTIVE_PARTS, _DEFECTIVE), (MASKS, _MASKS)):
        if name in map(_plain, known.split()):
            return what
    return ""


def _plain(word: str) -> str:
    """In lower case and without accents, each letter as one character."""
    letters = unicodedata.normalize("NFKD", word.casefold())
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFKC", kept)
