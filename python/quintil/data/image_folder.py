"""A folder of images: train/<class>/<image> and test/<class>/<image>, PNG or JPEG of one size -> uint8 arrays.

A class is a folder's name, in the order of the names as text. Grey images give one channel if all of them are grey;
otherwise every image becomes RGB (transparency is dropped). Nothing is resized. Files of other endings and hidden
ones are passed over.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .files import read_hashed
from .progress import progress

SIDES = ("train", "test")
_ENDINGS = (".png", ".jpg", ".jpeg")
_GREY_MODES, _COLOUR_MODES = ("1", "L"), ("P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
# x [N, C, H, W] and the class of each image
_Side = tuple[np.ndarray, np.ndarray]


def read_image_folder(where: str, folder: Path, checksums: dict[str, str]) -> tuple[_Side, _Side]:
    """Images and class names of both sides, in the order of the paths; a sha256 of every file in `checksums`.

    Raises ValueError, which names the file, for an absent side, a class folder without images, a file that is not a
    whole image, an image of more than 8 bits per channel or of another size than the first.
    """
    listed = {side: list_side(where, folder / side) for side in SIDES}
    paths = [path for side in SIDES for path in listed[side]]
    images: list[np.ndarray] = []
    for path in progress(paths, len(paths), f"{where}: read"):
        name = path.relative_to(folder).as_posix()
        image = decode(f"{where}: {name}", read_hashed(path, checksums, name))
        if images and image.shape[:2] != images[0].shape[:2]:
            first, expected = paths[0].relative_to(folder).as_posix(), list(images[0].shape[:2])
            raise ValueError(
                f"{where}: expected every image to have the height and width {expected} of {first}, "
                f"got {list(image.shape[:2])} ({name})"
            )
        images.append(image)
    colour = any(image.ndim == 3 for image in images)
    stacked = [_channels(image, colour) for image in images]
    count = len(listed["train"])
    labels = np.array([path.parent.name for path in paths])
    return (np.stack(stacked[:count]), labels[:count]), (np.stack(stacked[count:]), labels[count:])


def list_side(where: str, folder: Path) -> list[Path]:
    """The images of one side, in the order of their paths; ValueError for a class without any, or no class."""
    classes = sorted(p for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ValueError(f"{where}: expected class folders in {folder.name}/, got none")
    paths = []
    for class_folder in classes:
        files = sorted(p for p in class_folder.glob("*") if p.is_file() and not p.name.startswith("."))
        images = [p for p in files if p.suffix.lower() in _ENDINGS]
        if not images:
            raise ValueError(
                f"{where}: expected images ({', '.join(_ENDINGS)}) in {folder.name}/{class_folder.name}, "
                f"got {len(files)} other files"
            )
        paths += images
    return paths


def decode(where: str, raw: bytes) -> np.ndarray:
    """uint8 [H, W] of a grey image, [H, W, 3] of any other."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(f"{where}: expected pillow to be installed for image folders, got none") from None
    try:
        image = Image.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # pillow raises what a damaged file leads to: OS, value, syntax, struct, its own errors
        # The text of some names the buffer's address, which differs from call to call.
        reason = str(error).split("<")[0].strip()
        raise ValueError(f"{where}: expected a whole PNG or JPEG image, got {reason!r} ({len(raw)} bytes)") from None
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(f"{where}: expected an image of 8 bits per channel, got pillow's mode {image.mode!r}")
    return np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))


def _channels(image: np.ndarray, colour: bool) -> np.ndarray:
    """[C, H, W] with three channels if `colour`, else one."""
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    return np.broadcast_to(image, (3 if colour else 1, *image.shape))
