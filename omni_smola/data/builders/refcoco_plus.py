"""RefCOCO+ (Yu et al., arXiv 1608.00272): as RefCOCO, without words for places."""

from omni_smola.data.builders.official.refer import ReferBuilder, refer_splits


class RefcocoPlus(ReferBuilder):
    """RefCOCO+, the splits of UNC: refs(unc).p and instances.json in refcoco_plus/ or refcoco+/, as
    the official archive unpacks; photos of COCO.

    Configs and splits as of RefCOCO: `comprehension` and `generation`; train, validation, testA
    (people) and testB (other objects).
    """

    SPLITS = refer_splits(
        "refs(unc).p", ("train", "validation", "testA", "testB"), "refcoco_plus", "refcoco+"
    )
