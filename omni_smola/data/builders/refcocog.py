"""RefCOCOg (Mao et al., arXiv 1511.02283; splits of Nagaraja et al., 2016): longer expressions."""

from omni_smola.data.builders.official.refer import ReferBuilder, refer_splits


class Refcocog(ReferBuilder):
    """RefCOCOg, the splits of UMD, where no photo is in two: refs(umd).p and instances.json in
    refcocog/; photos of COCO.

    Configs `comprehension` (one expression, its box; scored by IoU above 0.5) and `generation` (one
    box, all its expressions; scored by CIDEr); splits train, validation and test.
    """

    SPLITS = refer_splits("refs(umd).p", ("train", "validation", "test"), "refcocog")
