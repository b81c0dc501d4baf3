"""Entry point of a plugin, written like that of CoOp."""

import argparse

from yacs.config import CfgNode as CN

import trainers.toy  # noqa: F401
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, setup_logger


def extend_cfg(cfg):
    cfg.TRAINER.TOY = CN({"DROPOUT": 0.0})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("root", "output-dir", "trainer", "backbone", "model-dir", "config-file"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--load-epoch", type=int)
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.TRAINER.NAME = args.root, args.output_dir, args.trainer
    cfg.MODEL.BACKBONE.NAME = args.backbone
    cfg.merge_from_file(args.config_file) if args.config_file else None
    cfg.merge_from_list(args.opts)
    set_random_seed(args.seed)
    setup_logger(cfg.OUTPUT_DIR)
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    else:
        trainer.train()
