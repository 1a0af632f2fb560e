"""The commands that turn published pickle files into safetensors, for messages and docs. Nothing here runs them.

Tensors are cloned, because safetensors refuses two names for the same memory. `weights_only` makes torch refuse a
pickle that does more than hold tensors.
"""

from __future__ import annotations


def _command(published: str, target: str, part: str = "") -> str:
    return (
        'python -c "import torch; from safetensors.torch import save_file; '
        f"found = torch.load('{published}', map_location='cpu', weights_only=True){part}; "
        f"save_file({{name: value.contiguous().clone() for name, value in found.items()}}, '{target}')\""
    )


HPSV2 = _command("HPS_v2.1_compressed.pt", "hpsv2.1.safetensors", "['state_dict']")
AESTHETIC = _command("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors")
IMAGEREWARD = _command("ImageReward.pt", "ImageReward.safetensors")
CLIP_FOLDER = (
    "python -c \"from transformers import CLIPModel; CLIPModel.from_pretrained('SOURCE').save_pretrained('FOLDER')\""
)
