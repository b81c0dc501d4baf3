"""Origins of the data sets. Addresses and checksums are those of their authors, of torchvision, and of CoOp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets import intel, pacs

VGG = "https://www.robots.ox.ac.uk/~vgg/data"
HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
TORCHVISION = {  # sets that torchvision downloads, with the names of its classes
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion_mnist": "FashionMNIST",
    "mnist": "MNIST",
    "stl10": "STL10",
    "svhn": "SVHN",
}


@dataclass(frozen=True)
class File:
    """A file to download.

    Attributes:
        url: Address.
        md5: Checksum, if it is known.
        moves: For an archive: paths in it, and their paths below the data root. For a plain file: "" and its path.
        inner: Path of a nested archive that holds these paths, if it is not the archive itself.
        mirror: Another address, which is tried if the first fails; empty if there is none.
    """

    url: str
    md5: str = ""
    moves: Mapping[str, str] = field(default_factory=dict)
    inner: str = ""
    mirror: str = ""


@dataclass(frozen=True)
class Origin:
    """The origin of a data set.

    Attributes:
        folder: Folder of the data set below the data root.
        needs: Paths below the data root that the data set consists of.
        description: Short description.
        files: Files to download.
        drive: Files on Google Drive: ids by path below the data root. A .zip file is extracted.
        sorted_paths: Paths of a mirror whose images are sorted by class, accepted instead of `needs`.
        steps: Steps that a user has to do by hand; empty if everything can be downloaded.
        find: Function that finds the folder of the data set below the data root, if several layouts are accepted.
    """

    folder: str
    needs: tuple[str, ...]
    description: str
    files: tuple[File, ...] = ()
    drive: Mapping[str, str] = field(default_factory=dict)
    sorted_paths: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    find: Callable[[Path], Path | None] = lambda root: None


IMAGENET_NAMES = {"imagenet/classnames.txt": "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"}  # on Google Drive
ORIGINS: dict[str, Origin] = {
    "caltech101": Origin(
        "caltech-101",
        ("caltech-101/101_ObjectCategories",),
        "objects, 100 classes, 132 MB",
        (
            File(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                "3138e1922a9193bfa496528edbbc45d0",
                {"101_ObjectCategories": "caltech-101/101_ObjectCategories"},
                inner="caltech-101/101_ObjectCategories.tar.gz",
            ),
        ),
        {"caltech-101/split_zhou_Caltech101.json": "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"},
    ),
    "oxford_pets": Origin(
        "oxford_pets",
        ("oxford_pets/images", "oxford_pets/annotations"),
        "breeds of cats and dogs, 37 classes, 811 MB",
        (
            File(
                f"{VGG}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", {"images": "oxford_pets/images"}
            ),
            File(
                f"{VGG}/pets/data/annotations.tar.gz",
                "95a8c909bbe2e81eed6a22bccdf3f68f",
                {"annotations": "oxford_pets/annotations"},
            ),
        ),
        {"oxford_pets/split_zhou_OxfordPets.json": "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"},
    ),
    "stanford_cars": Origin(
        "stanford_cars",
        ("stanford_cars/cars_train", "stanford_cars/cars_test"),
        "cars by make, model and year, 196 classes, 2 GB",
        drive={"stanford_cars/split_zhou_StanfordCars.json": "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"},
        sorted_paths=("stanford_cars/train", "stanford_cars/test"),
        steps=(
            "the authors' links are dead; a mirror behind a login: "
            "kaggle.com/datasets/jessicali9530/stanford-cars-dataset",
            "put its folders cars_train and cars_test (nested once more or not) into stanford_cars/",
            "without CoOp's split file also devkit/ (car_devkit.tgz) and cars_test_annos_withlabels.mat: "
            "links in github.com/pytorch/vision/issues/7545",
            "or, sorted by class: kaggle.com/datasets/cyizhuo/stanford-cars-by-classes-folder: "
            "put its train/ and test/ into stanford_cars/",
        ),
    ),
    "oxford_flowers": Origin(
        "oxford_flowers",
        ("oxford_flowers/jpg", "oxford_flowers/imagelabels.mat"),
        "flowers, 102 classes, 345 MB",
        (
            File(
                f"{VGG}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", {"jpg": "oxford_flowers/jpg"}
            ),
            File(
                f"{VGG}/flowers/102/imagelabels.mat",
                "e0620be6f572b9609742df49c70aed4d",
                {"": "oxford_flowers/imagelabels.mat"},
            ),
        ),
        {"oxford_flowers/split_zhou_OxfordFlowers.json": "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"},
    ),
    "food101": Origin(
        "food-101",
        ("food-101/images",),
        "dishes, 101 classes, 5 GB",
        (
            File(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                "85eeb15f3717b99a5da872d97d918f87",
                {"food-101": "food-101"},
            ),
        ),
        {"food-101/split_zhou_Food101.json": "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"},
    ),
    "fgvc_aircraft": Origin(
        "fgvc_aircraft",
        ("fgvc_aircraft/images", "fgvc_aircraft/images_variant_train.txt"),
        "variants of aircraft, 100 classes, 2.8 GB",
        (
            File(
                f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                moves={"fgvc-aircraft-2013b/data": "fgvc_aircraft"},
            ),
        ),
    ),
    "sun397": Origin(
        "sun397",
        ("sun397/SUN397",),
        "scenes, 397 classes, 37 GB",
        drive={"sun397/split_zhou_SUN397.json": "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"},
        sorted_paths=("sun397/train", "sun397/test"),
        steps=(
            "the authors' links (SUN397.tar.gz, MD5 8ca2778205c41d23104230ba66911c7a) are dead; "
            "whoever has the archive: extract it to sun397/SUN397/",
            "without CoOp's split file also the authors' lists Training_01.txt and Testing_01.txt, in sun397/",
            "or, sorted by class, a mirror behind a login: kaggle.com/datasets/lash45/sun397-50-50: "
            "put train/ and test/ into sun397/",
        ),
    ),
    "dtd": Origin(
        "dtd",
        ("dtd/images",),
        "textures, 47 classes, 625 MB",
        (File(f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1", {"dtd": "dtd"}),),
        {"dtd/split_zhou_DescribableTextures.json": "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"},
    ),
    "eurosat": Origin(
        "eurosat",
        ("eurosat/2750",),
        "satellite views, 10 classes, 94 MB",
        (
            File(
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "c8fa014336c82ac7804f0398fcb19387",
                {"2750": "eurosat/2750"},
                mirror="https://madm.dfki.de/files/sentinel/EuroSAT.zip",
            ),
        ),
        {"eurosat/split_zhou_EuroSAT.json": "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"},
    ),
    "ucf101": Origin(
        "ucf101",
        ("ucf101/UCF-101-midframes",),
        "frames of human actions, 101 classes",
        drive={
            "ucf101/UCF-101-midframes.zip": "10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O",
            "ucf101/split_zhou_UCF101.json": "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
        },
    ),
    "intel": Origin(
        "intel",
        ("intel/seg_train", "intel/seg_test"),
        "photographs of scenes, 6 classes, 14,034 and 3,000 images of 150 px",
        steps=(
            "log in and download kaggle.com/datasets/puneet6060/intel-image-classification",
            "extract it into intel/: seg_train/ and seg_test/, nested once more or not (seg_pred/ is not read); "
            "train/<class>/ and test/<class>/ will do, too",
        ),
        find=intel.find_root,
    ),
    "pacs": Origin(
        "pacs",
        ("pacs/photo",),
        "photographs, paintings, cartoons, sketches, 7 classes, 9,991 images of 227 px",
        steps=(
            "get it by the authors' page, 'Deeper, Broader and Artier Domain Generalization' (Li et al. 2017); "
            "or Dassl's copy, drive.google.com/file/d/1m4X4fROCCXMO0lRLrr6Zz9Vb3974NWhE; "
            "or huggingface.co/datasets/flwrlabs/pacs, whose rows have to be written out as image files",
            "put the images at pacs/<domain>/<class>/ or pacs/images/<domain>/<class>/; "
            "domains are photo, art_painting, cartoon and sketch, and one will do",
            "say which one to use: DATASET.DOMAIN cartoon (default: photo)",
        ),
        find=pacs.find_root,
    ),
    "imagenet": Origin(
        "imagenet",
        ("imagenet/images/train", "imagenet/images/val", "imagenet/classnames.txt"),
        "1,000 classes, 155 GB",
        drive=IMAGENET_NAMES,
        steps=(
            "log in at image-net.org, get the training and validation images of ILSVRC2012",
            "extract them to imagenet/images/{train,val}/<synset>/ (links to folders elsewhere will do)",
        ),
    ),
    "imagenetv2": Origin(
        "imagenetv2",
        ("imagenetv2/imagenetv2-matched-frequency-format-val",),
        "test for ImageNet, 1,000 classes, 1.2 GB",
        (
            File(
                "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                mirror="https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
                moves={"imagenetv2-matched-frequency-format-val": "imagenetv2/imagenetv2-matched-frequency-format-val"},
            ),
        ),
        IMAGENET_NAMES,
    ),
    "imagenet_sketch": Origin(
        "imagenet-sketch",
        ("imagenet-sketch/images",),
        "test for ImageNet, 1,000 classes, 7 GB",
        drive=IMAGENET_NAMES,
        steps=(
            "get ImageNet-Sketch by github.com/HaohanWang/ImageNet-Sketch",
            "extract it to imagenet-sketch/images/<synset>/",
        ),
    ),
    "imagenet_a": Origin(
        "imagenet-adversarial",
        ("imagenet-adversarial/imagenet-a",),
        "test for ImageNet, 200 classes, 688 MB",
        (File(f"{HENDRYCKS}/imagenet-a.tar", moves={"imagenet-a": "imagenet-adversarial/imagenet-a"}),),
        IMAGENET_NAMES,
    ),
    "imagenet_r": Origin(
        "imagenet-rendition",
        ("imagenet-rendition/imagenet-r",),
        "test for ImageNet, 200 classes, 2.2 GB",
        (File(f"{HENDRYCKS}/imagenet-r.tar", moves={"imagenet-r": "imagenet-rendition/imagenet-r"}),),
        IMAGENET_NAMES,
    ),
}
