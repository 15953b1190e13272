"""``python -m advlib.train``: recipes, processes, checkpoints, ImageNet's folder."""

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from advlib import attacks, data, files, train, training
from advlib.train import command, samples

pytest.importorskip("lightning_fabric")
DIGITS = ["--recipe", "digits_quick", "--accelerator", "cpu"]
SHORT = [*DIGITS, "--set", "schedule.epochs=2"]
STANDARD = ["--set", "attack.num_steps=0"]
NAME = "digits_quick-0"


def run(out, arguments=SHORT):
    """Train in this process; return weights and result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's hints on the number of workers
        train.main([*arguments, "--out", str(out)])
    (result,) = out.glob("*.json")
    (weights,) = out.glob("*.safetensors")
    return load_file(weights), json.loads(result.read_text())


def largest_difference(one, other):
    """The largest difference of any entry of two states."""
    assert one.keys() == other.keys()
    return max(float((one[k].double() - other[k].double()).abs().max()) for k in one)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Weights and result of two epochs on digits, without interruption."""
    return run(tmp_path_factory.mktemp("unbroken"))


# ---------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", sorted(train.RECIPES.glob("*.toml")), ids=str)
def test_the_recipes_of_the_book(path):
    """Each can be read, and its network built for its images."""
    recipe = train.read_recipe(path.stem)
    shape = (3, 64, 64) if recipe.network.build == "resnet50" else (1, 28, 28)
    model = train.build_network(recipe.network, shape, 0)
    assert sum(p.numel() for p in model.parameters()) > 1000


def test_imagenet_recipe_is_the_papers():
    """Section 2 of Xie et al. 2020, as far as it is known."""
    recipe = train.read_recipe("imagenet_sat")
    assert (recipe.attack.eps, recipe.attack.num_steps) == (4 / 255, 1)
    plan = recipe.schedule
    assert (plan.epochs, plan.lr / plan.batch_size) == (100, 0.1 / 256)
    assert (plan.milestones, plan.warmup_epochs) == ([30, 60, 90], 5)
    assert (plan.weight_decay, plan.label_smoothing) == (1e-4, 0.1)
    model = train.build_network(recipe.network, (3, 64, 64), 0)
    kinds = {type(layer) for layer in model.modules()}
    assert nn.SiLU in kinds
    assert nn.ReLU not in kinds


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("schedule.epoch=3", ValueError, "schedule.epoch;"),
        ("network.widths=3", ValueError, "network.widths;"),
        ("extra.a=1", ValueError, "extra"),
        ("schedule.epochs=2.5", TypeError, "schedule.epochs must be int"),
        ("schedule.epochs=true", TypeError, "schedule.epochs must be int"),
        ("schedule.lr='0.1'", TypeError, "schedule.lr must be float"),
        ("schedule.milestones=[1.5]", TypeError, "schedule.milestones"),
        ("data.augment=1", TypeError, "data.augment must be bool"),
        ("attack.eps='8/0'", ValueError, "attack.eps"),
        ("attack.eps='eight'", ValueError, "attack.eps"),
        ("attack.eps=8", ValueError, "attack.eps"),
        ("attack.eps=nan", ValueError, "attack.eps"),
        ("attack.num_steps=-1", ValueError, "attack.num_steps"),
        ("network.activation='swish'", ValueError, "network.activation"),
        ("schedule.shape='cosine'", ValueError, "schedule.shape"),
        ("schedule.lr=0", ValueError, "schedule.lr"),
        ("schedule.epochs=0", ValueError, "schedule.epochs"),
        ("schedule.momentum=1", ValueError, "schedule.momentum"),
        ("schedule.lr=", ValueError, "schedule.lr="),
    ],
)
def test_a_bad_recipe_is_named(change, error, message):
    """Unknown keys, wrong types and values without sense: the error says which."""
    with pytest.raises(error, match=message.replace(".", r"\.")):
        train.read_recipe("digits_quick", [change])


