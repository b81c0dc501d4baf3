"""Data loaders of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

from ..utils.images import read_image
from .datasets import Datum, build_dataset
from .samplers import build_sampler

__all__ = ["DataManager", "DatasetWrapper", "build_data_loader"]


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Any = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Any = None,
    is_train: bool = True,
    dataset_wrapper: Any = None,
) -> DataLoader:
    """Build a loader.

    Args:
        cfg: Config; DATALOADER.NUM_WORKERS and USE_CUDA are read.
        sampler_type: Name of a sampler, as for `build_sampler`.
        data_source: Images to load.
        batch_size: Number of images per batch.
        n_domain: Number of domains per batch, for samplers of domains.
        n_ins: Number of images per class in a batch, for samplers of classes.
        tfm: One transform, or several for several views.
        is_train: Whether the loader is for training, which drops an incomplete last batch unless it is the only one.
        dataset_wrapper: Class to use instead of `DatasetWrapper`.

    Raises:
        AssertionError: If the loader has no batch.
    """
    sampler = build_sampler(
        sampler_type,
        cfg=cfg,
        data_source=data_source,
        batch_size=batch_size,
        n_domain=n_domain,
        n_ins=n_ins,
    )
    wrapper = DatasetWrapper if dataset_wrapper is None else dataset_wrapper
    loader = DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if not len(loader):
        raise AssertionError(f"{sampler_type} makes no batch of {batch_size} out of {len(data_source)} images")
    return loader


class DataManager:
    """A data set and its loaders.

    Args:
        cfg: Config of the run.
        custom_tfm_train: Transform for training to use instead of the one that INPUT describes.
        custom_tfm_test: Transform for tests to use instead of the one that INPUT describes.
        dataset_wrapper: Class to use instead of `DatasetWrapper`.

    Attributes:
        dataset: Data set of the run.
        train_loader_x: Loader of labelled images.
        train_loader_u: Loader of unlabelled images, or None.
        val_loader: Loader of validation images, or None.
        test_loader: Loader of test images.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: Any = None,
    ) -> None:
        self.dataset = build_dataset(cfg)
        self._cfg = cfg
        self._wrapper = dataset_wrapper
        self._tfm_train = self._transform(custom_tfm_train, True)
        self._tfm_test = self._transform(custom_tfm_test, False)
        options = cfg.DATALOADER
        self.train_loader_x = self._train_loader(self.dataset.train_x, options.TRAIN_X)
        self.train_loader_u = None
        if self.dataset.train_u:
            same = options.TRAIN_U.SAME_AS_X
            self.train_loader_u = self._train_loader(
                self.dataset.train_u, options.TRAIN_X if same else options.TRAIN_U
            )
        self.val_loader = self._test_loader(self.dataset.val) if self.dataset.val else None
        self.test_loader = self._test_loader(self.dataset.test)
        self._num_classes = self.dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = self.dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _transform(self, custom: Any, is_train: bool) -> Any:
        from .transforms import build_transform  # needs torchvision, whose import takes as long as the rest

        if custom is None:
            return build_transform(self._cfg, is_train=is_train)
        print(f"* Using custom transform for {'training' if is_train else 'testing'}")
        return custom

    def _train_loader(self, source: Sequence[Datum], options: CfgNode) -> DataLoader:
        return build_data_loader(
            self._cfg,
            sampler_type=options.SAMPLER,
            data_source=source,
            batch_size=options.BATCH_SIZE,
            n_domain=options.N_DOMAIN,
            n_ins=options.N_INS,
            tfm=self._tfm_train,
            is_train=True,
            dataset_wrapper=self._wrapper,
        )

    def _test_loader(self, source: Sequence[Datum]) -> DataLoader:
        return build_data_loader(
            self._cfg,
            sampler_type=self._cfg.DATALOADER.TEST.SAMPLER,
            data_source=source,
            batch_size=self._cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=self._tfm_test,
            is_train=False,
            dataset_wrapper=self._wrapper,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        """Number of source domains, in DATASET.SOURCE_DOMAINS."""
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class names by label."""
        return self._lab2cname

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print a table with the numbers of classes and images."""
        table: list[list[Any]] = [["Dataset", cfg.DATASET.NAME]]
        for title, domains in (("Source", cfg.DATASET.SOURCE_DOMAINS), ("Target", cfg.DATASET.TARGET_DOMAINS)):
            if domains:
                table.append([title, domains])
        table += [["# classes", f"{self.num_classes:,}"], ["# train_x", f"{len(self.dataset.train_x):,}"]]
        for title, source in (("# train_u", self.dataset.train_u), ("# val", self.dataset.val)):
            if source:
                table.append([title, f"{len(source):,}"])
        table.append(["# test", f"{len(self.dataset.test):,}"])
        print(tabulate(table))


class DatasetWrapper(Dataset):
    """PyTorch data set that reads and transforms images, and adds labels.

    Args:
        cfg: Config; INPUT, DATALOADER.K_TRANSFORMS and DATALOADER.RETURN_IMG0 are read.
        data_source: Images with labels.
        transform: One callable for "img"; a list of them for "img", "img2", "img3" ...; None for the image itself.
        is_train: Whether the images are for training; DATALOADER.K_TRANSFORMS applies to training only.

    Raises:
        ValueError: If K_TRANSFORMS is above 1 and there is no transform.
    """

    def __init__(
        self, cfg: CfgNode, data_source: Sequence[Datum], transform: Any = None, is_train: bool = False
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to apply")
        self.to_tensor: Callable[[Any], Any] | None = None
        if self.return_img0:
            from .transforms.transforms import plain_transform

            self.to_tensor = plain_transform(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        image = read_image(item.impath)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        several = isinstance(self.transform, (list, tuple))
        for number, transform in enumerate(self.transform if several else [self.transform], start=1):
            output["img" if number == 1 else f"img{number}"] = self._view(transform, image)
        if self.to_tensor is not None:
            output["img0"] = self.to_tensor(image)
        return output

    def _view(self, transform: Any, image: Any) -> Any:
        if transform is None:
            return image
        if self.k_tfm > 1:
            return [transform(image) for _ in range(self.k_tfm)]
        return transform(image)
