"""What fine-tuning MedSigLIP at 448 px takes, worked out from its tower with 1 and 2 of its 27 layers. An estimate.

    python benchmarks/medsiglip_estimate.py --images 128000 --teraflops 400 --price 3

The tower is built at its true width, patch and photo size with random weights, so that what a layer keeps for the
backward pass (bf16 autocast) and computes is measured and not guessed; both grow by the same amount with each layer.
Speed on a card is its stated teraflops times the share that a training reaches in practice: a guess, and said.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# google/medsiglip-448's vision tower (SigLIP so400m, patch 14), from its config.
TOWER = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "image_size": 448, "patch_size": 14}
LAYERS, BATCH, EPOCHS = 27, 64, (1, 3)
BYTES_A_WEIGHT = 16  # fp32 weight, gradient and AdamW's two moments
CARDS = (12, 16, 24, 40, 48, 80)


def measured(n_layers: int) -> tuple[int, int, int, int]:
    """Return what so many layers take.

    Returns:
        Weights; bytes kept for the backward pass by a batch of any size (bf16 copies of the weights) and by each photo;
        floating-point operations of one photo's forward pass (a multiplication and an addition are two).
    """
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from dermlab.models.cost import measure_steps

    network = SiglipVisionModel(SiglipVisionConfig(num_hidden_layers=n_layers, **TOWER)).train()
    images = torch.randn(2, 3, TOWER["image_size"], TOWER["image_size"])

    def kept(n_photos: int) -> int:
        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                pooled = network(images[:n_photos]).pooler_output
            pooled.float().square().mean().backward()
            network.zero_grad(set_to_none=True)

        return measure_steps(step, network.parameters(), "cpu", steps=1)[1]

    one, two = kept(1), kept(2)
    # Fused attention is one operation that nobody counts; written out, it is products of matrices.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(images[:1])
    return sum(weight.numel() for weight in network.parameters()), 2 * one - two, two - one, counter.get_total_flops()


def main() -> None:
    """Measure one and two layers, extend the line to all of them and print what follows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128_000, help="training photos")
    parser.add_argument("--teraflops", type=float, default=400.0, help="dense bf16 of the card: A100 312, H100 990")
    parser.add_argument("--share", type=float, default=0.4, help="of them that a training reaches")
    parser.add_argument("--price", type=float, help="of the card, an hour")
    options = parser.parse_args()
    one, two = measured(1), measured(2)
    weights, copies, kept, flops = (a + (LAYERS - 1) * (b - a) for a, b in zip(one, two, strict=True))
    always = weights * BYTES_A_WEIGHT + copies
    memory = (always + BATCH * kept) / 1e9
    steps = options.images // BATCH
    frozen, whole = EPOCHS
    # A backward pass computes about twice what the forward pass does.
    work = options.images * flops * (frozen + 3 * whole)
    hours = work / (options.teraflops * 1e12 * options.share) / 3600
    fits = next((f"{size} GB" for size in CARDS if memory * 1.1 < size), "more than one card of 80 GB")
    result: dict[str, Any] = {
        "estimate": True,
        "weights_millions": round(weights / 1e6, 1),
        "kept_mb_a_photo": round(kept / 1e6, 1),
        "memory_gb_at_batch_64": round(memory, 1),
        "memory_gb_at_batch_8_accumulate_8": round((always + 8 * kept) / 1e9, 1),
        "card": fits,
        "gigaflops_forward_a_photo": round(flops / 1e9, 1),
        "steps": {"frozen": steps * frozen, "finetune": steps * whole},
        "hours": round(hours, 2),
        "assumed": {"teraflops": options.teraflops, "share": options.share, "images": options.images},
        "price": None if options.price is None else round(hours * options.price, 2),
    }
    for name, value in result.items():
        print(f"  {name:<36}{value}")
    print("An estimate from scaled-down towers: nothing of this was run on a GPU.")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
