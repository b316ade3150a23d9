"""RefCOCO (Yu et al., arXiv 1608.00272): short expressions for objects, with places allowed."""

from omni_smola.data.builders.official.refer import ReferBuilder, refer_splits


class Refcoco(ReferBuilder):
    """RefCOCO, the splits of UNC: refs(unc).p and instances.json in refcoco/; photos of COCO.

    Configs `comprehension` (one expression, its box; scored by IoU above 0.5) and `generation` (one
    box, all its expressions; scored by CIDEr); splits train, validation, testA (people) and testB
    (other objects).
    """

    SPLITS = refer_splits("refs(unc).p", ("train", "validation", "testA", "testB"), "refcoco")
