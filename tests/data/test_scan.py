"""Which files there are in a folder of MVTec's layout and in one of own images; what is refused."""

from collections import Counter

import pytest
from trees import (
    SIZE,
    fails,
    fails_own,
    good_ones,
    load,
    load_own,
    make_product,
    make_tree,
    picture,
    save,
    square,
)

from data import demo, pipeline, scan
from data.photos import find

# ---------------------------------------------------------------- the layout of MVTec AD


@pytest.fixture
def folder(tmp_path):
    return make_tree(tmp_path / "root")


def test_missing_data_names_folder_source_licence_and_demo(tmp_path):
    message = fails(tmp_path / "root" / "bottle", FileNotFoundError)
    assert str(tmp_path / "root" / "bottle") in message
    assert "https://www.mvtec.com/company/research/datasets/mvtec-ad" in message
    assert "CC BY-NC-SA 4.0" in message and ":demo" in message


@pytest.mark.parametrize("category", ["botle", "", ".", "../root/bottle"])
def test_an_unknown_category_lists_the_known(folder, category):
    with pytest.raises(ValueError, match="Unknown category") as caught:
        pipeline.load_splits(category, folder.parent, SIZE, data_dir=folder.parent / "tfds")
    message = str(caught.value)
    assert repr(category) in message and "\n" not in message
    assert "any folder of the same layout" in message
    assert len(scan.CATEGORIES) == 15
    assert all(name in message for name in scan.CATEGORIES)


@pytest.mark.promise("R11", "no training images: an error that names the folder")
def test_an_empty_training_folder_is_named(folder):
    for path in folder.glob("train/good/*"):
        path.unlink()
    assert str(folder / "train/good") in fails(folder)
    (folder / "train/good").rmdir()
    assert str(folder / "train/good") in fails(folder)


@pytest.mark.promise("R10", "masks of no image: an error that names all")
def test_masks_that_belong_to_no_image_are_all_named(folder):
    save(folder / "ground_truth/broken/007_mask.png", square())
    save(folder / "ground_truth/scratched/000_mask.png", square())
    message = fails(folder)
    assert "broken/007_mask.png" in message and "scratched/000_mask.png" in message
    assert "broken/000_mask.png" not in message


@pytest.mark.promise("R10", "a mask of two images: an error that names it")
def test_a_mask_of_two_images_is_refused(folder):
    save(folder / "test/broken/000.jpg", picture(3))
    assert "broken/000_mask.png" in fails(folder)


# ---------------------------------------------------------------- a folder of own images


@pytest.fixture
def product(tmp_path):
    return make_product(tmp_path / "product")


def test_a_missing_folder_and_a_file(tmp_path):
    assert "lost does not exist" in fails_own(tmp_path / "lost", FileNotFoundError)
    path = save(tmp_path / "x.png", picture(0))
    assert "x.png is a file" in fails_own(path, FileNotFoundError)


def test_folders_without_good_images(tmp_path):
    (tmp_path / "p").mkdir()
    assert "p holds no PNG, JPEG, BMP, TIFF, WEBP or PPM file" in fails_own(tmp_path / "p")
    (tmp_path / "p/good").mkdir()
    assert "p/good holds no" in fails_own(tmp_path / "p")
    (tmp_path / "p/good").rmdir()
    save(tmp_path / "p/bad/x.png", picture(0))
    for test in (True, False):
        assert "a folder bad/ and none good/" in fails_own(tmp_path / "p", test=test)


@pytest.mark.parametrize("test", [True, False])
def test_images_beside_good_and_bad_are_named(product, test):
    save(product / "new.png", picture(0))
    for index in range(6):
        save(product / f"cam/{index}.png", picture(0))
    message = fails_own(product, test=test)
    assert "7 images" in message and "cam/0.png" in message and "and 4 more" in message


@pytest.mark.parametrize(
    "name", ["line 1/NG/a.png", "line 1/bad/a.png", "good/bad/a.png", "x/ground_truth/y/a.png"]
)
def test_bad_images_are_not_taken_for_good(tmp_path, name):
    good_ones(tmp_path / "p" / ("good" if name.startswith("good") else "line 1"))
    save(tmp_path / "p" / name, picture(0))
    message = fails_own(tmp_path / "p")
    assert "1 images would be taken for good" in message and name in message


def test_bad_images_of_a_kind_called_good(product):
    save(product / "bad/good/x.png", picture(0))
    assert "bad/good/x.png is bad and called good" in fails_own(product)


def test_the_layout_of_mvtec_ad_is_pointed_to(tmp_path):
    save(tmp_path / "parts/train/good/0.png", picture(0))
    save(tmp_path / "parts/test/scratch/0.png", picture(0))
    message = fails_own(tmp_path / "parts")
    assert f"--config.data.root={tmp_path}" in message and ":parts" in message


@pytest.mark.parametrize("category", ["bottle", "demo", "", "a/b"])
def test_a_product_has_a_name_of_its_own(product, category):
    message = fails_own(product, category=category)
    assert repr(category) in message and "--config=configs/fanogan.py:mine" in message


def test_scanning_gives_names_and_kinds(product):
    files = scan.scan_folder(product)
    assert files.test[0].name == "bad/c.bmp"
    assert {sample.mask for sample in (*files.train, *files.test)} == {None}
    assert scan.scan_folder(product, test=False) == files._replace(test=[])
    assert scan.has_bad(product)


