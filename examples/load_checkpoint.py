"""A checkpoint of ``twolayer train --save digits.pt`` in plain torch: this library is not needed.

Usage: python load_checkpoint.py digits.pt
"""

import sys
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn

checkpoint = torch.load(sys.argv[1], weights_only=True)
config = checkpoint["config"]
model = nn.Sequential(
    OrderedDict(
        linear1=nn.Linear(config["in_features"], config["hidden_features"]),
        relu=nn.ReLU(),
        linear2=nn.Linear(config["hidden_features"], config["out_features"]),
    )
)
model.load_state_dict(checkpoint["model"])

images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32)
x = (x - checkpoint["feature_mean"]) / checkpoint["feature_scale"]
with torch.no_grad():
    found = torch.tensor(checkpoint["classes"])[model(x).argmax(1)]
right = (found == torch.tensor(labels)).sum()
print(f"{right} of {len(labels)} digits are read right after {checkpoint['epoch']} epochs")
