"""The data sets of CoOp's benchmark other than ImageNet, in CoOp's layout and in those of other sources.

Docstrings of classes give paths below the data root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import read_lines, read_mat, read_rows
from .base import PARTS, Items, Row, items_of
from .benchmark import SplitDataset
from .splits import Split, hold_out, split_by_class


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """Objects (Fei-Fei et al. 2004), 100 classes, as in CoOp: `caltech-101/101_ObjectCategories/<class>/*.jpg`."""

    name = "caltech101"
    dataset_dir = "caltech-101"
    other_dirs = ("caltech101",)
    image_dirs = ("101_ObjectCategories", "caltech-101/101_ObjectCategories")
    split = "split_zhou_Caltech101.json"

    @classmethod
    def folder_names(cls) -> Mapping[str, str | None]:
        """Return the folders whose names differ from those of their classes.

        Four class names are singular. The background is not a class, and Faces_easy repeats the images of Faces.
        """
        renamed = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
        return {**renamed, "BACKGROUND_Google": None, "Faces_easy": None}


@DATASET_REGISTRY.register()
class OxfordPets(SplitDataset):
    """Breeds of cats and dogs (Parkhi et al. 2012), 37 classes: `oxford_pets/images/*.jpg` and `annotations/`."""

    name = "oxford_pets"
    dataset_dir = "oxford_pets"
    other_dirs = ("oxford-iiit-pet",)
    split = "split_zhou_OxfordPets.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the annotated training part."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, f"annotations/{file}")
            lines = read_lines(path)
            return read_rows(path, names, lambda: ((f"{image}.jpg", int(number)) for image, number, *_ in lines))

        return hold_out(rows("trainval.txt"), rows("test.txt"))


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """Makes, models and years of cars (Krause et al. 2013), 196 classes: `stanford_cars/cars_{train,test}/*.jpg`.

    The annotations are beside these folders. Some mirrors nest the folders once more (`cars_train/cars_train/`), or
    have the test annotations in `devkit`.
    """

    name = "stanford_cars"
    dataset_dir = "stanford_cars"
    other_dirs = ("stanford-cars",)
    image_dirs = (".",)
    split = "split_zhou_StanfordCars.json"
    unsorted_dir = "cars_train"

    @classmethod
    def moved(cls, images: Path) -> Mapping[str, str]:
        """Return the replacements for folders that a mirror has nested once more."""
        parts = ("cars_train", "cars_test")
        return {part: f"{part}/{part}" for part in parts if (images / part / part).is_dir()}

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the annotated training part."""

        def rows(part: str, *paths: str) -> list[Row]:
            path = self.annotation(root, *paths)
            content = read_mat(path)
            cars = lambda: ((f"{part}/{car['fname']}", car["class"]) for car in content["annotations"])  # noqa: E731
            return read_rows(path, names, cars)

        labelled = "cars_test_annos_withlabels.mat"
        return hold_out(
            rows("cars_train", "devkit/cars_train_annos.mat", "cars_train_annos.mat"),
            rows("cars_test", labelled, f"devkit/{labelled}"),
        )


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """Flowers (Nilsback and Zisserman 2008), 102 classes: `oxford_flowers/jpg/*.jpg` and `imagelabels.mat`."""

    name = "oxford_flowers"
    dataset_dir = "oxford_flowers"
    other_dirs = ("flowers-102",)
    image_dirs = ("jpg",)
    split = "split_zhou_OxfordFlowers.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Split the images of each class, as in CoOp."""
        path = self.annotation(root, "imagelabels.mat")
        content = read_mat(path)
        numbers = lambda: enumerate(content["labels"].tolist(), start=1)  # noqa: E731
        return split_by_class(read_rows(path, names, lambda: ((f"image_{i:05d}.jpg", of) for i, of in numbers())))


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    """Dishes (Bossard et al. 2014), 101 classes: `food-101/images/<class>/*.jpg`."""

    name = "food101"
    dataset_dir = "food-101"
    other_dirs = ("food101",)
    image_dirs = ("images", "food-101/images")
    split = "split_zhou_Food101.json"


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """Variants of aircraft (Maji et al. 2013), 100 classes: `fgvc_aircraft/images/*.jpg`.

    The split is that of its authors: the lists `images_variant_{train,val,test}.txt`.
    """

    name = "fgvc_aircraft"
    dataset_dir = "fgvc_aircraft"
    other_dirs = ("fgvc-aircraft-2013b/data", "fgvc_aircraft/fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b")
    split = "images_variant_train.txt"

    def read(self, root: Path, images: Path, names: Sequence[str]) -> tuple[Items, Items, Items]:
        """Read the lists of the three parts."""

        def rows(part: str) -> list[Row]:
            path = self.annotation(root, f"images_variant_{part}.txt")
            lines = read_lines(path)
            return read_rows(path, names, lambda: ((f"{image}.jpg", " ".join(variant)) for image, *variant in lines))

        return items_of({part: rows(part) for part in PARTS}, images, {})


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """Scenes (Xiao et al. 2010), 397 classes: `sun397/SUN397/<letter>/<class>[/<kind>]/*.jpg`."""

    name = "sun397"
    dataset_dir = "sun397"
    other_dirs = ("SUN397",)
    image_dirs = ("SUN397", "SUN397/SUN397", ".")
    split = "split_zhou_SUN397.json"
    unsorted_dir = "SUN397"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the training part of the first partition."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, file, f"Partitions/{file}")
            images = (PurePosixPath(image.lstrip("/")) for (image,) in read_lines(path))
            return read_rows(path, names, lambda: ((str(image), class_of(image)) for image in images))

        return hold_out(rows("Training_01.txt"), rows("Testing_01.txt"))


