"""The unlabeled data sampler: images without labels, in an order that depends on nothing but their content.

A data set's files may be sorted by class, and their names may spell it. So images are known by their index in the
order of their content hashes; every draw, tie and batch follows it. Nothing in this file has seen a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.core.world import ALONE, World
from coft.images.reading import IN_FULL, Decoding, decode_image, read_bytes
from coft.images.views import View

DIGEST = 32  # bytes of a SHA-256


class UnlabeledPool:
    """Unlabeled images in the order of their content hashes.

    Args:
        paths: The image files, in any order.
        cache_bytes: Decoded images are kept in memory while they take up no more than this together.
        hashes: SHA-256 of files whose content is known already, by path: they are not read now, unless to be shrunk.
        decoding: How large images become.
        read: Gives the bytes of a path.
        world: Each of its ranks reads a part of the files, to hash them.

    Attributes:
        paths: The image files by index.
        order: For each index, the position of the image in the `paths` that were given. Shape (N,).
        digest: One hash of all contents, to know the pool by. Same for the same images under other names.

    Raises:
        UserError: If there is no image, or one cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str],
        cache_bytes: int = 512 << 20,
        hashes: Mapping[str, str] | None = None,
        decoding: Decoding = IN_FULL,
        read: Callable[[str], bytes] = read_bytes,
        world: World = ALONE,
    ) -> None:
        if not paths:
            raise UserError("no unlabeled images: the data set's training part is empty; see to its files or split")
        self._cache: dict[str, np.ndarray] = {}
        self._prepared: dict[int, Image.Image] = {}
        self._room = cache_bytes
        self.decoding, self._read = decoding, read
        new = [path for path in paths if decoding.shorter or path not in (hashes or {})]
        own = new[world.part(len(new))]
        found = [list(bytes.fromhex(digest)) for digest in map_threaded(self._take_in, own, "read images")]
        rows = world.gather(torch.tensor(found, dtype=torch.uint8).view(len(own), DIGEST))
        known = {**(hashes or {}), **dict(zip(new, (bytes(row).hex() for row in rows.tolist()), strict=True))}
        digests = [known[path] for path in paths]
        order = sorted(range(len(paths)), key=lambda i: digests[i])
        self.order = torch.tensor(order)
        self.paths, self._digests = [paths[i] for i in order], [digests[i] for i in order]
        self.digest = hashlib.sha256("".join(digests[i] for i in order).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """Return an image, RGB.

        Raises:
            UserError: If it cannot be read, or is another one than it was: pseudo-labels and features that are kept
                go by its hash.
        """
        path = self.paths[index]
        if (cached := self._cache.get(path)) is not None:
            return Image.fromarray(cached)
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != self._digests[index]:
            raise UserError(f"image {path} has changed since the run began; begin anew, in another output folder")
        return decode_image(data, path, self.decoding)

    def prepared(self, index: int, view: View) -> Image.Image:
        """Return an image after a view's first stage; kept while there is room.

        All views that have such a stage must have the same, which `Inputs` says.
        """
        if view.fixed is None:
            return self.image(index)
        if index in self._prepared:
            return self._prepared[index]
        image = view.fixed(self.image(index))
        taken = 4 * image.width * image.height  # Pillow keeps RGB in four bytes
        if taken <= self._room:
            self._room -= taken
            self._prepared[index] = image
        return image

    def _take_in(self, path: str) -> str:
        """Hash a file; decode it as well, to know now whether it can be read, and keep it while there is room."""
        data = self._read(path)
        pixels = np.asarray(decode_image(data, path, self.decoding))
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._cache[path] = pixels
        return hashlib.sha256(data).hexdigest()
