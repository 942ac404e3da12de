"""What to do for data sets that their sites give only to people: told by the catalogue and by their readers."""

SUIM = """To get it, follow the link at github.com/xahidbuffon/SUIM and unpack train_val and TEST into {folder},
so that {folder}/TEST/images is there. Set FSSLIB_DATA to the folder that holds SUIM.
A folder SUIM/images beside one folder of masks for each class is a merged copy in another format.
The toy world (data "toy") needs no download."""

DEEPGLOBE = """To get it, unpack kaggle.com/datasets/balraj98/deepglobe-land-cover-classification-dataset (with an
account there), so that {folder}/train/119_sat.jpg is there, and call fsslib.data.deepglobe.cut_crops(). Crops cut by
others, as {folder}/1/test/origin, are read too, but scores from other crops are not comparable.
Set FSSLIB_DATA to the folder that holds Deepglobe. The toy world (data "toy") needs no download."""

CITYSCAPES = """To get it, register at www.cityscapes-dataset.com (free, for non-commercial use; the images may not be
passed on), log in there, download leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB), and unpack
both into {folder}. Set FSSLIB_DATA to the folder that holds Cityscapes.
The toy streets (data "streets") need no download."""

SYNTHIA = """To get it, download SYNTHIA-RAND-CITYSCAPES from synthia-dataset.net (CC BY-NC-SA 3.0) and unpack
SYNTHIA_RAND_CITYSCAPES.rar with unrar or 7-Zip into {folder}, so that {folder}/RAND_CITYSCAPES/RGB is there.
Set FSSLIB_DATA to the folder that holds SYNTHIA. Its sequences and other subsets are in other formats.
The toy streets (data "streets") need no download."""