def class_of(image: PurePosixPath) -> str:
    """Return the class name for a path: "outdoor apartment_building" for "a/apartment_building/outdoor/x.jpg"."""
    return " ".join(reversed(image.parent.parts[1:]))


@DATASET_REGISTRY.register()
class DescribableTextures(SplitDataset):
    """Describable textures (Cimpoi et al. 2014), 47 classes: `dtd/images/<class>/*.jpg`."""

    name = "dtd"
    dataset_dir = "dtd"
    image_dirs = ("images", "dtd/images")
    split = "split_zhou_DescribableTextures.json"


EUROSAT = {  # class names by folder
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    """Satellite views of land use in RGB (Helber et al. 2019), ten classes: `eurosat/2750/<class>/*.jpg`.

    CoOp's split has 13,500 training, 5,400 validation and 8,100 test images of 64x64.
    """

    name = "eurosat"
    dataset_dir = "eurosat"
    image_dirs = ("2750", "EuroSAT/2750", "EuroSAT", "EuroSAT_RGB")
    split = "split_zhou_EuroSAT.json"

    @classmethod
    def declare(cls, root: Path) -> list[str]:
        """Return the class names by label."""
        return list(EUROSAT.values())

    @classmethod
    def folder_names(cls) -> Mapping[str, str | None]:
        """Return the class names by folder."""
        return EUROSAT


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """Middle frames of human actions (Soomro et al. 2012), 101 classes: `ucf101/UCF-101-midframes/<action>/*.jpg`."""

    name = "ucf101"
    dataset_dir = "ucf101"
    image_dirs = ("UCF-101-midframes",)
    split = "split_zhou_UCF101.json"

    def make_split(self, root: Path, images: Path, names: Sequence[str]) -> Split:
        """Hold out validation images from the training part of the first split."""

        def rows(file: str) -> list[Row]:
            path = self.annotation(root, f"ucfTrainTestlist/{file}", file)
            videos = ((spaced(of), Path(video).stem) for of, video in (line[0].split("/") for line in read_lines(path)))
            return read_rows(path, names, lambda: ((f"{action}/{video}.jpg", action) for action, video in videos))

        return hold_out(rows("trainlist01.txt"), rows("testlist01.txt"))


def spaced(action: str) -> str:
    """Put underscores between the words of an action's name: ApplyEyeMakeup becomes Apply_Eye_Makeup."""
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
