"""timm's MobileNetV4-Conv-S at half width, trained as people write it: torchvision's transforms, a DataLoader, OneCycleLR.

    python peer.py --images FOLDER/cifar10.npz --seed 0 --out FOLDER/peer-0

Needs torch, torchvision and timm, and nothing of this repository. Resumable at epochs.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from torch.utils.data import DataLoader, Dataset

EPOCHS, BATCH, LR = 2, 128, 0.15
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Images(Dataset):
    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.images[index]), int(self.labels[index])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if (given.out / "result.json").exists():
        return
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    arrays = np.load(given.images)
    plain = [T.ToTensor(), T.Normalize(MEAN, STD)]
    moved = T.Compose([T.ToPILImage(), T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), *plain])
    train = Images(arrays["x_train"], arrays["y_train"], moved)
    test = Images(arrays["x_test"], arrays["y_test"], T.Compose(plain))
    model = timm.create_model("mobilenetv4_conv_small_050", pretrained=False, num_classes=10, drop_rate=0.3)
    model = model.to(memory_format=torch.channels_last)
    loader = DataLoader(train, BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=EPOCHS * len(loader), pct_start=0.25, cycle_momentum=False
    )
    state, curve, seconds = given.out / "state.pt", [], 0.0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        torch.set_rng_state(kept["rng"])
        curve, seconds = kept["curve"], kept["seconds"]
    for epoch in range(len(curve), EPOCHS):
        model.train()
        began = time.process_time()
        for x, y in loader:
            loss = F.cross_entropy(model(x.to(memory_format=torch.channels_last)), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds += time.process_time() - began
        curve.append(accuracy(model, test))
        print(epoch, curve[-1], round(seconds), flush=True)
        kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        kept |= {"rng": torch.get_rng_state(), "curve": curve, "seconds": seconds}
        torch.save(kept, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)
    result = {
        "accuracy": curve[-1],
        "curve": curve,
        "images": EPOCHS * len(loader) * BATCH,
        "cpu_seconds": seconds,
        "params": sum(one.numel() for one in model.parameters()),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }
    (given.out / "result.json").write_text(json.dumps(result))


@torch.no_grad()
def accuracy(model, images):
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(images, 256))
    return right / len(images)


if __name__ == "__main__":
    main()
