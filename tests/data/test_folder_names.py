"""What names of folders say, in the languages that cameras and their programs are sold in."""

import unicodedata

import pytest

from data.names import DEFECTIVE_PARTS, GOOD_PARTS, MASKS, meaning

NAMES = {
    GOOD_PARTS: "good Good OK ok_1 OK-parts GoodParts normal PASS i.O. iO IO Gut Gutteile "
    "in-Ordnung no_defect defect-free conforme bueno buono bom 良品 合格品 正常 양품 정상",
    DEFECTIVE_PARTS: "bad BAD NG ng_images_2 NOK not_ok KO n.i.O. NiO fail Failed reject defects "
    "abnormal Anomaly Schlechtteile Ausschuss Défaut défauts Non-conforme "
    "defectuoso scarto não_conforme 不良品 不合格 異常 异常 불량 비정상",
    MASKS: "ground_truth GroundTruth masks Mask",
    "": "cam1 line_1 2026-11-27 train test scratch broken_large parts photos IMG_2041 Norma bottle",
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for what, names in NAMES.items() for name in names.split()]
)
def test_names_are_known_in_any_spelling(name, what):
    for form in ("NFC", "NFD"):  # macOS stores the latter
        assert meaning(unicodedata.normalize(form, name)) == what
    assert meaning(name.upper()) == meaning(name.lower())
