"""What each data set is and where its files come from, for people who read; loaders do not use it."""

from __future__ import annotations

from dataclasses import dataclass

from . import cifar100, dsads, hapt, imdb, mnist, pamap2, synthetic


@dataclass(frozen=True)
class Entry:
    """One data set: what it is, the shape of a sample and the counts, splits, files below the data root, source."""

    what: str
    shape: str
    split: str
    files: str
    source: str


_PERSONS = "persons apart: loso[:person] (default), hdqt (80 % of the persons, drawn by the seed), subjects:JSON"
_OWN = "persons drawn (hdqt) where the file has persons, else 20 % of each class; or the file's own split"

CATALOGUE: dict[str, Entry] = {
    "cifar100": Entry(
        "CIFAR-100: photographs",
        f"uint8 [3, 32, 32]; {cifar100.CLASSES} classes; 50,000 training and 10,000 test samples",
        "the publisher's",
        "cifar-100-binary/ (train.bin, test.bin, fine_label_names.txt) or cifar-100-python/ (train, test, meta), as "
        "folders or as the published .tar.gz",
        cifar100.URL,
    ),
    "custom": Entry(
        "custom:<path>: your own data",
        "float32 [features], [channels, length] or [channels, height, width]; uint8 images",
        _OWN,
        ".npz with x_train, y_train, x_test, y_test [, subject_train, subject_test], or CSV with a header: label "
        "[, subject, split], every other column a feature",
        "you; labels may be any integers or texts",
    ),
    "digits": Entry(
        "handwritten digits, for demos and tests",
        "float32 [64]; 10 classes; 1,438 training and 359 test samples",
        "fixed, 20 % of each class",
        "none",
        "embedded in scikit-learn (the extra quintil[data])",
    ),
    "dsads": Entry(
        "Daily and Sports Activities: five body units, 25 Hz",
        f"float32 [{dsads.FEATURES}] features computed from 5 s segments; 19 classes; 8 persons; 9,120 samples",
        _PERSONS,
        "data/aXX/pY/sZZ.txt (9,120 files), or a ready table dsads_405.npz, dsads.mat, dsads.csv",
        dsads.URL,
    ),
    "hapt": Entry(
        "smartphone activities and postural transitions, 50 Hz",
        f"float32 [{hapt.HAR_FEATURES}], the publisher's; 12 classes (default 11, without class 8); 30 persons "
        "(default 28)",
        "official persons (default), hdqt, loso[:person], subjects:JSON",
        "Train/{X,y,subject_id}_train.txt and Test/{X,y,subject_id}_test.txt, or a ready table hapt_combined.csv; "
        "without them RawData, from which the same features are computed",
        hapt.URL,
    ),
    "hapt_raw": Entry(
        "the same recordings, features computed here",
        "float32 [216] of windows of 128 samples; 12 classes (default 11); 30 persons (default 28); 10,929 windows",
        "official persons (default), hdqt, loso[:person], subjects:JSON",
        "RawData/labels.txt and RawData/{acc,gyro}_expXX_userYY.txt",
        hapt.URL,
    ),
    "hapt_windows": Entry(
        "the same recordings, windows of the signals themselves",
        "float32 [6, 128], acceleration and angular rate; 12 classes (default 11); 30 persons (default "
        "28); 10,929 windows",
        "official persons (default), hdqt, loso[:person], subjects:JSON",
        "RawData/labels.txt and RawData/{acc,gyro}_expXX_userYY.txt",
        hapt.URL,
    ),
    "imdb": Entry(
        "IMDB: film reviews, negative or positive",
        f"int64 [{imdb.LENGTH}] words as numbers below {imdb.WORDS:,}; 2 classes; 25,000 + 25,000 texts",
        "the publisher's",
        "aclImdb/{train,test}/{neg,pos}/<number>_<rating>.txt",
        imdb.URL,
    ),
    "mnist": Entry(
        "MNIST: handwritten digits",
        f"uint8 [1, {mnist.SIZE}, {mnist.SIZE}]; {mnist.CLASSES} classes; 60,000 training and 10,000 test samples",
        "the publisher's",
        "mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz",
        mnist.URL,
    ),
    "pamap2": Entry(
        "Physical Activity Monitoring: three body units, 100 Hz",
        f"float32 [{pamap2.FEATURES}] features computed from windows of {pamap2.WINDOW} samples; 12 classes (default "
        "11, without rope jumping); 9 persons (default 6)",
        _PERSONS,
        "Protocol/subject101.dat to subject109.dat, or a ready table pamap2.npz, pamap2.mat, pamap2.csv",
        pamap2.URL,
    ),
    "synthetic": Entry(
        "generated clusters: synthetic[:har] or synthetic:cifar",
        f"float32 [{synthetic.HAR_FEATURES}], {synthetic.HAR_CLASSES} classes, {synthetic.HAR_PERSONS} persons; or "
        f"uint8 [3, 32, 32], {synthetic.IMAGE_CLASSES} classes",
        _PERSONS + "; official for images",
        "none",
        "drawn from the seed",
    ),
}