def test_missing_recipe_network_folder(tmp_path):
    """What is not there is named, and so is what there is."""
    with pytest.raises(FileNotFoundError, match="digits_quick"):
        train.read_recipe("no_such")
    bad = tmp_path / "bad.toml"
    bad.write_text("[data\n")
    with pytest.raises(ValueError, match=r"bad\.toml"):
        train.read_recipe(str(bad))
    bad.write_text('[data]\ndataset = "digits"\n')
    with pytest.raises(ValueError, match="network"):
        train.read_recipe(str(bad))
    with pytest.raises(ValueError, match="resnet51"):
        train.build_network(train.Network("resnet51"), (3, 8, 8), 0)
    with pytest.raises(ValueError, match="seeded"):  # a function, but no network
        train.build_network(train.Network("seeded"), (3, 8, 8), 0)
    folder = train.Images("image_folder", folder=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"data\.folder.*nowhere"):
        train.load_images(folder, 0)


def test_a_missing_key_is_named(tmp_path):
    """A table without one of its keys."""
    text = (train.RECIPES / "digits_quick.toml").read_text()
    path = tmp_path / "short.toml"
    path.write_text(text.replace("lr = 0.1\n", ""))
    with pytest.raises(ValueError, match="'lr'"):
        train.read_recipe(str(path))


# ----------------------------------------------------------------- order, rates, noise


