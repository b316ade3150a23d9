"""Experts on the backbone in this package: load, attach, train, generate, save."""

import numpy as np
import optax
from flax import nnx

import omni_smola as smola

colours = {"rouge": (220, 30, 30), "bleu": (30, 30, 220), "vert": (30, 160, 30)}
images = [np.full((96, 96, 3), colour, np.uint8) for colour in colours.values()]
model = smola.load_backbone("tiny")
config = smola.SmolaConfig(visual=4, text=4, multimodal=4, rank=4, scale_init=4.0)
smola.attach_experts(model, config, "encoder/.*", rngs=nnx.Rngs(0))
batch = smola.make_batch(model, images, ["Answer in fr: What color is it?"] * 3, list(colours))
optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=smola.ExpertParam)


@nnx.jit
def train_step(model, optimizer, batch):
    experts = nnx.DiffState(0, smola.ExpertParam)
    optimizer.update(model, nnx.grad(smola.target_loss, argnums=experts)(model, batch))


for _ in range(60):
    train_step(model, optimizer, batch)
print(smola.generate(model, batch))  # ['rouge', 'bleu', 'vert']
smola.save_experts("french.safetensors", model)  # and load_experts reads them
