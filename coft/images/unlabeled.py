"""The pool of unlabeled images, in an order that depends on their content alone.

The files of a data set may be sorted by class, and their names may contain it. So an image is identified by its index
in the order of the content hashes, and all random draws, tie-breaks and batches use this index. No code in this file
sees a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.core.threads import map_threaded
from coft.core.world import SINGLE_PROCESS, World
from coft.images.reading import FULL_SIZE, Decoding, decode_image, read_bytes
from coft.images.views import View

DIGEST = 32  # bytes of a SHA-256 hash


class UnlabeledPool:
    """Unlabeled images in the order of their content hashes.

    Args:
        paths: Image files, in any order.
        cache_bytes: Capacity of the in-memory cache of decoded images, in bytes.
        hashes: SHA-256 by path, for files that are hashed already. They are not read here, unless `decoding.shorter`
            shrinks them.
        decoding: Size to which images are decoded.
        read: Function that reads the bytes of a path.
        world: Processes of the run. Each process hashes a part of the files.

    Attributes:
        paths: Image files, by index.
        order: Position in the argument `paths` of the image at each index. Shape (N,).
        digest: Hash over the contents of all images. It identifies the pool, whatever its files are named.

    Raises:
        UserError: If there are no images, or one cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str],
        cache_bytes: int = 512 << 20,
        hashes: Mapping[str, str] | None = None,
        decoding: Decoding = FULL_SIZE,
        read: Callable[[str], bytes] = read_bytes,
        world: World = SINGLE_PROCESS,
    ) -> None:
        if not paths:
            raise UserError("no unlabeled images: the data set's training part is empty; check its files or split")
        self._cache: dict[str, np.ndarray] = {}
        self._prepared: dict[int, Image.Image] = {}
        self._free_bytes = cache_bytes
        self.decoding, self._read = decoding, read
        unhashed = [path for path in paths if decoding.shorter or path not in (hashes or {})]
        own_paths = unhashed[world.part(len(unhashed))]
        own_digests = map_threaded(self._hash_and_keep, own_paths, "read images")
        digest_bytes = [list(bytes.fromhex(digest)) for digest in own_digests]
        rows = world.gather(torch.tensor(digest_bytes, dtype=torch.uint8).view(len(own_paths), DIGEST))
        hash_of = {**(hashes or {}), **dict(zip(unhashed, (bytes(row).hex() for row in rows.tolist()), strict=True))}
        digests = [hash_of[path] for path in paths]
        order = sorted(range(len(paths)), key=lambda i: digests[i])
        self.order = torch.tensor(order)
        self.paths, self._digests = [paths[i] for i in order], [digests[i] for i in order]
        self.digest = hashlib.sha256("".join(digests[i] for i in order).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """Return an RGB image.

        Args:
            index: Index of the image.

        Raises:
            UserError: If the file cannot be read, or if its content has changed since it was hashed: pseudo-labels and
                cached features belong to the hash.
        """
        path = self.paths[index]
        if (cached := self._cache.get(path)) is not None:
            return Image.fromarray(cached)
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != self._digests[index]:
            raise UserError(f"image {path} has changed since the run started; start a new run in another output folder")
        return decode_image(data, path, self.decoding)

    def prepared(self, index: int, view: View) -> Image.Image:
        """Return an image after the fixed stage of a view. The result is cached as long as there is room.

        All views with a fixed stage must share it, since the cache key is the index alone. `Inputs` determines it.

        Args:
            index: Index of the image.
            view: View whose fixed stage is applied.
        """
        if view.fixed is None:
            return self.image(index)
        if index in self._prepared:
            return self._prepared[index]
        image = view.fixed(self.image(index))
        size = 4 * image.width * image.height  # Pillow stores RGB in four bytes
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._prepared[index] = image
        return image

    def _hash_and_keep(self, path: str) -> str:
        """Hash a file. It is also decoded, so that damaged files are found early, and cached while there is room."""
        data = self._read(path)
        pixels = np.asarray(decode_image(data, path, self.decoding))
        if pixels.nbytes <= self._free_bytes:
            self._free_bytes -= pixels.nbytes
            self._cache[path] = pixels
        return hashlib.sha256(data).hexdigest()