def test_order_by_hand():
    """Each epoch holds each image once; the parts of two processes make up a batch."""
    plan = train.Schedule(epochs=3, batch_size=4, lr=0.1)
    whole = list(train.Order(12, plan, seed=1, first=0, rank=0, world=1))
    assert len(whole) == 9
    for epoch in range(3):
        keys = [key for batch in whole[3 * epoch : 3 * epoch + 3] for key in batch]
        assert sorted(keys) == [(epoch, index) for index in range(12)]
    assert whole[:3] != whole[3:6]
    parts = [list(train.Order(12, plan, 1, 0, rank, 2)) for rank in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert sorted(first + second) == sorted(batch)
    assert list(train.Order(12, plan, 1, 5, 0, 1)) == whole[5:]


def test_rates_by_hand():
    """Up and down; a tenth at each milestone; a linear rise at the start."""
    plan = train.Schedule(epochs=3, batch_size=1, lr=0.9, shape="triangle")
    rates = [train.learning_rate(plan, step, 1) for step in range(3)]
    assert rates == pytest.approx([0.45, 0.675, 0.225])
    plan = train.Schedule(
        epochs=9,
        batch_size=1,
        lr=1.0,
        shape="steps",
        milestones=[3, 6],
        warmup_epochs=2,
    )
    rates = [train.learning_rate(plan, step, 1) for step in range(9)]
    assert rates == pytest.approx([0.25, 0.75, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_noise_belongs_to_the_sample():
    """The same for a sample in any company, another in another epoch or seed."""
    images = train.Images("digits", augment=True)
    samples, _ = train.load_images(images, 3)
    x, noise, y = samples[0, 5]
    again = train.load_images(images, 3)[0]
    assert torch.equal(again[0, 5][1], noise)
    assert torch.equal(again[0, 5][0], x)
    for other in (samples[1, 5], samples[0, 6], train.load_images(images, 4)[0][0, 5]):
        assert not torch.equal(other[1], noise)
    assert int(y) == int(samples.labels[5])


def test_perturb_stays_in_ball_and_box():
    """From the noise given, or from the clean image; eval mode while crafting."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    x, y = (part[:6] for part in data.load("digits").train)
    attack = train.Attack(eps=0.1)
    moved = {}
    for clean in (False, True):
        for noise in (torch.zeros_like(x), torch.ones_like(x)):
            x_adv = train.perturb(model, x, noise, y, attack, clean)
            assert (x_adv - x).abs().max() <= 0.1 + 1e-6
            assert x_adv.min() >= 0
            assert x_adv.max() <= 1
            moved[clean, float(noise.max())] = x_adv
    expected = x + attacks.fgsm(model, x, y, 0.1)
    torch.testing.assert_close(moved[True, 0.0], expected)
    assert torch.equal(moved[True, 0.0], moved[True, 1.0])
    assert not torch.equal(moved[False, 0.0], moved[False, 1.0])
    none = train.perturb(model, x, x, y, train.Attack(0.1, num_steps=0), False)
    assert torch.equal(none, x)


# ---------------------------------------------------------------- one process and more


def test_result(unbroken):
    """It learns; the record says how, and holds no path of this machine."""
    weights, record = unbroken
    assert record["objective"][1] < record["objective"][0]
    assert record["steps"] == 46
    assert record["validation"]["n"] == len(data.load("digits").validation[1])
    wrong = record["validation"]
    assert wrong["clean_wrong"] <= wrong["attacked_wrong"] <= wrong["attacked_n"]
    assert record["recipe"]["attack"]["eps"] == 0.1
    assert set(record["versions"]) >= {"python", "torch", "lightning-fabric"}
    assert "/" not in json.dumps(record).replace("1/10", "")
    assert all(value.isfinite().all() for value in weights.values())


def test_two_processes_train_as_one(tmp_path, unbroken):
    """Gloo, two processes, the same global batch: equal to float32's rounding.

    Gradients are summed in another order, so the last bits differ: at most 1e-5 after
    46 steps, on weights of size 0.1 to 1.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "advlib.train", *SHORT, "--devices", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert record["processes"] == 2
    weights = load_file(tmp_path / f"{NAME}.safetensors")
    assert largest_difference(weights, unbroken[0]) < 1e-5
    assert record["objective"] == pytest.approx(unbroken[1]["objective"], abs=1e-4)


def test_fabric_run(tmp_path, unbroken):
    """Under Fabric's own launcher its options count, and the result is the same."""
    script = str(Path(train.__file__).with_name("__main__.py"))
    command = [sys.executable, "-m", "lightning_fabric.cli"]
    command += ["--accelerator", "cpu", "--devices", "1", script, *SHORT[:2]]
    command += [*SHORT[4:], "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = load_file(tmp_path / f"{NAME}.safetensors")
    assert largest_difference(weights, unbroken[0]) < 1e-6


class TwoProcesses:
    """As much of Fabric as the constructor of a run asks for."""

    world_size = 2
    device = torch.device("cpu")


class OneProcess(TwoProcesses):
    """The same, alone."""

    world_size = 1


def test_batch_norm_over_two_cpu_processes_is_refused(tmp_path):
    """Its statistics would be those of half a batch; SyncBatchNorm needs GPUs."""
    change = "network.build='residual_small'"
    recipe = train.read_recipe("digits_quick", [change])
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        train.Run(recipe, 0, tmp_path, TwoProcesses())
    recipe = train.read_recipe("digits_quick", ["schedule.batch_size=1"])
    with pytest.raises(ValueError, match="processes"):
        train.Run(recipe, 0, tmp_path, TwoProcesses())


def test_batch_norm_on_batches_of_one_image_is_refused(tmp_path):
    """One image has no variance."""
    changes = ["network.build='residual_small'", "schedule.batch_size=1"]
    recipe = train.read_recipe("digits_quick", changes)
    with pytest.raises(ValueError, match="two images"):
        train.Run(recipe, 0, tmp_path, OneProcess())


# ------------------------------------------------------------------------- checkpoints


def test_killed_and_resumed(tmp_path, unbroken):
    """SIGKILL in the middle of the first epoch; the resumed run ends with the same."""
    command = [sys.executable, "-m", "advlib.train", *SHORT, "--every", "1"]
    checkpoint = tmp_path / f"{NAME}.checkpoint"
    child = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < until:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / f"{NAME}.json").exists()
    kept = load_file(checkpoint)
    assert (
        largest_difference(
            {k[6:]: v for k, v in kept.items() if k.startswith("model.")}, unbroken[0]
        )
        > 1e-3
    )
    weights, record = run(tmp_path)
    assert largest_difference(weights, unbroken[0]) == 0
    assert record["objective"] == unbroken[1]["objective"]


def test_resumes_in_the_middle_of_an_epoch(tmp_path, unbroken):
    """Stopped after 30 of 46 steps, seven into the second epoch: the same end."""
    recipe = train.read_recipe("digits_quick", ["schedule.epochs=2"])
    options = command._options([*SHORT, "--out", str(tmp_path)])
    fabric = command._fabric(options)
    first = train.Run(recipe, 0, tmp_path, fabric)
    step, steps = first.step, []

    def stopping(*parts):
        if len(steps) == 30:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*parts)

    first.step = stopping
    with pytest.raises(KeyboardInterrupt):
        first.train(every=10)
    second = train.Run(recipe, 0, tmp_path, fabric)
    assert second.progress.step == 30
    assert len(second.progress.history) == 1
    second.train(every=1000)
    assert largest_difference(second.model.state_dict(), unbroken[0]) == 0


def test_a_finished_run_is_not_trained_again(tmp_path, unbroken):
    """A second call finds the checkpoint of the end, and gives the same result."""
    for _ in range(2):
        weights, record = run(tmp_path)
        assert largest_difference(weights, unbroken[0]) == 0
        assert record["objective"] == unbroken[1]["objective"]


def tampered(path):
    """Write the checkpoint again with one weight changed, its metadata kept."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    tensors["model.1.bias"][0] += 1
    save_file(tensors, path, metadata=facts)


def truncated(path):
    """Cut the file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path):
    """Some other safetensors file."""
    save_file({"a": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [(tampered, "altered"), (truncated, "truncated"), (foreign, "no checkpoint")],
)
def test_a_bad_checkpoint_is_refused_and_kept(tmp_path, harm, message):
    """The error names the file; nothing is written over it."""
    run(tmp_path, [*DIGITS, "--set", "schedule.max_steps=2"])
    path = tmp_path / f"{NAME}.checkpoint"
    harm(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        run(tmp_path, [*DIGITS, "--set", "schedule.max_steps=2"])
    assert path.read_bytes() == before


def tied() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """One layer used twice, after a step with momentum."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    optimizer = training.sgd(model, momentum=0.9)
    model(torch.rand(3, 4)).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    return model, optimizer


def test_a_checkpoint_of_tied_weights(tmp_path):
    """Saved and loaded: equal, still one layer, its momentum too."""
    path = tmp_path / "tied.checkpoint"
    model, optimizer = tied()
    train.save_checkpoint(path, model, optimizer, train.Progress(7, 0.5, [1.0]), "r")
    other, blank = tied()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
            blank.state[parameter]["momentum_buffer"].zero_()
    progress = train.load_checkpoint(path, other, blank, "r")
    assert progress == train.Progress(7, 0.5, [1.0])
    assert largest_difference(other.state_dict(), model.state_dict()) == 0
    assert other[0] is other[2]
    assert len(list(other.parameters())) == 2
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    for one, two in pairs:
        momenta = (o.state[p] for o, p in ((optimizer, one), (blank, two)))
        one, two = (state["momentum_buffer"] for state in momenta)
        assert one.abs().max() > 0
        assert torch.equal(one, two)


def test_tied_weights_are_trained_and_kept(tmp_path, monkeypatch):
    """To the end: checkpoint, weights and record of a network with one layer twice."""

    def build(recipe, shape, seed):
        layer = nn.Linear(64, 64)
        return nn.Sequential(
            nn.Flatten(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 10)
        )

    monkeypatch.setattr("advlib.train.run.build_network", build)
    weights, record = run(tmp_path, [*DIGITS, "--set", "schedule.max_steps=2"])
    assert record["steps"] == 2
    assert torch.equal(weights["1.weight"], weights["3.weight"])
    assert not list(tmp_path.glob("*.part"))


def test_no_checkpoint_of_a_network_that_broke(tmp_path):
    """The loss before the last step was finite; the good checkpoint stays."""
    path = tmp_path / "a.checkpoint"
    model, optimizer = tied()
    train.save_checkpoint(path, model, optimizer, train.Progress(1), "r")
    before = path.read_bytes()
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"not finite.*lr"):
        train.save_checkpoint(path, model, optimizer, train.Progress(2), "r")
    assert path.read_bytes() == before


@pytest.mark.parametrize("harm", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, harm):
    """And no draft beside it."""
    path = tmp_path / "a.checkpoint"
    model, optimizer = tied()
    train.save_checkpoint(path, model, optimizer, train.Progress(1), "r")
    before = path.read_bytes()

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, harm, full)
    with pytest.raises(OSError, match="no space"):
        train.save_checkpoint(path, model, optimizer, train.Progress(2), "r")
    assert [p.name for p in tmp_path.iterdir()] == ["a.checkpoint"]
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    """Another rate, another seed under the same name: not the same training."""
    run(tmp_path, [*DIGITS, "--set", "schedule.max_steps=2"])
    with pytest.raises(ValueError, match="another recipe"):
        run(tmp_path, [*DIGITS, "--set", "schedule.lr=0.2"])
    shutil.copy(tmp_path / f"{NAME}.checkpoint", tmp_path / "digits_quick-1.checkpoint")
    with pytest.raises(ValueError, match="another recipe or seed"):
        train.main([*DIGITS, "--seed", "1", "--out", str(tmp_path)])


def test_bad_options(tmp_path):
    """A negative seed and an interval of 0 steps."""
    for bad in (["--seed", "-1"], ["--every", "0"]):
        with pytest.raises(ValueError, match="seed"):
            train.main([*DIGITS, *bad, "--out", str(tmp_path)])


def test_a_loss_that_explodes_is_an_error(tmp_path):
    """At the loss, or already at the attack, which looks at the weights first."""
    with pytest.raises(FloatingPointError, match="lr"):
        run(tmp_path, [*DIGITS, "--set", "schedule.lr=1e30", *STANDARD])
    with pytest.raises(ValueError, match="look at the weights"):
        run(tmp_path / "attacked", [*DIGITS, "--set", "schedule.lr=1e30"])


# ---------------------------------------------------------------------------- ImageNet


@pytest.fixture
def photographs(tmp_path):
    """Eight photographs of noise in two classes, for training and for validation."""
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / "imagenet" / part / label
            folder.mkdir(parents=True)
            for k in range(4):
                pixels = draw.integers(0, 256, (72, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.jpg")
    return tmp_path / "imagenet"


def test_imagenet_recipe_runs_and_resumes(tmp_path, photographs):
    """ResNet-50, two steps on eight small photographs, at once and one by one."""
    changes = [
        f"data.folder='{photographs}'",
        "data.size=48",
        "schedule.lr=1e-3",
        "data.workers=0",
        "network.num_classes=2",
        "schedule.batch_size=4",
        "schedule.epochs=1",
        "schedule.milestones=[]",
        "schedule.warmup_epochs=0",
    ]
    recipe = train.read_recipe("imagenet_sat", changes)
    assert asdict(recipe)["network"]["build"] == "resnet50"
    fabric = command._fabric(
        command._options(["--recipe", "x", "--accelerator", "cpu"])
    )
    ends = []
    for name, stops in (("whole", [2]), ("halves", [1, 2])):
        (tmp_path / name).mkdir()
        for stop in stops:
            one = train.Run(recipe, 0, tmp_path / name, fabric)
            assert one.progress.step == (stop - 1 if name == "halves" else 0)
            step, start = one.step, one.progress.step

            def counted(*parts, one=one, step=step, stop=stop, start=start):
                if one.progress.step == stop:
                    raise KeyboardInterrupt
                return step(*parts)

            one.step = counted
            if stop == 1:
                with pytest.raises(KeyboardInterrupt):
                    one.train(every=1)
            else:
                one.train(every=1)
        assert one.progress.step == 2
        ends.append({k: v.clone() for k, v in one.model.state_dict().items()})
    assert largest_difference(*ends) == 0
    record = one.report("a command", 1.0)
    assert record["validation"]["n"] == 8
    few, _ = train.load_images(replace(recipe.data, num_images=4), 0)
    assert len(few) == 4
    assert set(few.labels.tolist()) == {0, 1}  # not the first class alone
    for path, label in zip(few.images, few.labels.tolist(), strict=True):
        assert path.parent.name == ("cat", "dog")[label]


@pytest.mark.parametrize("augment", [False, True])
def test_sixteen_bits_and_turned_photographs_are_read_right(tmp_path, augment):
    """A crop of a grey ramp of 16 bits is not white; a photograph is upright."""
    draw = samples.generator_of(0)
    recipe = train.Images("image_folder", size=16, augment=augment)
    deep = np.full((32, 32), 0.25 * 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    x = samples._photo(tmp_path / "deep.png", recipe, draw)
    assert x.shape == (3, 16, 16)
    assert (x - 0.25).abs().max() < 0.01
    tags = Image.Exif()
    tags[0x0112] = 6
    lying = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    lying.paste("white", (0, 0, 16, 32))  # left: on top once it is upright
    lying.save(tmp_path / "lying.png", exif=tags)
    upright = torch.stack(
        [samples._photo(tmp_path / "lying.png", recipe, draw) for _ in range(20)]
    ).mean((0, 1))
    assert upright[0].min() > upright[-1].max() + 0.3
    (tmp_path / "cut.png").write_bytes((tmp_path / "deep.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cut\.png"):
        samples._photo(tmp_path / "cut.png", recipe, draw)
