"""The keys of CoFT's section of the config; trainers that are variants of it have them too."""

from __future__ import annotations

from yacs.config import CfgNode


def coft_keys() -> CfgNode:
    """CoFT's keys with their defaults. docs/method.md says what they do, and why."""
    own = CfgNode()
    own.PREC = "fp32"  # fp32, bf16, fp16, amp, or auto: what the machine is faster with
    own.N_CTX = 0  # random context tokens; 0: the words of the data set's template
    own.VISUAL = "auto"  # light visual module of Phase I; auto: vpt-deep for a ViT, norms-and-biases for a ResNet
    own.VPT_TOKENS = 20
    own.LORA_RANK = 4
    own.ADAPTER_REDUCTION = 4  # how many times narrower an adapter's bottleneck is
    own.KG_WEIGHT = 0.0  # pull of the positive text features towards the template's (KgCoOp)
    own.SEEDS_PER_CLASS = 16  # K: pseudo-labels of each class for each peer, at most
    own.SEEDS_SHARE = 0.5  # of a class's expected images N / C, so many are seeds at most, of both peers together
    own.SPLIT_SEEDS = True  # False: each peer is trained on all seeds of both
    own.PRIOR_TAU = 0.5  # correction against classes that are hardly ever predicted
    own.LABEL_VIEWS = 3  # a pseudo-label is of so many views of an image: the test's, and weak ones
    own.CLEAN_RULE = "coupled"  # coupled, open, calibrated or raw: a name of parts/cleanliness.py
    own.NEGATIVE_START = "mean"  # mean or positive: see parts/peer.py
    own.CLASS_NEGATIVE = (
        True  # negative text features have a part of each class's own, trained and fitted (LAMBDA_DUAL > 0)
    )
    own.CLASSIFY = "joint"  # joint, clean or positive: what the class is chosen by, a name of parts/labelling.py
    own.COMPLEMENTS = "all"  # the dual loss is over all other classes, or over one that is drawn
    own.FILTER = "both"  # a name of parts/pseudo_labels.py
    own.SOFT = True  # a pseudo-label weighs as much as it is likely clean; False: those above 1/2 count, and only they
    own.MIN_KEPT = 4  # of each class, so many are always kept, but no more than a quarter of K, rounded up
    own.LAMBDA_DUAL = 1.0  # weight of the dual loss in Phase I
    own.NEG_GRAD_TO_VISUAL = True  # False: DeFT's routing
    own.MICRO_BATCH = 0  # images that go through the encoder at a time; 0: the whole batch (see parts/peer.py)
    own.EVAL_FREQ = 5  # epochs between accuracies of the curves; 0: at the ends of the phases only
    own.PHASE1 = CfgNode({"EPOCHS": 10, "MIN_STEPS": 300, "WARMUP_STEPS": 100, "MIN_AUC": 0.9})
    own.PHASE2 = CfgNode({"EPOCHS": 10, "LR": 1e-5, "HEAD_LR": 1e-4, "WEIGHT_DECAY": 5e-4, "REFRESH": 2})
    own.PHASE2.LAMBDA_DUAL = 0.0  # weight of the dual loss in Phase II (CLASS_NEGATIVE fits anew in any case)
    own.PHASE2.VIEW = "strong"  # or weak: what peers are trained on (labels are of LABEL_VIEWS)
    own.PHASE2.CLASSIFY = "positive"  # as CLASSIFY, for the labels of Phase II after its first ones
    own.PHASE2.RENEW_SEEDS = True  # once it has trained, negative vectors are fitted to the surest images of the time
    own.PHASE2.EMA = 0.99
    own.PHASE2.WISE = 0.5  # Phase II's share in the weights that are tested
    own.PHASE2.FIT_TESTED = True  # negative vectors are fitted at the end to what is tested; False: to the EMA
    own.PHASE2.RESTART = False  # True: the encoder starts Phase II from pre-trained weights, as DeFT's does
    own.PHASE2.COMPILE = ""  # backend of torch.compile for the encoders ("inductor"), or none
    return own