# ---------------------------------------------------------------- both


def counts(files):
    """Defect -> how many images of training and of test."""
    return Counter(each.defect for each in files.train), Counter(each.defect for each in files.test)


@pytest.mark.parametrize(("good", "bad"), [("OK", "NG"), ("Normal", "abnormal"), ("iO", "n.i.O.")])
def test_folders_are_known_by_other_names(tmp_path, good, bad):
    good_ones(tmp_path / "p" / good)
    save(tmp_path / "p" / bad / "scratch/a.png", picture(1))
    save(tmp_path / "p" / bad / "b.png", picture(2))
    files = scan.scan_folder(tmp_path / "p")
    assert counts(files) == ({"good": 20}, {"scratch": 1, bad: 1})
    assert scan.has_bad(tmp_path / "p")
    splits = load_own(tmp_path / "p")
    assert splits.test.labels.sum() == 2 and len(splits.test.paths) == 2 + 2


def test_folders_that_say_nothing_are_warned_of(tmp_path):
    good_ones(tmp_path / "p/cam1", 4)
    good_ones(tmp_path / "p/scratch", 3)
    survey = scan.survey_folder(tmp_path / "p")
    assert len(survey.files.train) == 7 and not survey.faults
    (warning,) = survey.warnings
    assert "no folder in it is called good" in warning and "cam1/ (4), scratch/ (3)" in warning
    save(tmp_path / "q/0.png", picture(0))
    assert not scan.survey_folder(tmp_path / "q").warnings


def test_a_layout_with_other_names_and_deeper_folders(tmp_path):
    folder = make_tree(tmp_path / "root")
    (folder / "train/good").rename(folder / "train/OK")
    (folder / "test/good").rename(folder / "test/Good")
    save(folder / "train/OK/cam1/x.png", picture(1))
    save(folder / "test/broken/cam2/y.png", picture(2))
    save(folder / "ground_truth/broken/cam2/y_mask.png", square())
    save(folder / "test/broken/z.png", picture(3))
    save(folder / "test/broken/z_mask.png", square())
    files = scan.scan_layout(folder.parent, folder.name)
    assert counts(files) == ({"good": 13}, {"broken": 5, "good": 2})
    assert all(sample.mask for sample in files.test if sample.defect == "broken")
    assert len(load(folder).test.paths) == 7


@pytest.mark.parametrize("name", ["train/good/NG/x.png", "train/good/cam 1/masks/x.png"])
def test_what_lies_deeper_and_is_called_defective_is_not_trained_on(folder, name):
    save(folder / name, picture(1))
    message = fails(folder)
    assert "1 images would be taken for good" in message and name in message
    assert f"{folder}/test/<defect>/" in message


def test_images_that_are_passed_over_are_named(folder):
    save(folder / "train/bad/x.png", picture(1))
    save(folder / "y.png", picture(2))
    (warning,) = scan.survey_layout(folder.parent, folder.name).warnings
    assert "2 images are not used" in warning and "train/bad/ (1), ./ (1)" in warning
    (warning,) = scan.survey_layout(folder.parent, folder.name, test=False).warnings
    assert "1 images are not used" in warning


def test_a_mask_beside_its_image_is_no_photo(product):
    save(product / "bad/scratch/a_mask.png", square())
    samples = {sample.path.name: sample.mask for sample in scan.scan_folder(product).test}
    assert samples == {"a.png": product / "bad/scratch/a_mask.png", "b.jpg": None, "c.bmp": None}
    assert load_own(product).test.masks[1].sum() == 12
    names = [path.name for path in scan.images_of(product / "bad")]
    assert names == ["c.bmp", "a.png", "b.jpg"]
    save(product / "good/000_mask.png", square())
    assert "1 masks beside images of good parts" in fails_own(product)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("config.json", "checkpoints/autoencoder/1/x"), "a run"),
        (("config.json", "facts.json"), "a run"),
        (("predictions.csv",), "predictions"),
        (("config.json", "SHA256SUMS"), "an export"),
    ],
)
def test_what_this_program_has_written_is_no_photo(product, folder, names, what):
    for output in (product / "good/out", folder / "test/broken/out", folder / "test/out"):
        save(output / "pictures/x.png", picture(1))
        for name in names:
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (output / name).touch()
    survey = scan.survey_folder(product)
    assert len(survey.files.train) == 20 and not survey.faults
    assert survey.left_out == [f"left out {product}/good/out, which holds {what}"]
    survey = scan.survey_layout(folder.parent, folder.name)
    assert len(survey.files.test) == 5 and len(survey.left_out) == 2
    assert len(scan.images_of(product / "good")) == 20
    assert len(find(f"{product}/good/**")) == 20


@pytest.mark.parametrize("asked", ["root/bottle", "root/other", "."])
def test_a_data_set_one_folder_away_is_pointed_to(folder, tmp_path, asked):
    (tmp_path / asked).mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=f"--config.data.root={tmp_path}/root$"):
        scan.scan_layout(tmp_path / asked, "bottle")


def test_the_generated_data_set_is_not_warned_of(tmp_path):
    """It has a file that says how it was made."""
    demo.generate_demo(str(tmp_path), size=32, train=2, good=1, bad=1)
    survey = scan.survey_layout(tmp_path, "demo")
    assert len(survey.files.train) == 2 and not (survey.warnings or survey.left_out)
